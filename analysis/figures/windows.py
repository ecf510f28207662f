"""The windows of the methods, as the methods choose them outer step by outer step."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.arguments import Request
from analysis.figures.specs import WindowFigure
from analysis.labels import distinct_labels
from bench.config.command_line import words
from bench.config.grid import expand, load_grid
from bench.config.objectives import UNROLLED
from bench.config.run_config import RunConfig
from bench.system.errors import UserError
from bench.training.randomness import python_random
from methods import (
    Window,
    imagine_probe,
    imagine_step,
    make_method,
    method_defaults,
    needs_evaluations,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Of every outer step and evaluation, so that methods that wait for stagnation move.
STAGNANT_LOSS = 1.0
COLORS = {"not run": "#ffffff", "warm-up": "#cfcfcf", "window": "#0072B2"}
PANEL_INCHES = 1.25
COLUMNS = 3

Labeled = list[tuple[str, RunConfig]]


def configurations(spec: WindowFigure, request: Request) -> Labeled:
    """(label, configuration) of each method that is shown. Unroll length, window size and so on are
    those of the grid's first run.

    Raises:
        UserError: there is no such method, or a setting is invalid.
    """
    overrides = request.overrides
    if (objective := overrides.get("objective", UNROLLED)) != UNROLLED:
        raise UserError(f"figure={spec.key} shows windows, and objective={objective} has none")
    options = dict(overrides.get("method_options") or {})
    grid = load_grid(request.grid or spec.like)
    first = replace(grid, runs=grid.runs[:1])
    methods = [str(overrides["method"])] if "method" in overrides else words(request.only)
    configs, of_some = [], set[str]()
    for method in methods or spec.methods:
        try:
            defaults = method_defaults(method)
        except ValueError as error:
            raise UserError(str(error)) from error
        of_some |= defaults.keys()
        # The methods of one figure have different options: each takes those that it has.
        known = {k: v for k, v in {**spec.options, **options}.items() if k in defaults}
        settings = {k: v for k, v in overrides.items() if k not in ("scale", "seed")}
        settings |= {"method": method, "method_options": known}
        config = expand(first, request.scale, settings, 1)[0]
        configs.append(replace(config, seed=int(overrides.get("seed", 0))))
    if unknown := set(options) - of_some:
        raise UserError(f"no method shown has method_options.{min(unknown)}")
    # The caption states the options: no label needs them.
    return list(zip(distinct_labels(configs), configs, strict=True))


def windows_of(config: RunConfig, steps: int) -> list[Window]:
    """The windows of the first outer steps, with the random draws of a run of this configuration;
    only the losses are not a run's, but always `STAGNANT_LOSS`."""
    method = make_method(
        config.method, config.unroll_length, config.window_size, config.method_options
    )
    windows = []
    for step in range(steps):
        if needs_evaluations(method) and step % config.accuracy_every == 0:
            method.observe_evaluation(step, STAGNANT_LOSS)
        imagine_probe(method, step, config.unroll_length)
        rng = python_random(config.seed, "window", step // config.window_resample_every)
        windows.append(method.next_window(step, rng))
        imagine_step(method, step, windows[-1], STAGNANT_LOSS)
    return windows


def window_table(configs: Labeled, steps: int) -> pd.DataFrame:
    """One row per method and outer step: panel, label, method, step, start, stop, unroll_length."""
    return pd.DataFrame(
        [
            (panel, label, config.method, step, window.start, window.stop, config.unroll_length)
            for panel, (label, config) in enumerate(configs)
            for step, window in enumerate(windows_of(config, steps))
        ],
        columns=["panel", "label", "method", "step", "start", "stop", "unroll_length"],
    )


def window_caption(spec: WindowFigure, configs: Labeled, request: Request) -> str:
    """The caption: how to read the windows, and the settings that the methods got."""
    _, first = configs[0]
    options = ", ".join(
        f"{key}={value}"
        for key in spec.options
        for value in dict.fromkeys(
            config.method_options[key] for _, config in configs if key in config.method_options
        )
    )
    reading = (
        f"{spec.title} (paper: Figure 1, a drawing of three methods){spec.remark}."
        " Each row is an outer step. Light gray: warm-up, run without differentiation. Dark blue:"
        " the window. White: not run. The outer loss is taken at the window's right end."
        " Nothing was measured: each method chose its windows with the random draws of a run"
    )
    stagnant = (
        f" and an outer loss that never falls ({options}, so that windows move within"
        f" {spec.steps} outer steps)"
        if options
        else ""
    )
    settings = "".join(f", {text}" for text in request.settings())
    source = (
        f"scale={request.scale}{settings}: unroll_length={first.unroll_length},"
        f" window_size={first.window_size},"
        f" window_resample_every={first.window_resample_every}, seed={first.seed}."
        " Needs no runs; n = 1 draw."
    )
    return f"{reading}{stagnant}.\n{source}"


def states(windows: pd.DataFrame, unroll_length: int) -> "NDArray[np.int64]":
    """[outer steps, inner steps]: the position in `COLORS` of what is done with each inner step."""
    inner = np.arange(unroll_length)[None]  # [1, inner steps]
    start, stop = (windows[column].to_numpy()[:, None] for column in ("start", "stop"))
    return (inner < stop).astype(int) + ((inner >= start) & (inner < stop))


def draw_windows(table: pd.DataFrame, caption: str) -> "Figure":
    """The figure as matplotlib's object; to be called under `RC`."""
    import seaborn as sns
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    from analysis.figures.page import add_legend, finish_page, new_page
    from analysis.figures.style import WIDE_INCHES, WIDTH_INCHES

    panels = table["panel"].nunique()
    columns = min(COLUMNS, panels)
    rows = -(-panels // columns)
    figure = new_page(PANEL_INCHES * rows + 0.25, WIDTH_INCHES if columns == 1 else WIDE_INCHES)
    all_axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    length, steps = int(table["unroll_length"].max()), table["step"].nunique()
    for panel, axes in enumerate(all_axes[:panels]):
        windows = table[table["panel"] == panel]
        sns.heatmap(
            states(windows, length),
            cmap=list(COLORS.values()),
            vmin=0,
            vmax=len(COLORS) - 1,
            cbar=False,
            xticklabels=False,
            yticklabels=4,
            rasterized=True,
            ax=axes,
        )
        axes.hlines(range(1, steps), 0, length, color="white", linewidth=1)
        axes.set_title(windows["label"].iloc[0], fontsize="medium", loc="left", pad=2)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.tick_params(axis="y", labelrotation=0)
        axes.spines[["left", "bottom"]].set_visible(True)
        axes.grid(visible=False)
        if panel % columns == 0:
            axes.set_ylabel("Outer step")
        if panel + columns >= panels:
            axes.set_xlabel("Inner step")
            axes.xaxis.set_tick_params(labelbottom=True)
    for axes in all_axes[panels:]:
        axes.remove()
    shown = ("warm-up", "window")
    add_legend(figure, [Patch(color=COLORS[name]) for name in shown], shown)
    return finish_page(figure, caption)
