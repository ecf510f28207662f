"""The numbers in README.md and results/README.md are those of the commands beside them, from the
published records."""

import re
import shlex
from pathlib import Path

import pytest

from analysis.table import main
from tests.conftest import REPOSITORY

RESULTS = (REPOSITORY / "results" / "README.md").read_text()
TABLE = re.compile(
    r"```sh\n(?:python -m analysis\.table )(table=(?:norms|accuracies) .*)\n```\n\n((?:\|.*\n)+)"
)
SHOWN = TABLE.findall(RESULTS)


def rows(text: str) -> list[str]:
    """The rows of Markdown tables, without the line beneath the heading."""
    lines = [re.sub(r" +", " ", line.strip()) for line in text.splitlines()]
    return [line for line in lines if line.startswith("|") and not re.match(r"\|[:\s]*-", line)]


def test_there_are_tables_to_compare() -> None:
    assert len(SHOWN) >= 6


@pytest.mark.parametrize(("arguments", "table"), SHOWN)
def test_a_table_is_what_the_command_above_it_prints(
    arguments: str, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)  # where there are no runs
    published = REPOSITORY / "results" / "published"
    assert main([*shlex.split(arguments), f"published={published}"]) == 0
    assert rows(table) == rows(capsys.readouterr().out)


def test_the_readme_has_the_numbers_of_these_tables() -> None:
    found = {}
    for arguments, table in SHOWN:
        if "scale=paper" not in arguments:
            continue
        heading, *lines = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows(table)]
        for line in lines:
            row = dict(zip(heading, line, strict=True))
            found.setdefault(row["Method"].partition(" (Adam")[0], {}).update(row)
    readme = (REPOSITORY / "README.md").read_text()
    start = readme.index("| seed 0 |")
    _, *lines = rows(readme[start : readme.index("\n\n", start)])
    names = {"BPTT": "bptt", "T-BPTT": "t_bptt", "R-BPTT": "r_bptt", "RaT-BPTT": "rat_bptt"}
    assert len(lines) == 6
    for line in lines:
        name, norm, fluctuation, papers, after_300, final = (
            cell.strip() for cell in line.split("|")[1:-1]
        )
        row = found[name]
        assert (norm, fluctuation) == (row["200–300"], row["Fluctuation"])
        assert after_300 == row["300"]
        assert final == row["Final set"].partition(" (n")[0]
        paper = found.get(f"paper: {names.get(name)}", {"Fluctuation": ""})
        assert papers == paper["Fluctuation"]
