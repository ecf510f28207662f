"""Drawing curves with bands, a legend above and the caption beneath, nothing on top of the data.

Imports matplotlib, so it is imported only once there is something to draw.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
)

from analysis.figures.curves import Curves, Panel
from analysis.figures.page import add_legend, new_page, width_inches, wrapped
from analysis.figures.specs import CurveFigure
from analysis.figures.style import AXES_HEIGHT_INCHES, WIDE_INCHES, WIDTH_INCHES, Look

if TYPE_CHECKING:
    import pandas as pd

MARKERS_PER_CURVE = 15
FINE_TICKS = tuple(half / 2 for half in range(2, 20))


def make_figure(
    spec: CurveFigure, curves: Curves, looks: Mapping[str, Look], caption: str
) -> Figure:
    """The figure as matplotlib's object; to be called under `RC`.

    Args:
        looks: the look of each label.
    """
    count = len(curves.panels)
    width = WIDTH_INCHES if count == 1 else WIDE_INCHES
    legends = [_legend(panel, width / count) for panel in curves.panels]
    figure = new_page(caption, AXES_HEIGHT_INCHES, max(rows for *_, rows in legends), width)
    every = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    for k, (axes, panel, (texts, columns, _)) in enumerate(
        zip(every, curves.panels, legends, strict=True)
    ):
        axes.set_xlabel("Outer step")
        if k == 0:
            axes.set_ylabel(spec.y_label)
        handles = [
            _curve(axes, spec, curves, label, looks[label], shift / len(panel.texts))
            for shift, label in enumerate(panel.texts)
        ]
        _set_axes(axes, spec)
        add_legend(figure, handles, texts, columns=columns, title=panel.title, left=k / count)
    return figure


def _legend(panel: Panel, width: float) -> tuple[list[str], int, int]:
    """(what it says, columns, lines) of the legend of a panel that is so many inches wide."""
    texts = ["\n".join(wrapped(text, width - 0.6)) for text in panel.texts.values()]
    columns = (
        2 if all(width_inches(text) < width / 2 - 0.55 for text in panel.texts.values()) else 1
    )
    lines = math.ceil(len(texts) / 2) if columns == 2 else "\n".join(texts).count("\n") + 1
    return texts, columns, lines + bool(panel.title)


def _curve(
    axes: Axes, spec: CurveFigure, curves: Curves, label: str, look: Look, shift: float
) -> Line2D:
    rows: pd.DataFrame = curves.table[curves.table["label"] == label]
    steps = rows["step"].to_numpy()
    prefix = "smooth_" if spec.smoothed_over else ""
    mean, low, high = (rows[prefix + part].to_numpy() for part in ("mean", "low", "high"))
    axes.fill_between(steps, low, high, color=look.color, alpha=0.13, linewidth=0)
    if spec.smoothed_over:
        axes.plot(steps, rows["mean"], color=look.color, linewidth=0.5, alpha=0.35, zorder=1.5)
    else:
        for edge in (low, high):  # where bands overlap, their edges tell them apart
            axes.plot(steps, edge, color=look.color, linestyle=look.dash, linewidth=0.4, alpha=0.6)
    every = max(1, math.ceil(len(steps) / MARKERS_PER_CURVE))
    (line,) = axes.plot(
        steps,
        mean,
        color=look.color,
        linestyle=look.dash,
        marker=look.marker,
        # Shifted from curve to curve, so that markers of curves that coincide stay apart.
        markevery=(int(shift * every), every),
        markeredgecolor="white",
        markeredgewidth=0.4,
    )
    lost = curves.left_out.loc[curves.left_out["label"] == label, "step"]
    if len(lost):
        (crosses,) = axes.plot(
            lost,
            [0.985] * len(lost),
            linestyle="",
            marker="x",
            color=look.color,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
        )
        crosses.set_in_layout(False)
    return line


def _set_axes(axes: Axes, spec: CurveFigure) -> None:
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if not spec.log:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = math.log10(high / low)
    if decades < 2:  # powers of ten alone would leave one tick or none
        subs = (1, 2, 5) if decades > 1 else (1, 2, 3, 5, 7) if decades > 0.4 else FINE_TICKS
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_major_formatter(
            StrMethodFormatter("{x:g}")
            if low >= 1e-3 and high < 1e4
            else LogFormatterSciNotation(minor_thresholds=(math.inf, math.inf))
        )
        axes.yaxis.set_minor_formatter(NullFormatter())
