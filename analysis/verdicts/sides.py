"""The two sides of each comparison of a claim, as `claims*.yaml` states them.

A side is the settings that find an entry of the grid (with `tested_on`: another network for its
distilled set), or a number: `{number: 0}`, or one that the paper quotes for other methods.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from analysis.paper import paper_table

Side = dict[str, Any]
Pair = tuple[Side, Side]
Column = tuple[str | int, ...]


def pairs_of(settings: dict[str, Any]) -> list[Pair]:
    """The comparisons of a claim; takes what states them out of its settings.

    Raises:
        KeyError, TypeError, ValueError: the settings are invalid.
    """
    if "pairs" in settings:
        pairs = [(first, than) for first, than in settings.pop("pairs")]
    else:
        first = settings.pop("first")
        pairs = [(first, than) for than in settings.pop("than")]
    columns = settings.pop("columns", None)
    if columns is None:
        return [(_resolved(first), _resolved(than)) for first, than in pairs]
    in_columns = list(_in_columns(pairs, _columns(columns)))
    if not in_columns:
        raise ValueError("the paper has no number in these columns")
    return in_columns


def quotes_paper(side: Side) -> bool:
    """Whether a side is a number of the paper, which belongs to the paper's settings."""
    return "quoted" in side


def side_text(side: Side, other: Side) -> str:
    """The settings of a side that differ from the other's; a number with where it is from."""
    if "number" in side:
        return (
            f"{side['quoted']}, {side['number']:g}" if quotes_paper(side) else str(side["number"])
        )
    settings = {key: value for key, value in side.items() if other.get(key) != value} or side
    return " ".join(_setting_text(key, value) for key, value in settings.items())


def _setting_text(key: str, value: Any) -> str:
    """A setting; options of a method as in labels."""
    if key != "method_options":
        return f"{key.removeprefix('method_options.')}={value}"
    return " ".join(f"{option}={own}" for option, own in value.items()) or "default options"


def name_of(first: Side, than: Side) -> str:
    """The name of a comparison."""
    if "number" in first or "number" in than:  # an entry beside a number is named in full
        return f"{side_text(first, {})} / {side_text(than, {})}"
    return f"{side_text(first, than)} / {side_text(than, first)}"


def names_of(pairs: Sequence[Pair]) -> list[str]:
    """The names of comparisons; those of one name have the settings that their sides share, too."""
    names = [name_of(*pair) for pair in pairs]
    return [
        name if names.count(name) == 1 else f"{name} ({_shared_text(*pair)})"
        for name, pair in zip(names, pairs, strict=True)
    ]


def _shared_text(first: Side, than: Side) -> str:
    shared = {key: value for key, value in first.items() if than.get(key) == value}
    return " ".join(_setting_text(key, value) for key, value in shared.items())


def _columns(columns: str | Sequence[Sequence[str | int]]) -> list[Column]:
    """Columns (data set, IPC): those given, or all that a table of the paper has."""
    if not isinstance(columns, str):
        return [tuple(column) for column in columns]
    rows = paper_table(columns).rows
    return [
        column for column in dict.fromkeys(c for row in rows for c in row.numbers) if column[1:]
    ]


def _in_columns(pairs: Sequence[Pair], columns: Sequence[Column]) -> Iterator[Pair]:
    """Each pair in each column; a pair with a quoted number only where the paper has it."""
    for column in columns:
        for pair in pairs:
            quoted = [side for side in pair if quotes_paper(side)]
            if all(_reported(side, column) for side in quoted):
                first, than = (_resolved(side, column) for side in pair)
                yield first, than


def _resolved(side: Side, column: Column | None = None) -> Side:
    """A side in a column; of numbers that the paper quotes, the best."""
    if not quotes_paper(side):
        in_column = {} if column is None else {"dataset": column[0], "ipc": column[1]}
        return side if "number" in side else {**side, **in_column}
    number, method = max(_reported(side, column or (side["column"],)))
    return {"quoted": method, "table": side["table"], "number": number}


def _reported(side: Side, column: Column) -> list[tuple[float, str]]:
    """(number, method) of each quoted method that has one in this column.

    Raises:
        ValueError: the table has no such method.
    """
    rows = {row.method: row for row in paper_table(side["table"]).rows}
    if unknown := [name for name in side["quoted"] if name not in rows]:
        raise ValueError(f"{side['table']} has no row {unknown[0]}")
    numbers = [(rows[name].numbers.get(column), name) for name in side["quoted"]]
    return [(n.mean, name) for n, name in numbers if n is not None and n.mean is not None]
