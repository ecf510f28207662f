"""`python -m analysis.claims`: a verdict on each of the paper's claims and on findings of ours."""

import fnmatch
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.arguments import PublishedOptions
from bench.config.command_line import command, only, parse, setting, typed, words
from bench.config.run_config import Environment, RunConfig
from bench.system.errors import UserError
from bench.system.files import make_folder, write_texts

if TYPE_CHECKING:
    import pandas as pd

    from analysis.verdicts.judge import Claim

USAGE = """
python -m analysis.claims [key=value ...]     a verdict on each of the paper's claims, and on
  each finding of ours (analysis/verdicts/findings.yaml), with its n
  give the same settings as to the sweeps; every finished seed counts
"""
COLORS = {
    **{"holds": "green", "does not hold": "red", "undecided": "yellow"},
    **{"not tested": "magenta", "not run": "dim"},
}


@dataclass(frozen=True)
class ClaimsOptions:
    """Options of this command."""

    claims: str = setting("all", "ids of claims, or patterns such as cell_table1_*, or all")
    scale: str = setting("auto", "auto, quick, cpu or paper: the scale of the runs")
    seeds: int = setting(
        0, "seeds that there should be; 0: as many as a grid states", minimum=0, maximum=10_000
    )
    output: str = setting("", "folder of the files; by default claims in results_root")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, ClaimsOptions, PublishedOptions, RunConfig, Environment)
    options = typed(ClaimsOptions, only(given, ClaimsOptions))

    from analysis.published import opened
    from analysis.verdicts.judge import load_claims, outcomes
    from analysis.verdicts.table_cells import cell_claims
    from analysis.verdicts.texts import NUMBERS_TITLE, RULES, claims_table, record

    claims = chosen([*load_claims(), *cell_claims()], options.claims)
    runs = opened(argv, given, options.scale, options.seeds)
    request, root = runs.request, runs.root
    verdicts = outcomes(claims, request, runs.stored, root)
    table = claims_table(verdicts, request)
    for frame, title in table.frames:
        if title != NUMBERS_TITLE:
            show(frame, title)
    print(f"\n{table.caption}\n{RULES.strip()}")
    if table.commands:
        print("\nmake what is missing with:")
        print("\n".join(f"    {line}" for line in table.commands))
    folder = make_folder(
        Path(options.output) if options.output else root / "claims",
        "folder of the claims",
    )
    records = [record(outcome) for outcome in verdicts]
    texts = {
        "md": table.markdown(),
        "csv": table.tidy.to_csv(index=False),
        "json": json.dumps({"caption": table.caption, "rules": RULES, "claims": records}, indent=2),
    }
    for path in write_texts(texts, folder / request.stem(file_name(options.claims))):
        print(path)
    return 0


def chosen(claims: "Sequence[Claim]", ids: str) -> "list[Claim]":
    """The claims that `claims=` names, each once.

    Raises:
        UserError: there is no such claim.
    """
    known = [claim.id for claim in claims]
    if not words(ids):
        raise UserError("claims= names no claim")
    if ids == "all":
        return list(claims)
    found: list[str] = []
    for name in words(ids):
        if not (matching := fnmatch.filter(known, name)):
            raise UserError(f"claims={name}: there is no such claim; known: {', '.join(known)}")
        found += matching
    by_id = {claim.id: claim for claim in claims}
    return [by_id[name] for name in dict.fromkeys(found)]


def file_name(ids: str) -> str:
    """The name of the files; a selection of claims must not overwrite the file of all."""
    if ids == "all":
        return "claims"
    if len(words(ids)) == 1 and ids.replace("_", "").isalnum():
        return f"claim_{ids}"
    return f"claims_{hashlib.sha256(ids.encode()).hexdigest()[:8]}"


def show(table: "pd.DataFrame", title: str) -> None:
    """Print a table; the files have the comparisons and what is missing too."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Console(highlight=False)
    out = out if out.is_terminal else Console(highlight=False, width=160)
    shown = Table(box=None, pad_edge=False, header_style="bold", row_styles=["", "on grey11"])
    columns = ["Kind", "Claimed", "Effect [95 %]", "n (seeds)", "Verdict", "Comparisons"]
    shown.add_column("Claim", min_width=40)
    for name in columns:
        heading = Text("n" if name == "n (seeds)" else name)
        right = name == "n (seeds)"
        shown.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for _, row in table.iterrows():
        claim = Text(str(row["Claim"]))
        claim.append(f"\n{row['Id']} ({row['Place']})", style="dim")
        broken = {name: str(row[name]).replace(", ", "\n") for name in ("Verdict", "Comparisons")}
        cells = [Text(broken.get(name, str(row[name]))) for name in columns]
        cells[columns.index("Verdict")].stylize(color_of(str(row["Verdict"])))
        shown.add_row(claim, *cells)
    if title:
        out.print(Text(f"\n{title}\n", style="bold"))
    out.print(shown)


def color_of(text: str) -> str:
    """The color of a verdict, or of the counts of several, such as "3 hold, 1 does not hold"."""
    if "not hold" in text:
        return COLORS["does not hold"]
    if "undecided" in text or ("hold" in text and "not run" in text):
        return COLORS["undecided"]
    if "not tested" in text:
        return COLORS["not tested"]
    return COLORS["not run" if "not run" in text else "holds"]


if __name__ == "__main__":
    command(main, USAGE, ClaimsOptions, PublishedOptions, RunConfig, Environment)
