"""`python -m analysis.claims`: the paper's claims, and what these results say of each."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.request import Request, sweeps_first
from bench.config import Place, RunConfig
from bench.errors import UserError
from bench.files import make_folder
from bench.grids import choose_scale
from bench.settings import command, only, parse, setting, typed, words

if TYPE_CHECKING:
    import pandas as pd

    from analysis.claiming import Claim, Outcome
    from analysis.inference import Comparison

USAGE = """
python -m analysis.claims [key=value ...]     a verdict on each of the paper's claims, with its n
  give the settings that the sweeps were given; every finished seed counts
"""
COLOURS = {"holds": "green", "does not hold": "red", "undecided": "yellow", "not run": "dim"}
RULES = """\
A verdict rests on the seeds that all sides share: the same seed means the same networks and target
batches, and differences are taken seed by seed. Interval: 95 %, the wider of the paired t interval
and the bootstrap over seeds. Holds: the interval of every comparison lies within what is claimed.
Does not hold: that of some comparison lies wholly outside, at 95 % over all of them together.
Undecided: neither, or fewer than 3 seeds; it needs so many seeds to be decided with a probability
of 80 %, were the effects and spreads seen here the true ones. Of several comparisons of a claim,
the one that speaks least for it is shown. A claim at the very edge of being true gets a wrong
verdict of either kind in 1 of 40 cases, and nothing is corrected for the number of claims.
"""


@dataclass(frozen=True)
class ClaimsOptions:
    """What this command is asked to do."""

    claims: str = setting("all", "ids of claims, comma-separated, or all")
    scale: str = setting("auto", "auto, quick, cpu or paper: the scale of the runs")
    seeds: int = setting(0, "seeds that should be there; 0: as many as a grid states", minimum=0)
    output: str = setting("", "folder of the files; by default claims in results_root")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, ClaimsOptions, RunConfig, Place)
    options = typed(ClaimsOptions, only(given, ClaimsOptions))
    place = typed(Place, only(given, Place))

    from analysis.claiming import load_claims, outcomes
    from analysis.load import stored_runs
    from analysis.render import write_texts

    claims = chosen(load_claims(), options.claims)
    scale, why = choose_scale(options.scale)
    print(f"scale={scale} ({why})")
    request = Request(argv, only(given, RunConfig), scale, options.seeds)
    root = Path(place.results_root)
    found = outcomes(claims, request, stored_runs(root), root)
    table = frame(found)
    about = caption(found, request)
    show(table, about)
    commands = sweeps_first(line for outcome in found for line in outcome.commands)
    if commands:
        print("\nwhat is missing is made with:")
        print("\n".join(f"    {line}" for line in commands))
    folder = make_folder(
        Path(options.output) if options.output else root / "claims", "folder of the claims"
    )
    texts = {
        "md": markdown(table, about, commands),
        "csv": csv(found),
        "json": json.dumps(
            {"caption": about, "rules": RULES, "claims": [record(outcome) for outcome in found]},
            indent=2,
        ),
    }
    for path in write_texts(texts, folder / request.stem(file_name(options.claims))):
        print(path)
    return 0


def chosen(claims: "Sequence[Claim]", ids: str) -> "list[Claim]":
    """The claims that `claims=` names.

    Raises:
        UserError: there is no such claim.
    """
    known = {claim.id: claim for claim in claims}
    if ids == "all":
        return list(claims)
    for name in words(ids):
        if name not in known:
            raise UserError(f"claims={name}: there is no such claim; known: {', '.join(known)}")
    return [known[name] for name in words(ids)]


def file_name(ids: str) -> str:
    """The name of the files: claims, or of one claim or some, which must not take their place."""
    if ids == "all":
        return "claims"
    if len(words(ids)) == 1:
        return f"claim_{ids}"
    return f"claims_{hashlib.sha256(ids.encode()).hexdigest()[:8]}"


def caption(found: "Sequence[Outcome]", request: Request) -> str:
    """What the verdicts are about."""
    told = [f"scale={request.scale}", *request.settings()]
    parts = [f"{len(found)} claims of the paper; {', '.join(told)}."]
    if request.scale == "quick":
        parts.append(
            "The bundled digits stand in for every data set: these verdicts are about them, with a"
            " small network and few steps, and say nothing about the paper's CIFAR-10."
        )
    elif request.scale == "cpu":
        parts.append("A narrow network and few steps: these verdicts are about that setting.")
    if request.scale != "paper":
        parts.append("Claims name the paper's settings; the grids state what stands for them here.")
    return " ".join(parts)


# --- one outcome in words


def effect_text(outcome: "Outcome") -> str:
    """The effect that speaks least for the claim, with its interval."""
    if not outcome.decision.comparisons:
        return ""
    worst = outcome.decision.worst
    if outcome.claim.factor:
        mean, low, high = (f"{math.exp(x):.3g}" for x in (worst.effect, worst.low, worst.high))
        text, unit = f"×{mean}", ""
    else:
        mean, low, high = (f"{x:+.1f}" for x in (worst.effect, worst.low, worst.high))
        text, unit = mean, " points"
    if math.isnan(worst.low):
        return f"{text}{unit}, no interval"
    return f"{text}{unit} [{low}, {high}]"


def claimed_text(claim: "Claim") -> str:
    """What the effect should be."""
    region = claim.region()
    if claim.factor:
        low, high = (f"×{math.exp(x):.3g}" if x < 700 else "" for x in (region.low, region.high))
    else:
        low, high = f"{region.low:+.3g}", f"{region.high:+.3g}"
    if claim.direction == "above":
        return f"> {low if region.low else claim_neutral(claim)}"
    if claim.direction == "below":
        return f"< {high if region.high else claim_neutral(claim)}"
    return f"{low} to {high}"


def claim_neutral(claim: "Claim") -> str:
    """No effect, in the claim's unit."""
    return "×1" if claim.factor else "0"


