"""The paper's numbers, from `paper.yaml`, which states the place of each."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from analysis.own_yaml import entries
from bench.system.text import mean_std

FILE = Path(__file__).parent / "paper.yaml"
ABSENT = ("not reported", "unreadable")
_DESCRIPTION = ("method", "note", "kind")  # keys of a row that are no numbers


@dataclass(frozen=True)
class Number:
    """A number of the paper, in the unit of its table.

    Attributes:
        mean: None if the paper reports none or it could not be read; `absent` says which.
        std: as the paper reports it; None if it does not.
    """

    mean: float | None
    std: float | None = None
    absent: str = ""

    def __str__(self) -> str:
        if self.mean is None:
            return self.absent
        return f"{self.mean:g}" if self.std is None else mean_std(self.mean, self.std)


@dataclass(frozen=True)
class Row:
    """A row of one of the paper's tables; `numbers` by column, such as ("cifar10", 10)."""

    method: str
    note: str
    quoted: bool
    numbers: dict[tuple[str | int, ...], Number]


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables; `spread` states what its ± is over."""

    place: str
    title: str
    spread: str
    rows: list[Row]


@cache
def content() -> dict[str, Any]:
    """The content of the file."""
    return {str(key): value for key, value in entries(FILE).items()}


def paper_table(name: str) -> PaperTable:
    """A table of the paper by its key in the file."""
    entry = content()[name]
    rows = [
        Row(
            row["method"],
            row.get("note", ""),
            row["kind"] == "quoted",
            dict(_numbers({key: row[key] for key in row if key not in _DESCRIPTION})),
        )
        for row in entry["rows"]
    ]
    return PaperTable(entry["place"], entry["title"], entry["spread"], rows)


@dataclass(frozen=True)
class PaperRange:
    """The median of one of the paper's curves over the outer steps [start, stop)."""

    start: int
    stop: int
    median: float


def paper_figure(figure: int) -> dict[str, Any]:
    """What the file has of a figure; empty if there is no entry."""
    return next((one for one in content()["figures"] if one["figure"] == figure), {})


def paper_ranges(figure: int, method: str) -> list[PaperRange]:
    """The paper's curve of a method in a figure; empty where its numbers are not known."""
    entry = paper_figure(figure)
    medians = entry.get("medians", {}).get(method, [])
    ends = zip(entry.get("bounds", [])[:-1], entry.get("bounds", [])[1:], strict=True)
    return [
        PaperRange(start, stop, median)
        for (start, stop), median in zip(ends, medians, strict=bool(medians))
    ]


def _numbers(entry: dict[Any, Any]) -> Iterator[tuple[tuple[str | int, ...], Number]]:
    for key, value in entry.items():
        if isinstance(value, dict):
            yield from (((key, *rest), number) for rest, number in _numbers(value))
        else:
            yield (key,), number(value)


def number(text: str | float) -> Number:
    """`49.1±0.6`, a bare number, or one of `ABSENT`.

    Raises:
        ValueError: it is none of these.
    """
    if text in ABSENT:
        return Number(None, absent=str(text))
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:±(\d+(?:\.\d+)?))?", str(text))
    if match is None:
        raise ValueError(f"{FILE.name}: {text!r} is neither a number nor one of {ABSENT}")
    mean, std = match.groups()
    return Number(float(mean), None if std is None else float(std))
