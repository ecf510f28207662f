"""The anatomy of a meta-gradient (`bench.anatomy`): heat maps over the starts and stops of windows,
and how the cotangent of θ grows on its way back from the stop."""

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.arguments import Request
from bench.anatomies.folder import FOLDER, AnatomyFolder, finished_anatomies
from bench.config.resolve import has_settings
from bench.config.run_config import RunConfig
from bench.publishing.reading import PublishedAnatomy
from bench.system.errors import Damaged, UserError
from bench.system.text import count, duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "anatomy"  # figure=anatomy
TITLE = "The meta-gradient through every window [start, stop)"
PANEL_INCHES = 1.85
COLUMNS = 3
CURVES = 4  # stops whose cotangents are drawn
TICKS = 6  # on an axis of a heat map


@dataclass(frozen=True)
class Heat:
    """One heat map.

    Attributes:
        column: of the table.
        limits: of the colors, where None is the largest value; None: those of the values, on a
            logarithmic scale.
    """

    column: str
    title: str
    colors: str
    limits: tuple[float, float | None] | None = None


HEATS = (
    Heat("gradient_norm_mean", "Norm", "mako"),
    Heat("cosine_to_stop_mean", "Cosine to [0, stop)", "vlag", (-1, 1)),
    Heat("cosine_to_full_mean", "Cosine to [0, N)", "vlag", (-1, 1)),
    Heat("snr", "Signal-to-noise ratio", "viridis", (0, None)),
    Heat("normalized_variance_mean", "Normalized variance", "rocket_r"),
)


@dataclass(frozen=True)
class Anatomy:
    """A finished anatomy, as its folder holds it."""

    folder: AnatomyFolder
    config: RunConfig
    settings: dict[str, Any]
    manifest: dict[str, Any]
    result: dict[str, Any]

    @property
    def table(self) -> pd.DataFrame:
        """One row per window (`bench/anatomies/summary.py`)."""
        return pd.DataFrame(self.result["windows"])

    def growth(self) -> pd.DataFrame:
        """Columns network, stop, step, growth: the norm of the cotangent of θ_step over that of
        θ_stop, for `CURVES` of the stops. Values that are not finite and positive are left out."""
        stops = spread(self.settings["stops"], CURVES)
        rows = [
            (record["network"], record["stop"], step, norm / record["outer_gradient_norm"])
            for record in self.folder.records()
            if record["stop"] in stops and record["outer_gradient_norm"]
            for step, norm in (
                (record["start"], record["cotangent"]),
                (record["stop"], record["outer_gradient_norm"]),
            )
        ]
        table = pd.DataFrame(rows, columns=["network", "stop", "step", "growth"])
        shown = (table["growth"] > 0) & (table["growth"] < math.inf)
        return table[shown].drop_duplicates(["network", "stop", "step"])


def anatomies_of(root: Path, request: Request) -> list[Anatomy]:
    """The finished anatomies of a scale, with the settings of the request, under `root` and, where
    it has none of the same name, among the published records. One that is damaged is skipped with a
    note."""
    found = []
    folders = {folder.name: folder for folder in request.published.anatomies()}
    folders |= {folder.name: folder for folder in finished_anatomies(root)}
    for _, folder in sorted(folders.items()):
        try:
            config = folder.config()
            if config.scale != request.scale or not has_settings(config, request.overrides):
                continue
            parts = [folder.read(name) for name in ("settings", "manifest", "result")]
            if any(part is None for part in parts):
                raise Damaged(f"{folder.path} lacks its settings, its manifest or its result")
            found.append(Anatomy(folder, config, *(part or {} for part in parts)))
        except UserError as error:
            print(f"note: skipped: {error}", file=sys.stderr)
    return found


def one_of_each(anatomies: Sequence[Anatomy]) -> list[Anatomy]:
    """Of anatomies that differ in the seed only, the one with the lowest."""
    kinds: dict[str, Anatomy] = {}
    for anatomy in sorted(anatomies, key=lambda anatomy: anatomy.config.seed):
        settings = {**anatomy.settings, "distilled": "", "config": replace(anatomy.config, seed=0)}
        kinds.setdefault(repr(settings), anatomy)
    return list(kinds.values())


