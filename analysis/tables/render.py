"""How a table is written: Markdown, LaTeX and CSV, with a caption and what is missing."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from analysis.tables.captions import caption, missing_text
from analysis.tables.cells import Cell, Column, Table, median_seconds
from bench.system.files import write_texts

COLUMN_NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "cub200": "CUB-200",
    "tiny_imagenet": "Tiny-ImageNet",
    "vgg11": "VGG-11",
    "alexnet": "AlexNet",
    "resnet18": "ResNet-18",
    "average": "average",
}
MISSING, NOT_COMPARABLE = "missing", "not comparable"


def measured(table: Table) -> pd.DataFrame:
    """One row a number of the paper that our runs answer to; "missing" where none does."""
    rows = []
    for cell in table.cells:
        row: dict[str, Any] = {"Method": cell.method}
        names = (*map(column_name, cell.column), "")
        row |= dict(zip(table.spec.heading, names, strict=False))
        if not table.comparable:
            row["Run on"] = cell.run_on
        row["Ours"] = ours(cell, table.spec.hours)
        if table.spec.hours:
            row["s / outer step"] = pace(cell)
        if table.spec.storage:
            row["Floats stored / budget"] = storage(cell)
        row["n (seeds)"] = str(len(cell.seeds))
        row["networks a seed"] = "/".join(map(str, cell.networks))
        row["Paper"] = str(cell.paper)
        row["Difference"] = difference(cell, table.comparable)
        row["Missing"] = "; ".join(cell.missing)
        rows.append(row)
    shown = pd.DataFrame(rows)
    if table.spec.hours:
        shown = shown.drop(columns="networks a seed")
    return shown if shown["Missing"].any() else shown.drop(columns="Missing")


def quoted(table: Table) -> pd.DataFrame:
    """The paper's record of other methods, one row a method; empty where there is none."""
    rows = [
        {"Method (quoted)": row.method, "Reference": row.note}
        | {" ".join(map(column_name, key)): str(value) for key, value in row.numbers.items()}
        for row in table.paper.rows
        if row.quoted
    ]
    return pd.DataFrame(rows)


def column_name(part: str | int) -> str:
    """What a part of a column's key is called."""
    return COLUMN_NAMES.get(str(part), str(part))


def ours(cell: Cell, hours: bool) -> str:
    """Mean and spread over seeds."""
    if cell.mean is None:
        return MISSING
    form = ".3g" if hours else ".1f"
    spread = "" if cell.std is None else f" ± {cell.std:{form}}"
    return f"{cell.mean:{form}}{spread}"


def pace(cell: Cell) -> str:
    """The median seconds of an outer step, mean over seeds."""
    return f"{fmean(map(median_seconds, cell.runs)):.3g}" if cell.runs else ""


def storage(cell: Cell) -> str:
    """What the distilled set takes of what it may; one text unless runs were mixed."""
    results = [run.result for run in cell.runs if "storage_floats" in run.result]
    told = (f"{result['storage_floats']:,} / {result['budget_floats']:,}" for result in results)
    return " or ".join(dict.fromkeys(told))


def difference(cell: Cell, comparable: bool) -> str:
    """Ours less the paper's, where both are numbers and of one setting."""
    if cell.mean is None or cell.paper.mean is None:
        return ""
    return f"{cell.mean - cell.paper.mean:+.1f}" if comparable else NOT_COMPARABLE


def tidy(table: Table) -> pd.DataFrame:
    """One row a number, ours and quoted ones, for programs; no text where a number stands."""
    rows = [
        {
            "table": table.spec.name,
            "kind": "measured",
            "method": cell.method,
            "column": _key(cell.column),
            "run_on": cell.run_on,
            "ours_mean": cell.mean,
            "ours_std_over_seeds": cell.std,
            "n_seeds": len(cell.seeds),
            "networks_a_seed": "/".join(map(str, cell.networks)),
            "paper_mean": cell.paper.mean,
            "paper_std": cell.paper.std,
            "difference": cell.mean - cell.paper.mean
            if table.comparable and cell.mean is not None and cell.paper.mean is not None
            else None,
            "note": "; ".join(cell.missing),
        }
        | (_storage(cell) if table.spec.storage else {})
        for cell in table.cells
    ]
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


def _storage(cell: Cell) -> dict[str, int | None]:
    first = cell.runs[0].result if cell.runs else {}
    return {key: first.get(key) for key in ("storage_floats", "budget_floats")}


def _key(column: Column) -> str:
    return "/".join(map(str, column))


# --- files


def markdown(table: Table, scale: str, settings: Sequence[str]) -> str:
    """The whole as Markdown."""
    parts = [
        f"**{caption(table, scale, settings)}**",
        measured(table).to_markdown(index=False, disable_numparse=True),
    ]
    others = quoted(table)
    if len(others):
        parts.append(others.to_markdown(index=False, disable_numparse=True))
    if lines := missing_text(table):
        commands = "".join(f"\n    {line}" for line in lines[1:])
        parts.append(lines[0] + ("\n" + commands if commands else ""))
    return "\n\n".join(parts) + "\n"


def latex(table: Table, scale: str, settings: Sequence[str]) -> str:
    """The same as LaTeX tables (packages booktabs and graphicx)."""
    shown = [measured(table), quoted(table)]
    labels = [f"tab:{table.spec.name}", f"tab:{table.spec.name}-quoted"]
    texts = [
        caption(table, scale, settings),
        f"Numbers that the paper quotes of other methods ({table.paper.place}).",
    ]
    return "\n".join(
        latex_table(frame, text, label)
        for frame, text, label in zip(shown, texts, labels, strict=True)
        if len(frame)
    )


def latex_table(frame: pd.DataFrame, text: str, label: str) -> str:
    """One table that fits the width of the text."""
    body = frame.map(_escaped).rename(columns=_escaped)
    made = body.to_latex(index=False, escape=False, column_format="l" * len(frame.columns))
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{_escaped(text)}}}\n\\label{{{label}}}\n"
        f"\\resizebox{{\\linewidth}}{{!}}{{%\n{made.rstrip()}}}\n\\end{{table}}\n"
    )


def _escaped(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, f"\\{sign}")
    return (
        text.replace("±", "$\\pm$")
        .replace("≈", "$\\approx$")
        .replace("−", "$-$")
        .replace("≥", "$\\geq$")
    )


def write(table: Table, scale: str, settings: Sequence[str], stem: Path) -> list[Path]:
    """Write `stem`.md, `stem`.tex and `stem`.csv, each whole or not at all; returns the paths."""
    texts = {
        "md": markdown(table, scale, settings),
        "tex": latex(table, scale, settings),
        "csv": tidy(table).to_csv(index=False),
    }
    return write_texts(texts, stem)