def comparisons_text(outcome: "Outcome") -> str:
    """How many of a claim's comparisons hold, where there are several."""
    comparisons = outcome.decision.comparisons
    if len(comparisons) < 2:
        return ""
    holding = sum(comparison.holds for comparison in comparisons)
    return f"{holding} of {len(comparisons)} hold"


def worst_text(outcome: "Outcome") -> str:
    """The name of the comparison that is shown, where there are several."""
    comparisons = outcome.decision.comparisons
    return comparisons[0].name if len(comparisons) > 1 else ""


def verdict_text(outcome: "Outcome") -> str:
    """The verdict; undecided ones with the seeds they would need."""
    from analysis.inference import MAX_NEEDED, MIN_SEEDS

    decision = outcome.decision
    if decision.verdict != "undecided":
        return decision.verdict
    needed = decision.seeds_needed or 0
    if needed > MAX_NEEDED:
        return f"undecided, needs more than {MAX_NEEDED} seeds"
    return f"undecided, needs {needed or f'at least {MIN_SEEDS}'} seeds"


# --- all of them


def frame(found: "Sequence[Outcome]") -> "pd.DataFrame":
    """One row a claim, as it is read."""
    import pandas as pd

    rows = [
        {
            "Claim": outcome.claim.claim,
            "Place": outcome.claim.place,
            "Grid": outcome.claim.grid,
            "Claimed": claimed_text(outcome.claim),
            "Effect [95 %]": effect_text(outcome),
            "n (seeds)": str(outcome.decision.n),
            "Verdict": verdict_text(outcome),
            "Comparisons": comparisons_text(outcome),
            "Shown": worst_text(outcome),
            "Missing": "; ".join(outcome.missing),
        }
        for outcome in found
    ]
    table = pd.DataFrame(rows)
    return table if table["Missing"].any() else table.drop(columns="Missing")


def record(outcome: "Outcome") -> dict[str, Any]:
    """Everything about a claim, for programs; factors as factors, not as logarithms."""
    decision = outcome.decision
    return {
        **asdict(outcome.claim),
        "verdict": decision.verdict,
        "n": decision.n,
        "seeds": outcome.seeds,
        "seeds_needed": decision.seeds_needed,
        "comparisons": [_plain(c, outcome.claim.factor) for c in decision.comparisons],
        "missing": outcome.missing,
        "commands": outcome.commands,
    }


def _plain(comparison: "Comparison", factor: bool) -> dict[str, Any]:
    scale = math.exp if factor else float
    own = asdict(comparison)
    for key in ("effect", "low", "high", "spread"):
        own[key] = None if math.isnan(own[key]) else scale(own[key])
    return own


def csv(found: "Sequence[Outcome]") -> str:
    """One row a claim, with the comparison that speaks least for it."""
    import pandas as pd

    rows = []
    for outcome in found:
        whole = record(outcome)
        worst = (whole["comparisons"] or [{}])[0]
        keys = ("id", "claim", "place", "grid", "quantity", "direction", "verdict", "n")
        rows.append(
            {key: whole[key] for key in (*keys, "seeds_needed")}
            | {"unit": "factor" if outcome.claim.factor else "points"}
            | {f"worst_{key}": worst.get(key) for key in ("name", "effect", "low", "high")}
            | {"comparisons": len(whole["comparisons"])}
            | {"comparisons_that_hold": sum(c["holds"] for c in whole["comparisons"])}
            | {"missing": "; ".join(whole["missing"])}
        )
    return pd.DataFrame(rows).to_csv(index=False)


def markdown(table: "pd.DataFrame", about: str, commands: Sequence[str]) -> str:
    """The whole as Markdown."""
    parts = [f"**{about}**", table.to_markdown(index=False, disable_numparse=True), RULES.strip()]
    if commands:
        lines = "\n".join(f"    {line}" for line in commands)
        parts.append(f"What is missing is made with:\n\n{lines}")
    return "\n\n".join(parts) + "\n"


def show(table: "pd.DataFrame", about: str) -> None:
    """The table in the terminal; the files have the places and the comparisons too."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Console(highlight=False)
    out = out if out.is_terminal else Console(highlight=False, width=160)
    shown = Table(box=None, pad_edge=False, header_style="bold", row_styles=["", "on grey11"])
    columns = ["Claim", "Claimed", "Effect [95 %]", "n (seeds)", "Verdict", "Comparisons"]
    for name in columns:
        heading = Text("n" if name == "n (seeds)" else name)
        right = name == "n (seeds)"
        shown.add_column(heading, justify="right" if right else "left", no_wrap=name != "Claim")
    for row in table[columns].itertuples(index=False):
        cells = [Text(str(cell)) for cell in row]
        cells[4].stylize(COLOURS[str(row[4]).partition(",")[0]])
        shown.add_row(*cells)
    out.print(shown)
    out.print(Text(f"\n{about}\n{RULES.strip()}"))


if __name__ == "__main__":
    command(main, USAGE, ClaimsOptions, RunConfig, Place)