def others_text(number: int, request: Request) -> str:
    """How to draw the anatomies of other seeds; "" if there are none."""
    if not number:
        return ""
    words = ["python", "-m", "analysis.plot", f"figure={NAME}", f"scale={request.scale}"]
    words += [*request.settings(), *request.written("results_root")]
    return f"{count(number, 'more figure')} of other seeds: {shlex.join(words)}"


def nothing_text(root: Path, request: Request) -> str:
    """Why there is nothing to draw, and what to do about it."""
    settings = "".join(f" {text}" for text in request.settings())
    return (
        f"figure {NAME}: no finished anatomy at scale={request.scale}{settings} in {root / FOLDER};"
        " make one with: python -m bench.anatomy distilled=RUN, where RUN is a run's folder"
    )


def anatomy_caption(anatomy: Anatomy) -> str:
    """The caption: how to read the panels, n, and the source."""
    config, result = anatomy.config, anatomy.result
    n, last = result["networks"], config.unroll_length
    measured = result["variance_networks"]
    variance = (
        f" Normalized variance: over {config.variance_samples} single target images, divided by the"
        f" squared norm of the whole batch's gradient (n = {measured})."
        if measured
        else ""
    )
    own_pass = (
        " With inner_eps_form=published every start has a trajectory of its own."
        if config.inner_optimizer == "adam" and config.inner_eps_form == "published"
        else ""
    )
    spread_text = "; band: ×/÷ one geometric standard deviation" if n > 1 else ""
    reading = (
        f"{TITLE} (not in the paper). n = {count(n, 'fresh network')}, each with a target batch of"
        f" {config.target_batch} of its own. Norm: geometric mean. Cosines: means; N = {last}."
        " Signal-to-noise ratio: squared norm of the mean gradient over the mean squared norm;"
        f" 1: all networks agree, {1 / n:.2g}: pure noise.{variance} Growth: norm of the cotangent"
        f" of θ at an inner step over that at the stop, geometric mean{spread_text}. The CSV has"
        f" every spread, the cotangents of the optimizer's state, and seconds.{own_pass}"
    )
    data = anatomy.manifest["data"]
    settings = [f"scale={config.scale}", *(f"{key}={value}" for key, value in _inner(config))]
    source = (
        f"{anatomy.settings['what']}, distilled={anatomy.settings['distilled']};"
        f" {', '.join(settings)}; data: {data['source']}, fingerprint {data['fingerprint']};"
        f" {duration(result['seconds'])}."
    )
    digits = (
        " The bundled 8x8 digits stand in for the paper's data sets."
        if config.dataset == "digits"
        else ""
    )
    folder = anatomy.folder
    date = folder.date if isinstance(folder, PublishedAnatomy) else ""
    published = f" Source: published records of {date}." if date else ""
    return f"{reading}\n{source}{digits}{published}"


def _inner(config: RunConfig) -> list[tuple[str, Any]]:
    """The settings that decide what flows through a trajectory."""
    of_optimizer = {"adam": ("inner_eps", "inner_eps_form"), "sgd": ("inner_momentum",)}
    keys = [
        *("arch", "width", "depth", "unroll_length", "inner_optimizer", "inner_lr"),
        *of_optimizer[config.inner_optimizer],
        *("precision", "seed"),
        *(() if config.conv_bias else ("conv_bias",)),
    ]
    return [(key, getattr(config, key)) for key in keys]


def spread(values: Sequence[int], most: int) -> list[int]:
    """At most so many of the values, evenly spaced, the last one among them."""
    number = min(most, len(values))
    return [values[round((k + 1) * len(values) / number) - 1] for k in range(number)]


# --- drawing


