"""The windows of the methods, as they answer when they are asked outer step by outer step."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.figures.specs import WindowFigure
from analysis.labels import distinct_labels
from bench.config.grid import Grid, expand
from bench.config.run_config import RunConfig
from bench.system.errors import UserError
from methods import Window, make_method, method_defaults

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGNANT_LOSS = 1.0  # told after every outer step: methods that wait for a stagnation meet one
WINDOW_COLOR, WARM_UP_COLOR = "#0072B2", "#cfcfcf"
PANEL_INCHES = 1.25
COLUMNS = 3


def configurations(
    spec: WindowFigure, grid: Grid, scale: str, overrides: Mapping[str, Any], only: Sequence[str]
) -> dict[str, RunConfig]:
    """A configuration for each method that is shown, by its label: unroll length, window size and
    the like are those of the grid's first run.

    Args:
        overrides: settings that were asked for; `method` shows that method alone.
        only: these methods instead of the figure's.

    Raises:
        UserError: there is no such method, or a setting is impossible.
    """
    asked = [str(overrides["method"])] if "method" in overrides else None
    given = dict(overrides.get("method_options") or {})
    seed = overrides.get("seed", 0)
    first = replace(grid, runs=grid.runs[:1])
    found = []
    for method in asked or only or spec.methods:
        try:
            known = method_defaults(method)
        except ValueError as error:
            raise UserError(str(error)) from error
        # One figure shows methods of different options: each takes those that it has.
        options = {k: v for k, v in {**spec.options, **given}.items() if k in known}
        settings = {k: v for k, v in overrides.items() if k not in ("scale", "seed")}
        settings |= {"method": method, "method_options": options}
        found.append(replace(expand(first, scale, settings, 1)[0], seed=int(seed)))
    if unknown := set(given).difference(*(config.method_options for config in found)):
        raise UserError(f"no method shown has method_options.{min(unknown)}")
    # Options are told in the caption: no label needs them.
    return dict(zip(distinct_labels(found), found, strict=True))


def windows_of(config: RunConfig, steps: int) -> list[Window]:
    """The windows of the first outer steps, with the random draws that a run of this configuration
    makes; only the outer loss is none of a run's, but always `STAGNANT_LOSS`."""
    from bench.training.randomness import (
        python_random,  # imports torch, which no other figure needs
    )

    method = make_method(
        config.method, config.unroll_length, config.window_size, config.method_options
    )
    windows = []
    for step in range(steps):
        rng = python_random(config.seed, "window", step // config.window_resample_every)
        windows.append(method.next_window(step, rng))
        method.observe(step, STAGNANT_LOSS)
    return windows


def window_table(configs: Mapping[str, RunConfig], steps: int) -> pd.DataFrame:
    """One row a label and outer step: label, method, step, start, stop, unroll_length."""
    return pd.DataFrame(
        [
            (label, config.method, step, window.start, window.stop, config.unroll_length)
            for label, config in configs.items()
            for step, window in enumerate(windows_of(config, steps))
        ],
        columns=["label", "method", "step", "start", "stop", "unroll_length"],
    )


def window_caption(
    spec: WindowFigure, configs: Mapping[str, RunConfig], scale: str, overrides: Sequence[str]
) -> str:
    """The text beneath the windows, in two paragraphs: how to read them, what they were asked
    with."""
    first = next(iter(configs.values()))
    told = ", ".join(
        f"{key}={value}"
        for key in spec.options
        for value in dict.fromkeys(
            c.method_options[key] for c in configs.values() if key in c.method_options
        )
    )
    reading = (
        f"{spec.title} (paper: Figure 1, a drawing of three methods){spec.remark}."
        " A row is an outer step. Light grey: warm-up, run but not differentiated. Dark blue: the"
        " window. White: not run. The outer loss is taken at the window's right end."
        " Not measured: each method was asked for its window, with the random draws of a run"
    )
    waiting = (
        f", and told an outer loss that never falls ({told}, so that windows move within"
        f" {spec.steps} outer steps)"
        if told
        else ""
    )
    given = f", {', '.join(overrides)}" if overrides else ""
    origin = (
        f"scale={scale}{given}: unroll_length={first.unroll_length},"
        f" window_size={first.window_size},"
        f" window_resample_every={first.window_resample_every}, seed={first.seed}."
        " Needs no runs; n = 1 draw."
    )
    return f"{reading}{waiting}.\n{origin}"


def draw_windows(table: pd.DataFrame, caption: str) -> "Figure":
    """The figure as matplotlib's object; to be called under `RC`."""
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    from analysis.figures.page import add_legend, new_page
    from analysis.figures.style import WIDE_INCHES, WIDTH_INCHES

    labels = list(dict.fromkeys(table["label"]))
    columns = min(COLUMNS, len(labels))
    rows = -(-len(labels) // columns)
    width = WIDTH_INCHES if columns == 1 else WIDE_INCHES
    figure = new_page(caption, PANEL_INCHES * rows + 0.25, 1, width)
    every = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    for k, (axes, label) in enumerate(zip(every, labels, strict=False)):
        own = table[table["label"] == label]
        axes.barh(own["step"], own["start"], height=0.8, color=WARM_UP_COLOR)
        axes.barh(
            own["step"],
            own["stop"] - own["start"],
            left=own["start"],
            height=0.8,
            color=WINDOW_COLOR,
        )
        axes.set_title(label, fontsize="medium", loc="left", pad=2)
        axes.set_xlim(0, table["unroll_length"].max())
        axes.set_ylim(table["step"].max() + 0.6, -0.6)  # time runs down
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
        axes.grid(visible=False)
        if k % columns == 0:
            axes.set_ylabel("Outer step")
        if k + columns >= len(labels):
            axes.set_xlabel("Inner step")
            axes.xaxis.set_tick_params(labelbottom=True)
    for axes in every[len(labels) :]:
        axes.remove()
    handles = [Patch(color=WARM_UP_COLOR), Patch(color=WINDOW_COLOR)]
    add_legend(figure, handles, ["warm-up", "window"], columns=2)
    return figure
