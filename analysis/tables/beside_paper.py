"""Our numbers beside the paper's: the text, caption and CSV of a table of the paper."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from analysis.arguments import Request, sweeps_first
from analysis.captions import caption
from analysis.load import StoredRun
from analysis.paper import PaperTable, content
from analysis.provenance import last_start, machine_name
from analysis.rendered_table import MISSING, RenderedTable, as_shown
from analysis.tables.cells import Cell, Column, Table, TableSpec, table
from bench.config.evaluation_optimizer import as_inner, optimizer_text
from bench.system.text import count, mean_std

COLUMN_NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "cub200": "CUB-200",
    "tiny_imagenet": "Tiny-ImageNet",
    "vgg11": "VGG-11",
    "alexnet": "AlexNet (average pools)",
    "alexnet_maxpool": "AlexNet (max pools)",
    "resnet18": "ResNet-18",
    "average": "average",
}
NOT_COMPARABLE = "not comparable"


def beside_paper(
    spec: TableSpec, request: Request, stored: Sequence[StoredRun], root: Path
) -> RenderedTable:
    """A table from the runs under `root`.

    Raises:
        UserError: an unknown setting.
    """
    numbers = table(spec, request, stored, root)
    cells = numbers.cells
    quoted = quoted_rows(numbers.paper)
    quoted_caption = f"Numbers that the paper quotes for other methods ({numbers.paper.place})."
    incomplete = sum(bool(cell.missing) for cell in cells)
    return RenderedTable(
        name=spec.name,
        title=numbers.paper.title,
        caption=_caption(numbers, request),
        frames=[
            (as_shown([_row(numbers, cell) for cell in cells]), ""),
            *([(quoted, quoted_caption)] if len(quoted) else []),
        ],
        tidy=_tidy(numbers),
        missing=f"{incomplete} of {count(len(cells), 'number')} lack runs (column Missing)"
        if incomplete
        else "",
        commands=sweeps_first(command for cell in cells for command in cell.commands),
    )


def _row(table: Table, cell: Cell) -> dict[str, str]:
    spec = table.spec
    names = (*map(column_name, cell.column), "")
    row = {"Method": cell.method, **dict(zip(spec.heading, names, strict=False))}
    if not table.comparable:
        row["Run on"] = cell.run_on
    form = ".3g" if spec.hours else ".1f"
    row["Ours"] = MISSING if cell.mean is None else mean_std(cell.mean, cell.std, form)
    if spec.hours:
        seconds = [run.step_seconds().median() for run in cell.runs]
        row["s / outer step"] = f"{fmean(seconds):.3g}" if seconds else ""
    if spec.storage:
        row["Floats stored / budget"] = _storage_text(cell)
    row["n (seeds)"] = str(len(cell.seeds))
    if not spec.hours:
        row["networks a seed"] = cell.networks
    row["Paper"] = str(cell.paper)
    row["Difference"] = _difference_text(table, cell)
    row["Missing"] = "; ".join(cell.missing)
    return row


def quoted_rows(paper: PaperTable) -> pd.DataFrame:
    """The paper's record of other methods, one row per method; empty if there is none."""
    rows = [
        {"Method (quoted)": row.method, "Reference": row.note}
        | {" ".join(map(column_name, key)): str(value) for key, value in row.numbers.items()}
        for row in paper.rows
        if row.quoted
    ]
    return pd.DataFrame(rows)


def column_name(part: str | int) -> str:
    """The name of a part of a column's key."""
    return COLUMN_NAMES.get(str(part), str(part))


def _storage_text(cell: Cell) -> str:
    """Storage of the distilled set and the budget: one text, unless runs are mixed."""
    results = [run.result for run in cell.runs if "storage_floats" in run.result]
    texts = (f"{result['storage_floats']:,} / {result['budget_floats']:,}" for result in results)
    return " or ".join(dict.fromkeys(texts))


def _difference(table: Table, cell: Cell) -> float | None:
    """Ours minus the paper's, if both are known and have the same setting."""
    if not table.comparable or cell.mean is None or cell.paper.mean is None:
        return None
    return cell.mean - cell.paper.mean


