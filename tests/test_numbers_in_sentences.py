"""The decimal numbers in the sentences of results/README.md are those of the tables and claims
beside them, which `test_published_numbers.py` compares with what the commands print."""

import json
import re
from pathlib import Path

import pytest

from analysis.claims import main
from tests.conftest import REPOSITORY

RESULTS = (REPOSITORY / "results" / "README.md").read_text()
SECTIONS = {part.splitlines()[0].lstrip("# "): part for part in re.split(r"\n(?=##)", RESULTS)}
DECIMAL = r"(?<![\w.])\d+\.\d+(?![\w.]*\d)"

# By the start of a section's title: numbers that its sentences take from tables of other sections.
OF_OTHER_TABLES = {
    "In short": "1.6 1.7 1.8 1.9 2.2 36.1 35.3 38.1 4.6 28.0 38.7 37.1 23.4 0.041 0.029",
    "Shared bases or pixels": "30.4",
    "The same with larger sizes": "0.75",
    "The rivals on CIFAR-10: a narrow": "2.7 30.2 29.7",
    "The rivals on CIFAR-10 at ten": "37.7",
    "DM with its authors": "26.0",
    "Distilling through": "13.4 12.1 14.5 12.5",
    "Accuracies of distilled": "53.2 69.4 0.7 0.4 81.0 1.9 1.3",
}
# The same for what no table shows: settings, versions, measurements that the sentence describes.
NOT_IN_TABLES = {
    "CIFAR-10 at `scale=cpu`": "0.0125",
    "The rivals on CIFAR-10: a narrow": "0.001",  # a rate
    "Shared bases or pixels": "33.6 34.1",
    "Ten images per class": "38.4 37.0 38.2 37.3 0.9 0.07 1.9 2.3",  # of a second machine
    "Six columns": "34.7 24.7 0.9",
    "Distilling through": "0.0003 1.1 3.8",  # a rate; differences of the paper's Table 2
    "All images at once": "31.5 33.5",
    "Time and memory": "0.69",  # a quotient of two of its table
    "Figures 2, 3 and 7": "0.017 16.2 0.82 20.2 20.4 29.1 27.7 27.2 19.6 21.8",
    "Where the window lies": "5.6 6.5",
    "Initialization and inner": "0.03",
    "Ten digits": "2.15 46.7 41.7 53.3 59.8 74.1 70.6 86.6 87.7",
    "The rivals on CIFAR-10 at ten": "0.46 1.05",
    "DM with its authors": "26.1 0.7 0.8",
    "Accuracies of distilled": "83.2 46.6 60.1 0.6 49.2 0.8 68.6",
}


def numbers(lines: str) -> list[float]:
    """Those in the rows of tables."""
    rows = [line for line in lines.splitlines() if line.startswith("|")]
    return [float(text) for row in rows for text in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", row)]


def sentences(section: str) -> str:
    """Its text without tables, commands, code and addresses."""
    text = re.sub(r"```.*?```", "", section, flags=re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "", text))


def written(exceptions: dict[str, str], title: str) -> set[str]:
    found = [texts.split() for start, texts in exceptions.items() if title.startswith(start)]
    return {text for texts in found for text in texts}


def is_one_of(text: str, known: list[float]) -> bool:
    """Whether a number, rounded to the digits of the text, is the text."""
    digits = len(text.partition(".")[2])
    return any(f"{number:.{digits}f}" == text for number in known)


def of_claims(root: Path) -> dict[str, list[float]]:
    """By grid: effects, ends of intervals, and p after one to three looks."""
    found: dict[str, list[float]] = {}
    for scale in ("cpu", "quick"):
        published = REPOSITORY / "results" / "published"
        assert main([f"scale={scale}", f"published={published}", f"results_root={root}"]) == 0
        for claim in json.loads((root / f"claims/claims_{scale}.json").read_text())["claims"]:
            of_grid = found.setdefault(claim["grid"], [])
            of_grid += [(claim["p"] or 0) * looks for looks in (1, 2, 3)]
            for one in claim["comparisons"]:
                of_grid += [abs(one[key] or 0) for key in ("effect", "low", "high")]
    return found


@pytest.mark.slow
def test_a_number_in_a_sentence_is_in_a_table_or_a_claim_of_its_section(tmp_path: Path) -> None:
    unknown, no_longer_said = {}, {}
    of_grids = of_claims(tmp_path)
    for title, section in SECTIONS.items():
        known = numbers(section)
        for grid, of_grid in of_grids.items():
            known += of_grid if grid in section else []
        elsewhere, outside = written(OF_OTHER_TABLES, title), written(NOT_IN_TABLES, title)
        elsewhere = {text for text in elsewhere if is_one_of(text, numbers(RESULTS))}
        said = set(re.findall(DECIMAL, sentences(section)))
        not_here = {text for text in said if not is_one_of(text, known)}
        unknown[title] = not_here - elsewhere - outside
        no_longer_said[title] = (elsewhere | outside) - said
    assert {title: texts for title, texts in unknown.items() if texts} == {}
    assert {title: texts for title, texts in no_longer_said.items() if texts} == {}
