"""The table of scores: what a distilled set is worth beside random real images and all of them.

The paper has no such table. Its rows are the entries of Table 1's grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from analysis.arguments import Request
from analysis.grid_entries import Entry, GridRuns, grid_runs
from analysis.load import FinishedRun, StoredRun
from analysis.provenance import data_text, selection_text
from analysis.tables.render import MISSING, column_name, latex_table
from bench.system.choices import FULL, HARD, OWN, RANDOM, RANDOM_HARD
from bench.system.files import write_texts
from bench.system.text import count

GRID = "standard_benchmarks"

Figures = dict[str, Any]  # what a run's result holds under "scores"


@dataclass(frozen=True)
class Measure:
    """A column.

    Attributes:
        name: its heading.
        key: the same for programs.
        value: from a run's figures.
        form: of the value in print.
    """

    name: str
    key: str
    value: Callable[[Figures], float]
    form: str = ".1f"


def _accuracy(of: str) -> Callable[[Figures], float]:
    return lambda figures: 100 * figures["evaluations"][of]["test_accuracy_mean"]


MEASURES = (
    Measure("Distilled", "distilled", _accuracy(OWN)),
    Measure("Distilled, hard labels", "distilled_hard", _accuracy(HARD)),
    Measure("Random, same labels", "random", _accuracy(RANDOM)),
    Measure("Random, hard labels", "random_hard", _accuracy(RANDOM_HARD)),
    Measure("Full training set", "full", _accuracy(FULL)),
    Measure("HLR", "hlr", lambda figures: 100 * figures["hard_label_recovery"]["mean"]),
    Measure("IOR", "ior", lambda figures: 100 * figures["improvement_over_random"]["mean"]),
    Measure("Score", "score", lambda figures: figures["dd_ranking_score"]["score"], ".3f"),
)


@dataclass(frozen=True)
class ScoreRow:
    """The scores of an entry: those of its runs that recorded some, and what it lacks."""

    entry: Entry
    runs: list[FinishedRun]
    missing: list[str]

    def values(self, measure: Measure) -> list[float]:
        """By seed."""
        return [measure.value(run.result["scores"]) for run in self.runs]

    @property
    def networks(self) -> str:
        """Behind the value of a seed: one number, unless runs were mixed."""
        return "/".join(map(str, sorted({run.result["evaluation"]["n"] for run in self.runs})))

    @property
    def run_on(self) -> str:
        config = self.entry.config
        return f"{config.dataset}, IPC {config.ipc}, {config.arch}"


@dataclass(frozen=True)
class ScoreTable:
    """What is shown.

    Attributes:
        shown: one row an entry, as text.
        tidy: the same for programs; no text where a number stands.
        caption: how to read it, and where it comes from.
        missing: lines that say what is missing and how to make it; none where nothing is.
    """

    shown: pd.DataFrame
    tidy: pd.DataFrame
    caption: str
    missing: list[str]


def score_table(request: Request, stored: Sequence[StoredRun], root: Path) -> ScoreTable:
    """The scores of the runs under `root`.

    Raises:
        UserError: a setting that no run has.
    """
    grid = grid_runs(GRID, request, stored, root)
    rows = [_row(grid, entry) for entry in grid.entries]
    shown = pd.DataFrame([_shown(row) for row in rows])
    return ScoreTable(
        shown if shown["Missing"].any() else shown.drop(columns="Missing"),
        pd.DataFrame([_tidy(row) for row in rows]),
        _caption(rows, request),
        _missing(rows, request),
    )


def _row(grid: GridRuns, entry: Entry) -> ScoreRow:
    runs = grid.runs(entry)
    scored = {seed: run for seed, run in runs.items() if "scores" in run.result}
    missing = grid.missing(entry)
    if len(scored) < len(runs):
        missing.append("no scores asked for (scores=true)")
    return ScoreRow(entry, [*scored.values()], missing)


def _shown(row: ScoreRow) -> dict[str, str]:
    paper = row.entry.paper
    return {
        "Data set": column_name(paper.dataset),
        "IPC": str(paper.ipc),
        "Run on": row.run_on,
        **{measure.name: _text(row.values(measure), measure.form) for measure in MEASURES},
        "n (seeds)": str(len(row.runs)),
        "networks a seed": row.networks,
        "Missing": "; ".join(row.missing),
    }


def _text(values: Sequence[float], form: str) -> str:
    """Mean and spread over seeds."""
    if not values:
        return MISSING
    spread = f" ± {stdev(values):{form}}" if len(values) > 1 else ""
    return f"{fmean(values):{form}}{spread}"


def _tidy(row: ScoreRow) -> dict[str, Any]:
    found: dict[str, Any] = {
        "dataset": row.entry.paper.dataset,
        "ipc": row.entry.paper.ipc,
        "run_on": row.run_on,
        "n_seeds": len(row.runs),
        "networks_a_seed": row.networks,
    }
    for measure in MEASURES:
        values = row.values(measure)
        found[f"{measure.key}_mean"] = fmean(values) if values else None
        found[f"{measure.key}_std_over_seeds"] = stdev(values) if len(values) > 1 else None
    return {**found, "note": "; ".join(row.missing)}


# --- texts


def _caption(rows: Sequence[ScoreRow], request: Request) -> str:
    runs = [run for row in rows for run in row.runs]
    data = dict.fromkeys(data_text(run.result) for run in runs)
    given = "".join(f", {text}" for text in request.settings())
    origin = f"; data: {' and '.join(data)}" if data else "; no finished run"
    stand_in = " Digits stand in for every data set." if request.scale == "quick" else ""
    return " ".join(
        [
            "Distilled sets beside as many random real images and the full training set: test"
            " accuracy (%) of fresh networks trained on each, the same initial networks for all.",
            "Mean ± standard deviation over n seeds; a seed's value is the mean over its networks.",
            "Random images have the labels of the distilled images of their class (same labels), or"
            " their own (hard). HLR: full training set less distilled set, both with hard labels,"
            " the lower the better. IOR: distilled set less random images, both with the labels of"
            " the distilled set, the higher the better: labels that were learned help any images,"
            " and do not pass here for better images. Score: both together (DD-Ranking, w = 0.5),"
            " from 0 to 1.",
            *_full(runs),
            f"The paper has no such table.{stand_in}",
            f"grid={GRID}, scale={request.scale}{given}{origin}.",
            selection_text([run.config for run in runs]),
        ]
    ).strip()


def _full(runs: Sequence[FinishedRun]) -> list[str]:
    """How long the networks were trained on the full training set."""
    told = dict.fromkeys(
        f"up to {max(run.config.full_train_steps or run.config.evaluation_steps):,} steps of"
        f" {run.config.full_train_batch_size}"
        for run in runs
    )
    return [f"On the full training set: {' or '.join(told)} images."] if told else []


def _missing(rows: Sequence[ScoreRow], request: Request) -> list[str]:
    lacking = [row for row in rows if row.missing]
    if not lacking:
        return []
    told = (
        f"{len(lacking)} of {count(len(rows), 'row')} lack runs (column Missing); make them with:"
    )
    return [told, request.sweep(GRID)]


# --- files


def score_markdown(table: ScoreTable) -> str:
    """The whole as Markdown."""
    parts = [
        f"**{table.caption}**",
        table.shown.to_markdown(index=False, disable_numparse=True),
    ]
    if table.missing:
        parts.append(table.missing[0] + "\n" + "".join(f"\n    {x}" for x in table.missing[1:]))
    return "\n\n".join(parts) + "\n"


def write_scores(table: ScoreTable, stem: Path) -> list[Path]:
    """Write `stem`.md, `stem`.tex and `stem`.csv, each whole or not at all; returns the paths."""
    texts = {
        "md": score_markdown(table),
        "tex": latex_table(table.shown, table.caption, "tab:scores"),
        "csv": table.tidy.to_csv(index=False),
    }
    return write_texts(texts, stem)
