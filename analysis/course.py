"""The course of runs in numbers: the norm of the meta-gradient by range of outer steps, and the
accuracy at each measured step, for every seed."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from analysis.arguments import Request
from analysis.captions import caption
from analysis.figures.captions import settings_text, unfinished_text
from analysis.figures.finished import results_of
from analysis.figures.specs import FIGURES, CurveFigure
from analysis.load import FinishedRun, Results, StoredRun
from analysis.paper import paper_figure, paper_ranges
from analysis.rendered_table import RenderedTable, as_shown
from analysis.verdicts.quantities import norm_fluctuation
from bench.system.errors import UserError
from bench.system.text import count, percent

FIGURE = 2  # of the paper, whose quantity, ranges and numbers these are
PAPER_SETTING: dict[str, Any] = {  # of that figure
    "scale": "paper",
    "dataset": "cifar10",
    "ipc": 10,
    "unroll_length": 120,
    "window_size": 40,
    "parameterization": "pixels",
    "arch": "convnet",
    "width": 128,
    "inner_optimizer": "adam",
}
MOST_STEPS = 10  # columns of accuracies
# A grid without a figure of its own, and the grid whose names it takes.
NAMED_AS = {
    "rivals_ipc10": "rivals",
    "inner_optimizer": "first_steps",
    "methods_ipc10": "methods_comparison",
}


def norm_table(request: Request, stored: Sequence[StoredRun]) -> RenderedTable:
    """The norms of every seed beside the paper's Figure 2.

    Raises:
        UserError: no run is finished, or an unknown setting or grid.
    """
    results = grid_results("norms", request, stored)
    metrics = results.metrics()
    if metrics.empty:
        raise UserError(f"table norms: no run of grid {results.grid} has recorded an outer step")
    bounds: list[int] = paper_figure(FIGURE)["bounds"]
    longest = max(run.config.outer_steps for run in results.runs)
    ranges = [pair for pair in pairwise(bounds) if pair[0] < longest]
    shown: list[dict[str, str]] = []
    tidy: list[dict[str, Any]] = []
    for run in results.runs:
        norms = _of_run(metrics, run).set_index("step")["image_gradient_norm"]
        numbers = {
            "steps": min(len(norms), bounds[-1]),
            **{f"{start}-{stop}": _median(norms, start, stop) for start, stop in ranges},
            "fluctuation": float(np.exp(norm_fluctuation(run, {}).get(0, np.nan))),
            "largest": float(norms[norms.index < bounds[-1]].max(skipna=False)),
        }
        method, seed = run.experiment.label, run.config.seed
        tidy.append({"method": method, "seed": seed, **numbers})
        shown.append({"Method": method, "Seed": str(seed), **_norm_texts(numbers)})
    in_papers_setting = all(
        getattr(run.config, key) == value
        for run in results.runs
        for key, value in PAPER_SETTING.items()
    )
    for method in dict.fromkeys(run.config.method for run in results.runs):
        if in_papers_setting and (paper := paper_ranges(FIGURE, method)):
            fluctuation = paper_figure(FIGURE)["fluctuation"]["norm_fluctuation"][method]
            numbers = {
                "steps": bounds[-1],
                **{f"{one.start}-{one.stop}": one.median for one in paper if one.start < longest},
                "fluctuation": fluctuation,
                "largest": np.nan,
            }
            tidy.append({"method": f"paper: {method}", "seed": "", **numbers})
            shown.append({"Method": f"paper: {method}", "Seed": "", **_norm_texts(numbers)})
    return grid_table(
        "norms",
        "The norm of the meta-gradient",
        [
            "Norm of the meta-gradient (mean over images of the norm of each image's gradient,"
            " before clipping): median over ranges of outer steps; fluctuation: standard deviation"
            " of its logarithm around a rolling median of 25 steps; largest; all over the first"
            f" {bounds[-1]} outer steps.",
            "Each row is a seed.",
            f"Paper: {paper_figure(FIGURE)['run_on']}, {paper_figure(FIGURE)['source']}."
            if in_papers_setting
            else "",
        ],
        (shown, tidy),
        (request, results),
    )


def accuracy_table(request: Request, stored: Sequence[StoredRun]) -> RenderedTable:
    """The accuracy of every seed at each measured step, and at the end.

    Raises:
        UserError: no run is finished, or an unknown setting or grid.
    """
    results = grid_results("accuracies", request, stored)
    measured = results.measurements()
    measured = measured[measured["kind"] == "accuracy"]
    if measured.empty:
        raise UserError(f"table accuracies: no run of grid {results.grid} has measured one")
    steps = sorted(set(measured["step"]) - {0})
    if len(steps) > MOST_STEPS:
        steps = [steps[k] for k in np.linspace(0, len(steps) - 1, MOST_STEPS).round().astype(int)]
    shown: list[dict[str, str]] = []
    tidy: list[dict[str, Any]] = []
    for run in results.runs:
        by_step = _of_run(measured, run).set_index("step")
        method, seed = run.experiment.label, run.config.seed
        texts = {"Method": method, "Seed": str(seed)}
        for step in steps:
            texts[str(step)] = ""
            if step in by_step.index:
                row = by_step.loc[step]
                mean, std = row["test_accuracy_mean"], row["test_accuracy_std"]
                texts[str(step)] = percent(mean, std)
                numbers = {"mean": 100 * mean, "std": 100 * std, "n": row["n"]}
                tidy.append({"method": method, "seed": seed, "step": step, **numbers})
        evaluation = run.result.get("evaluation")
        texts["Final set"] = ""
        if evaluation:
            mean, std = evaluation["test_accuracy_mean"], evaluation.get("test_accuracy_std")
            texts["Final set"] = f"{percent(mean, std)} (n = {evaluation['n']})"
        shown.append(texts)
    configs = [run.config for run in results.runs]
    networks = " or ".join(map(str, dict.fromkeys(c.accuracy_networks for c in configs)))
    after = " or ".join(map(str, dict.fromkeys(c.accuracy_steps for c in configs)))
    selections = " or ".join(dict.fromkeys(c.selection for c in configs))
    reading = [
        f"Test accuracy (%) by outer step, mean ± standard deviation over n = {networks} fresh"
        f" networks after {after} training steps; each row is a seed.",
        f"Final set: selected by {selections}, n as stated.",
    ]
    return grid_table(
        "accuracies",
        "Accuracy during distillation",
        reading,
        (shown, tidy),
        (request, results),
    )


def grid_results(table: str, request: Request, stored: Sequence[StoredRun]) -> Results:
    """The runs of a grid for this table, named as in the figures of that grid.

    Raises:
        UserError: no run is finished, or an unknown setting or grid.
    """
    from bench.config.grid import load_grid

    grid = load_grid(request.grid).name if request.grid else FIGURES[FIGURE].grid
    request = replace(request, grid=request.grid or grid)
    return results_of(_naming(grid), request, stored, f"table {table}")


def _naming(grid: str) -> CurveFigure:
    """The figure whose names the experiments of a grid have in these tables."""
    curves = [spec for spec in FIGURES.values() if isinstance(spec, CurveFigure)]
    return next((one for one in curves if one.grid == NAMED_AS.get(grid, grid)), curves[0])


def _of_run(table: pd.DataFrame, run: FinishedRun) -> pd.DataFrame:
    return table[table["run"] == run.folder.name]


def _median(norms: "pd.Series[float]", start: int, stop: int) -> float:
    return float(norms[(norms.index >= start) & (norms.index < stop)].median(skipna=False))


def _norm_texts(numbers: dict[str, Any]) -> dict[str, str]:
    names = {"steps": "Steps", "fluctuation": "Fluctuation", "largest": "Largest"}
    texts = {key: "" if np.isnan(value) else f"{value:.3g}" for key, value in numbers.items()}
    return {names.get(key, key.replace("-", "–")): text for key, text in texts.items()}


def grid_table(
    name: str,
    title: str,
    reading: list[str],
    rows: tuple[list[dict[str, str]], list[dict[str, Any]]],
    made_of: tuple[Request, Results],
) -> RenderedTable:
    """A table of the runs of a grid.

    Args:
        reading: how to read it, in sentences.
        rows: as shown, and as numbers.
    """
    request, results = made_of
    shown, tidy = rows
    finished = sum(bool(run.result) for run in results.runs)
    total = count(finished + len(results.missing), "run")
    return RenderedTable(
        name=name,
        title=title,
        caption=caption(
            [*reading, unfinished_text(results), settings_text(_naming(results.grid), results)],
            request,
            results.runs,
            grid=results.grid,
        ),
        frames=[(as_shown(shown), "")],
        tidy=pd.DataFrame(tidy),
        missing=f"{len(results.missing)} of {total} of grid {results.grid} are not finished"
        if results.missing
        else "",
        commands=[request.sweep(results.grid)] if results.can_be_made() else [],
    )