def _difference_text(table: Table, cell: Cell) -> str:
    if cell.mean is None or cell.paper.mean is None:
        return ""
    difference = _difference(table, cell)
    return NOT_COMPARABLE if difference is None else f"{difference:+.1f}"


def _tidy(table: Table) -> pd.DataFrame:
    """One row per number, ours and quoted ones."""
    rows: list[dict[str, Any]] = []
    for cell in table.cells:
        row = {
            "table": table.spec.name,
            "kind": "measured",
            "method": cell.method,
            "column": _key(cell.column),
            "run_on": cell.run_on,
            "ours_mean": cell.mean,
            "ours_std_over_seeds": cell.std,
            "n_seeds": len(cell.seeds),
            "networks_a_seed": cell.networks,
            "paper_mean": cell.paper.mean,
            "paper_std": cell.paper.std,
            "difference": _difference(table, cell),
            "note": "; ".join(cell.missing),
        }
        if table.spec.storage:
            result = cell.runs[0].result if cell.runs else {}
            row |= {key: result.get(key) for key in ("storage_floats", "budget_floats")}
        rows.append(row)
    rows += [
        {
            "table": table.spec.name,
            "kind": "quoted",
            "method": row.method,
            "column": _key(key),
            "paper_mean": value.mean,
            "paper_std": value.std,
            "note": "; ".join(filter(None, [row.note, value.absent])),
        }
        for row in table.paper.rows
        if row.quoted
        for key, value in row.numbers.items()
    ]
    return pd.DataFrame(rows)


def _key(column: Column) -> str:
    return "/".join(map(str, column))


# --- the caption


def _caption(table: Table, request: Request) -> str:
    runs = {run.folder.name: run for cell in table.cells for run in cell.runs}
    hours = table.spec.hours
    reading = [
        f"{table.paper.title} (paper: {table.paper.place}).",
        _statistic(table),
        _comparison(table),
        _evaluations(table),
        _networks(table),
        "Quoted rows are the paper's record of other methods; they were not run here."
        if any(row.quoted for row in table.paper.rows)
        else "",
        _machines(table) if hours else "",
    ]
    return caption(reading, request, list(runs.values()), grid=table.spec.grid)


def _statistic(table: Table) -> str:
    if table.spec.hours:
        return (
            "Ours: mean ± standard deviation over seeds of the hours of all outer steps, without"
            " measurements, and the median of one step. Other work on the machine adds to them."
        )
    return (
        "Ours: mean ± standard deviation over n seeds, each with its own distilled set; a seed's"
        f" value is the mean over fresh networks. The paper's ±: {table.paper.spread}."
    )


def _comparison(table: Table) -> str:
    if table.comparable:
        return "Difference: ours minus the paper's, in points, also where settings are ours."
    if table.spec.hours:
        return (
            f"The paper's hours are those of a {content()['efficiency']['hardware']}, up to its"
            " own end of training: no difference is computed."
        )
    return (
        "These runs do not have the settings of scale=paper: no difference to the paper's numbers"
        " is computed."
    )


def _evaluations(table: Table) -> str:
    """The sets that were not evaluated with the inner optimizer that they were distilled with."""
    texts = dict.fromkeys(
        f"{cell.method}: fresh networks are trained with {optimizer_text(run.config)}"
        for cell in table.cells
        for run in cell.runs
        if as_inner(run.config) != run.config
    )
    return f"{'; '.join(texts)}." if texts else ""


def _networks(table: Table) -> str:
    if table.spec.name != "2":
        return ""
    return (
        "AlexNet has average pools in the paper's published code; the paper has no number for the"
        " one with max pools."
    )


def _machines(table: Table) -> str:
    texts = dict.fromkeys(
        f"{run.config.outer_steps} outer steps on {machine_name(last_start(run))}"
        for cell in table.cells
        for run in cell.runs
    )
    return f"Ours: {' and '.join(texts)}." if texts else ""
