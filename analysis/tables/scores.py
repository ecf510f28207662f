"""The table of scores: distilled sets beside random real images and the full training set.

The paper has no such table. Its rows are the entries of Table 1's grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from analysis.arguments import Request
from analysis.captions import caption
from analysis.grid_entries import Entry, GridRuns, grid_runs
from analysis.load import FinishedRun, StoredRun
from analysis.rendered_table import MISSING, RenderedTable, as_shown
from analysis.tables.beside_paper import column_name
from analysis.tables.cells import networks_text, run_on
from bench.system.choices import FULL, HARD, OWN, RANDOM, RANDOM_HARD
from bench.system.text import count, mean_std

GRID = "standard_benchmarks"

Scores = dict[str, Any]  # `scores` in a run's result


@dataclass(frozen=True)
class Measure:
    """A column.

    Attributes:
        name: its heading.
        key: its name in the CSV.
        value: computes it from a run's scores.
        form: the format of its values.
    """

    name: str
    key: str
    value: Callable[[Scores], float]
    form: str = ".1f"


def _accuracy(of: str) -> Callable[[Scores], float]:
    return lambda scores: 100 * scores["evaluations"][of]["test_accuracy_mean"]


MEASURES = (
    Measure("Distilled", "distilled", _accuracy(OWN)),
    Measure("Distilled, hard labels", "distilled_hard", _accuracy(HARD)),
    Measure("Random, same labels", "random", _accuracy(RANDOM)),
    Measure("Random, hard labels", "random_hard", _accuracy(RANDOM_HARD)),
    Measure("Full training set", "full", _accuracy(FULL)),
    Measure("HLR", "hlr", lambda scores: 100 * scores["hard_label_recovery"]["mean"]),
    Measure("IOR", "ior", lambda scores: 100 * scores["improvement_over_random"]["mean"]),
    Measure("Score", "score", lambda scores: scores["dd_ranking_score"]["score"], ".3f"),
)


@dataclass(frozen=True)
class ScoreRow:
    """An entry, its runs that recorded scores, and what is missing."""

    entry: Entry
    runs: list[FinishedRun]
    missing: list[str]

    def mean_and_std(self, measure: Measure) -> tuple[float | None, float | None]:
        """Over seeds; None where there are too few."""
        values = [measure.value(run.result["scores"]) for run in self.runs]
        return fmean(values) if values else None, stdev(values) if len(values) > 1 else None

    @property
    def networks(self) -> str:
        return networks_text([run.result["evaluation"] for run in self.runs])


def score_table(request: Request, stored: Sequence[StoredRun], root: Path) -> RenderedTable:
    """The scores of the runs under `root`.

    Raises:
        UserError: an unknown setting.
    """
    grid = grid_runs(GRID, request, stored, root)
    rows = [_score_row(grid, entry) for entry in grid.entries]
    incomplete = sum(bool(row.missing) for row in rows)
    return RenderedTable(
        name="scores",
        title="Distilled sets beside random real images and the full training set",
        caption=_caption(rows, request),
        frames=[(as_shown([_shown(row) for row in rows]), "")],
        tidy=pd.DataFrame([_tidy(row) for row in rows]),
        missing=f"{incomplete} of {count(len(rows), 'row')} lack runs (column Missing)"
        if incomplete
        else "",
        commands=[request.sweep(GRID)] if grid.results.can_be_made() else [],
    )


def _score_row(grid: GridRuns, entry: Entry) -> ScoreRow:
    runs = list(grid.runs(entry).values())
    scored = [run for run in runs if "scores" in run.result]
    missing = grid.missing(entry)
    if len(scored) < len(runs):
        missing.append("run without scores=true")
    return ScoreRow(entry, scored, missing)


def _shown(row: ScoreRow) -> dict[str, str]:
    shown = {
        "Data set": column_name(row.entry.paper.dataset),
        "IPC": str(row.entry.paper.ipc),
        "Run on": run_on(row.entry.experiment.config),
    }
    for measure in MEASURES:
        mean, std = row.mean_and_std(measure)
        shown[measure.name] = MISSING if mean is None else mean_std(mean, std, measure.form)
    return {
        **shown,
        "n (seeds)": str(len(row.runs)),
        "networks a seed": row.networks,
        "Missing": "; ".join(row.missing),
    }


def _tidy(row: ScoreRow) -> dict[str, Any]:
    tidy: dict[str, Any] = {
        "dataset": row.entry.paper.dataset,
        "ipc": row.entry.paper.ipc,
        "run_on": run_on(row.entry.experiment.config),
        "n_seeds": len(row.runs),
        "networks_a_seed": row.networks,
    }
    for measure in MEASURES:
        mean, std = row.mean_and_std(measure)
        tidy |= {f"{measure.key}_mean": mean, f"{measure.key}_std_over_seeds": std}
    return {**tidy, "note": "; ".join(row.missing)}


def _caption(rows: Sequence[ScoreRow], request: Request) -> str:
    runs = [run for row in rows for run in row.runs]
    steps = dict.fromkeys(
        f"up to {max(run.config.full_train_steps or run.config.evaluation_steps):,} steps of"
        f" {run.config.full_train_batch_size}"
        for run in runs
    )
    reading = [
        "Distilled sets beside as many random real images and the full training set: test accuracy"
        " (%) of fresh networks trained on each, with the same initial networks for all.",
        "Mean ± standard deviation over n seeds; a seed's value is the mean over its networks.",
        "Random images have the labels of the distilled images of their class (same labels) or"
        " their own (hard labels). HLR: accuracy on the full training set minus accuracy on the"
        " distilled set, both with hard labels; lower is better. IOR: accuracy on the distilled set"
        " minus accuracy on random images, both with the labels of the distilled set; higher is"
        " better. Learned labels help any images, and so do not count as better images."
        " Score: both combined (the formula of DD-Ranking, w = 0.5), from 0 to 1. It is none of"
        " DD-Ranking's own numbers: its code trains on the full set with another optimizer, and on"
        " hard labels without augmentation (bench/evaluation/README.md).",
        f"On the full training set: {' or '.join(steps)} images." if steps else "",
        "The paper has no such table.",
    ]
    return caption(reading, request, runs, grid=GRID)
