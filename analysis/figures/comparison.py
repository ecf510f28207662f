"""Final accuracies of experiments side by side, beside the paper's: its Figure 4, a table there."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.arguments import Request
from analysis.captions import caption
from analysis.figures.captions import headline
from analysis.figures.specs import ComparisonFigure
from analysis.grid_entries import at_paper_scale
from analysis.labels import differences
from analysis.load import Experiment, FinishedRun, Results
from analysis.paper import Number, paper_table
from bench.config.run_config import RunConfig
from bench.system.text import mean_std

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from analysis.figures.style import Look

ROW_INCHES = 0.27
OFFSET = 0.28  # of the seeds and of the paper's number from our mean, in rows
PAPER_COLOR = "#888888"
# In paper.yaml: (table, row) of each parameterization.
PAPER_ROWS = {
    "pixels": ("table1", "RaT-BPTT"),
    "linear": ("parameterization", "Linear + RaT-BPTT"),
}
PAPER_GRIDS = ("standard_benchmarks", "parameterization")  # reproduce these rows
# What a run of the paper's may have otherwise: it selects a checkpoint or tests the set elsewhere.
FREE = {"selection", "validation_fraction", "transfer_to", "scores"}


def paper_number(config: RunConfig) -> Number | None:
    """The paper's test accuracy (%) of an experiment, if it has one."""
    entries = [entry for name in PAPER_GRIDS for entry in at_paper_scale(name)]
    if not any(set(differences(config, entry)) <= FREE for entry in entries):
        return None
    table, method = PAPER_ROWS[config.parameterization]
    rows = [row for row in paper_table(table).rows if row.method == method]
    return rows[0].numbers.get((config.dataset, config.ipc))


def comparison_table(results: Results) -> pd.DataFrame:
    """One row per experiment that has runs: experiment, text, label, parameterization, ipc, mean,
    std, n, seeds (their accuracies), storage_floats, budget_floats, paper_mean, paper_std.
    Accuracies in percent; `std` is over seeds and NaN where n is 1."""
    rows = [
        _row(experiment, runs)
        for experiment in results.experiments
        if (runs := results.runs_of(experiment))
    ]
    table = pd.DataFrame(rows)
    short = [f"IPC {row['ipc']}, {row['parameterization']}" for row in rows]
    texts = [
        text if short.count(text) == 1 else row["label"]
        for text, row in zip(short, rows, strict=True)
    ]
    table.insert(1, "text", texts)
    return table


def _row(experiment: Experiment, runs: list[FinishedRun]) -> dict[str, Any]:
    values = pd.Series([100 * run.result["evaluation"]["test_accuracy_mean"] for run in runs])
    config = experiment.config
    paper = paper_number(config)
    return {
        "experiment": experiment.identity,
        "label": experiment.label,
        "parameterization": config.parameterization,
        "ipc": config.ipc,
        "mean": values.mean(),
        "std": values.std(),
        "n": len(values),
        "seeds": " ".join(f"{value:.6g}" for value in values),
        "storage_floats": runs[0].result.get("storage_floats"),
        "budget_floats": runs[0].result.get("budget_floats"),
        "paper_mean": paper.mean if paper else None,
        "paper_std": paper.std if paper else None,
    }


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")


def comparison_caption(
    spec: ComparisonFigure, results: Results, table: pd.DataFrame, request: Request
) -> str:
    """The caption: marks, n, storage, the paper's numbers, source."""
    networks = dict.fromkeys(run.result["evaluation"]["n"] for run in results.runs)
    spread = "; bar: ± one standard deviation" if table["n"].max() > 1 else ""
    single = "; a single seed has no bar" if table["n"].min() == 1 else ""
    reading = [
        headline(spec),
        f"Large: mean over seeds (n at the right){spread}{single}. Small: each seed, the mean of"
        f" {' or '.join(map(str, networks))} fresh networks.",
        _storage_text(table),
        _paper_text(table),
    ]
    selected = ": it chose the checkpoint and the number of training steps"
    return caption(reading, request, results.runs, grid=results.grid, selected=selected)


def _storage_text(table: pd.DataFrame) -> str:
    texts = [
        f"{row['text']}: {row['storage_floats']:,.0f} of {row['budget_floats']:,.0f}"
        for row in _rows(table[table["storage_floats"].notna()])
    ]
    return f"Floats stored, of the budget: {'; '.join(texts)}." if texts else ""


def _paper_text(table: pd.DataFrame) -> str:
    texts = [
        f"{row['text']} {Number(row['paper_mean'], row['paper_std'])}"
        for row in _rows(table[table["paper_mean"].notna()])
    ]
    return f"Gray: the paper's, ± over ten networks: {'; '.join(texts)}." if texts else ""


def draw_comparison(table: pd.DataFrame, looks: "Mapping[str, Look]", caption: str) -> "Figure":
    """The figure as matplotlib's object; to be called under `RC`.

    Args:
        looks: by parameterization.
    """
    from analysis.figures.page import finish_page, new_page

    figure = new_page(ROW_INCHES * len(table) + 0.5)
    axes = figure.add_subplot()
    _draw_seeds(axes, table, looks)
    for position, row in enumerate(_rows(table)):
        if pd.notna(row["paper_mean"]):
            _draw_paper(axes, position, row)
    axes.set_yticks(range(len(table)), table["text"])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Test accuracy (%)")
    axes.set_ylabel("")
    numbers = axes.secondary_yaxis("right")
    texts = [f"{mean_std(row['mean'], row['std'])} (n = {row['n']})" for row in _rows(table)]
    numbers.set_yticks(range(len(table)), texts)
    numbers.tick_params(length=0)
    numbers.spines["right"].set_visible(False)
    return finish_page(figure, caption)


def _draw_seeds(axes: "Axes", table: pd.DataFrame, looks: "Mapping[str, Look]") -> None:
    """Mean and standard deviation of each experiment, and its seeds beneath them."""
    import seaborn as sns

    seeds = table.assign(accuracy=table["seeds"].str.split()).explode("accuracy")
    hues = list(dict.fromkeys(table["parameterization"]))
    shared: dict[str, Any] = {
        "data": seeds.astype({"accuracy": float}),
        "x": "accuracy",
        "y": "experiment",
        "order": list(table["experiment"]),
        "hue": "parameterization",
        "hue_order": hues,
        "palette": [looks[name].color for name in hues],
        "legend": False,
        "ax": axes,
    }
    sns.stripplot(**shared, jitter=False, size=2.5, alpha=0.7)
    for points in axes.collections:
        points.set_offsets(np.add(np.asarray(points.get_offsets()), (0, OFFSET)))
    markers: list[Any] = [looks[name].marker for name in hues]
    sns.pointplot(
        **shared, errorbar="sd", linestyle="none", markers=markers, capsize=0.15, err_kws={"lw": 1}
    )


def _draw_paper(axes: "Axes", position: int, row: dict[str, Any]) -> None:
    axes.errorbar(
        row["paper_mean"],
        position - OFFSET,
        xerr=None if pd.isna(row["paper_std"]) else row["paper_std"],
        color=PAPER_COLOR,
        marker="|",
        capsize=2,
    )