def draw_anatomy(anatomy: Anatomy, caption: str) -> "Figure":
    """The figure as matplotlib's object; to be called under `RC`."""
    from analysis.figures.page import finish_page, new_page
    from analysis.figures.style import WIDE_INCHES

    table, growth = anatomy.table, anatomy.growth()
    heats = [heat for heat in HEATS if _drawable(table, heat)]
    panels = len(heats) + (not growth.empty)
    rows = -(-panels // COLUMNS)
    figure = new_page(PANEL_INCHES * rows + 0.2, WIDE_INCHES)
    all_axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes, heat in zip(all_axes, heats, strict=False):
        _draw_heat(axes, table, heat)
    if not growth.empty:
        _draw_growth(all_axes[len(heats)], growth)
    for axes in all_axes[panels:]:
        axes.remove()
    return finish_page(figure, caption)


def _drawable(table: pd.DataFrame, heat: Heat) -> bool:
    """Whether some value can be drawn."""
    values = table[heat.column].astype(float)
    return bool(((values.abs() < math.inf) & ((values > 0) | (heat.limits is not None))).any())


def _draw_heat(axes: "Axes", table: pd.DataFrame, heat: Heat) -> None:
    import seaborn as sns
    from matplotlib.colors import LogNorm

    from analysis.figures.style import SMALL_POINTS

    values = table.pivot(index="stop", columns="start", values=heat.column).astype(float)
    values = values.sort_index(ascending=False)
    if heat.limits is None:
        positive = values.where((values > 0) & (values < math.inf))
        low, high = float(np.nanmin(positive)), float(np.nanmax(positive))
        if high < 1.1 * low:  # a color bar needs a range
            low, high = low / 1.1, high * 1.1
        scale: dict[str, Any] = {"norm": LogNorm(low, high)}
        values = positive
    else:
        scale = {"vmin": heat.limits[0], "vmax": heat.limits[1]}
    sns.heatmap(
        values,
        cmap=heat.colors,
        **scale,
        cbar_kws={"pad": 0.03, "aspect": 14, "use_gridspec": False},  # for the page's layout
        xticklabels=False,
        yticklabels=False,
        rasterized=True,
        ax=axes,
    )
    _set_ticks(axes, values.columns.tolist(), values.index.tolist())
    axes.set_facecolor("#eeeeee")  # no such window, or no value
    axes.grid(visible=False)
    axes.set_title(heat.title, fontsize="medium", loc="left", pad=4)
    axes.set_xlabel("Start")
    axes.set_ylabel("Stop")
    bar = axes.collections[0].colorbar
    if bar is not None:
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        bar.ax.tick_params(labelsize=SMALL_POINTS, length=2)
        bar.ax.grid(visible=False)


def _set_ticks(axes: "Axes", starts: Sequence[Any], stops: Sequence[Any]) -> None:
    """A few starts and stops, which need not be evenly spaced."""
    for values, set_ticks in ((starts, axes.set_xticks), (stops, axes.set_yticks)):
        places = sorted({round(k * (len(values) - 1) / (TICKS - 1)) for k in range(TICKS)})
        set_ticks([place + 0.5 for place in places], [str(values[place]) for place in places])
    axes.tick_params(axis="both", labelrotation=0, length=2)


def _draw_growth(axes: "Axes", growth: pd.DataFrame) -> None:
    import seaborn as sns

    from analysis.figures.style import SMALL_POINTS

    axes.set_yscale("log")  # before seaborn estimates: its means are then geometric
    sns.lineplot(
        growth,
        x="step",
        y="growth",
        hue="stop",
        style="stop",
        palette="viridis_r",
        errorbar="sd" if growth["network"].nunique() > 1 else None,
        err_kws={"alpha": 0.15, "linewidth": 0.4},
        legend="full",
        ax=axes,
    )
    axes.axhline(1, color="#888888", linewidth=0.6, zorder=0)
    axes.set_title("Growth of the cotangent of θ", fontsize="medium", loc="left", pad=4)
    axes.set_xlabel("Inner step")
    axes.set_ylabel("")
    axes.legend(
        title="stop", fontsize=SMALL_POINTS, title_fontsize=SMALL_POINTS, frameon=False, ncols=2
    )
