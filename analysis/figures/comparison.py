"""Final accuracies of experiments side by side, beside the paper's: its Figure 4, a table there."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.figures.captions import headline, origin, selection_text
from analysis.figures.specs import ComparisonFigure
from analysis.load import FinishedRun, Results
from analysis.paper import Number, paper_table
from bench.config.run_config import RunConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from analysis.figures.style import Look

ROW_INCHES = 0.27
# Of the paper: (table in paper.yaml, its row) for each parameterisation; its data set is CIFAR-10.
PAPER_ROWS = {
    "pixels": ("table1", "RaT-BPTT"),
    "linear": ("parameterization", "Linear + RaT-BPTT"),
}


def paper_number(parameterization: str, ipc: int) -> Number | None:
    """The paper's test accuracy (%) on CIFAR-10, where it has one."""
    table, method = PAPER_ROWS.get(parameterization, ("", ""))
    rows = paper_table(table).rows if table else []
    for row in rows:
        if row.method == method and ("cifar10", ipc) in row.numbers:
            return row.numbers["cifar10", ipc]
    return None


def comparison_table(results: Results) -> pd.DataFrame:
    """One row an experiment that has runs: text, label, parameterization, ipc, mean, std, n, seeds
    (their accuracies), storage_floats, budget_floats, paper_mean, paper_std. Accuracies in percent;
    `std` is over seeds and NaN where n is 1."""
    return pd.DataFrame(
        [
            _row(label, config, runs)
            for label, config in results.experiments.items()
            if (runs := [run for run in results.runs if run.label == label])
        ]
    ).assign(text=lambda table: _texts(table))


def _row(label: str, config: RunConfig, runs: Sequence[FinishedRun]) -> dict[str, Any]:
    values = pd.Series([100 * run.result["evaluation"]["test_accuracy_mean"] for run in runs])
    paper = paper_number(config.parameterization, config.ipc)
    return {
        "label": label,
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


def _texts(table: pd.DataFrame) -> list[str]:
    """What stands beside a row: no more than tells it from the others."""
    short = [f"IPC {row['ipc']}, {row['parameterization']}" for row in _rows(table)]
    return [
        text if short.count(text) == 1 else label
        for text, label in zip(short, table["label"], strict=True)
    ]


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")


def is_comparable(results: Results, overrides: Sequence[str]) -> bool:
    """Whether the runs have the paper's settings, whoever selected."""
    changed = [text for text in overrides if text.partition("=")[0] != "selection"]
    return results.scale == "paper" and not changed


def comparison_caption(
    spec: ComparisonFigure, results: Results, table: pd.DataFrame, overrides: Sequence[str]
) -> str:
    """The text beneath, in two paragraphs: how to read it, where it comes from."""
    n = dict.fromkeys(table["n"])
    networks = dict.fromkeys(run.result["evaluation"]["n"] for run in results.runs)
    spread = "; bar: ± one standard deviation" if max(n) > 1 else ""
    lone = "; a single seed has no bar" if min(n) == 1 else ""
    told = [
        f"Filled: mean over seeds (n at the right){spread}{lone}; small and hollow: each seed, mean"
        f" of {' or '.join(map(str, networks))} fresh networks.",
        _storage_text(table),
        _paper_text(table, is_comparable(results, overrides), results.scale),
    ]
    select = f"{selection_text(results)}: the checkpoint and the number of steps were chosen so."
    reading = " ".join(filter(None, [headline(spec), *told]))
    return f"{reading}\n{origin(results, overrides)} {select}"


def _storage_text(table: pd.DataFrame) -> str:
    known = table[table["storage_floats"].notna()]
    if known.empty:
        return ""
    told = [
        f"{row['text']}: {row['storage_floats']:,.0f} of {row['budget_floats']:,.0f}"
        for row in _rows(known)
    ]
    return f"Floats stored of those allowed: {'; '.join(told)}."


def _paper_text(table: pd.DataFrame, comparable: bool, scale: str) -> str:
    known = table[table["paper_mean"].notna()]
    if known.empty:
        return ""
    told = [f"{row['text']} {Number(row['paper_mean'], row['paper_std'])}" for row in _rows(known)]
    if comparable:
        return f"Grey: the paper's, ± over ten networks: {'; '.join(told)}."
    return (
        f"The paper's, on CIFAR-10 and not comparable at scale={scale}"
        f" or with other settings: {'; '.join(told)}."
    )


def draw_comparison(
    table: pd.DataFrame, looks: "Mapping[str, Look]", with_paper: bool, caption: str
) -> "Figure":
    """The figure as matplotlib's object; to be called under `RC`.

    Args:
        looks: by parameterisation.
        with_paper: whether the paper's numbers are drawn.
    """
    from analysis.figures.page import new_page

    figure = new_page(caption, ROW_INCHES * len(table) + 0.5)
    axes = figure.add_subplot()
    for place, row in enumerate(_rows(table)):
        look = looks[row["parameterization"]]
        if with_paper and pd.notna(row["paper_mean"]):
            _paper_mark(axes, place, row)
        axes.errorbar(
            row["mean"],
            place,
            xerr=None if pd.isna(row["std"]) else row["std"],
            color=look.color,
            marker=look.marker,
            capsize=2,
            zorder=3,
        )
        seeds = [float(value) for value in row["seeds"].split()]
        axes.plot(
            seeds,
            [place + 0.28] * len(seeds),
            linestyle="",
            marker=look.marker,
            markersize=2.5,
            markerfacecolor="white",
            markeredgecolor=look.color,
            markeredgewidth=0.5,
        )
    axes.set_yticks(range(len(table)), table["text"])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Test accuracy (%)")
    numbers = axes.secondary_yaxis("right")
    numbers.set_yticks(range(len(table)), [_number_text(row) for row in _rows(table)])
    numbers.tick_params(length=0)
    numbers.spines["right"].set_visible(False)
    return figure


def _paper_mark(axes: "Axes", place: int, row: dict[str, Any]) -> None:
    axes.errorbar(
        row["paper_mean"],
        place - 0.28,
        xerr=None if pd.isna(row["paper_std"]) else row["paper_std"],
        color="#888888",
        marker="|",
        capsize=2,
        zorder=2,
    )


def _number_text(row: dict[str, Any]) -> str:
    spread = "" if pd.isna(row["std"]) else f" ± {row['std']:.1f}"
    return f"{row['mean']:.1f}{spread} (n = {row['n']})"
