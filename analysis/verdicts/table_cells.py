"""A claim per number of the paper's tables that runs reproduce: is ours within a margin of it?

Made from `paper.yaml`, shown as one row per row of a table. The margin is ours: 1 point, as for
the other claims of equality, or twice the paper's ± where that is more (VGG-11: 1.8). The paper's
± is over ten networks on one distilled set. What it does not state adds to it: how far another
set of the same method lies, the number of outer steps, and the choice of checkpoint and training
steps by test accuracy. The averages of Table 1 follow from their columns and are no claims.
"""

from collections.abc import Iterator

from analysis.paper import Number, paper_table
from analysis.tables.beside_paper import column_name
from analysis.tables.cells import TABLES, TableSpec, column_settings, variants
from analysis.verdicts.judge import Claim

LEAST_MARGIN = 1.0  # points


def margin_of(number: Number) -> float:
    """In points."""
    return max(LEAST_MARGIN, 2 * (number.std or 0.0))


def cell_claims() -> list[Claim]:
    """The claims, in the order of the paper's tables; the numbers of a table that are another's are
    left out."""
    return [claim for spec in TABLES.values() if not spec.hours for claim in _of_table(spec)]


def _of_table(spec: TableSpec) -> Iterator[Claim]:
    paper = paper_table(spec.paper)
    name = paper.place.partition(",")[0]
    for row in paper.rows:
        if row.quoted or row.note.startswith("of Table"):
            continue
        for column, number in row.numbers.items():
            if column == ("average",):
                continue
            _, settings = next(variants(spec, row))  # the paper's
            of_column, network = column_settings(spec, row, column)
            side = {**settings, **of_column, **({"tested_on": network} if network else {})}
            where = " IPC ".join(map(column_name, column)) if spec.heading else row.method
            yield Claim(
                id="_".join(["cell", spec.paper, *_words(row.method), *map(str, column)]),
                claim=f"{where}: within {margin_of(number):g} points of {number}",
                place=paper.place,
                grid=spec.grid,
                quantity="final_accuracy",
                pairs=[(side, {"quoted": name, "table": spec.paper, "number": number.mean})],
                direction="equal",
                margin=margin_of(number),
                group=f"{name}, {row.method}" if spec.heading else name,
            )


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()
