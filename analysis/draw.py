"""Drawing: curves with bands, a legend above and the caption beneath, nothing on top of the data.

Imports matplotlib, so it is imported only once there is something to draw. No pyplot: no global
state, no display needed.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import (
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
)

from analysis.figures import Curves, FigureSpec
from analysis.style import AXES_HEIGHT_INCHES, RC, SMALL_POINTS, WIDTH_INCHES, Look
from bench.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

DPI = 300
CAPTION_LINE_INCHES = SMALL_POINTS * 1.3 / 72
LEGEND_LINE_INCHES = SMALL_POINTS * 1.7 / 72
MARGIN_INCHES = 0.05
MARKERS_PER_CURVE = 15
FINE_TICKS = tuple(half / 2 for half in range(2, 20))


def draw(
    spec: FigureSpec, curves: Curves, looks: Mapping[str, Look], caption: str, stem: Path
) -> list[Path]:
    """Write `stem`.png, `stem`.pdf and `stem`.csv, each whole or not at all.

    Args:
        looks: the look of each label.

    Returns:
        The three paths.
    """
    with mpl.rc_context(RC):
        figure = make_figure(spec, curves, looks, caption)
        told = caption.replace("\n", " ")
        png, pdf, csv = (stem.with_name(f"{stem.name}.{end}") for end in ("png", "pdf", "csv"))
        with atomic_write(png) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata={"Description": told})
        with atomic_write(pdf) as temporary:
            # No date: the same results make the same file.
            figure.savefig(temporary, metadata={"Subject": told, "CreationDate": None})
        with atomic_write(csv) as temporary:
            curves.table.to_csv(temporary, index=False)
    return [png, pdf, csv]


def make_figure(
    spec: FigureSpec, curves: Curves, looks: Mapping[str, Look], caption: str
) -> Figure:
    """The figure as matplotlib's object; to be called under `RC`."""
    labels = list(dict.fromkeys(curves.table["label"]))
    legend = ["\n".join(wrapped(label, WIDTH_INCHES - 0.6)) for label in labels]
    columns = 2 if all(width_inches(label) < WIDTH_INCHES / 2 - 0.55 for label in labels) else 1
    rows = math.ceil(len(labels) / 2) if columns == 2 else "\n".join(legend).count("\n") + 1
    width = WIDTH_INCHES - 2 * MARGIN_INCHES
    lines = [line for part in caption.split("\n") for line in wrapped(part, width)]
    above = LEGEND_LINE_INCHES * rows + 2 * MARGIN_INCHES
    beneath = CAPTION_LINE_INCHES * len(lines) + 2 * MARGIN_INCHES
    height = above + AXES_HEIGHT_INCHES + beneath
    figure = Figure(figsize=(WIDTH_INCHES, height))
    # The layout fits the axes and their labels between the two; it would count neither right.
    figure.set_layout_engine(
        "constrained",
        rect=(0, beneath / height, 1, AXES_HEIGHT_INCHES / height),
        w_pad=MARGIN_INCHES,
        h_pad=0.01,
    )
    axes = figure.add_subplot()
    axes.set_xlabel("Outer step")
    axes.set_ylabel(spec.y_label)
    handles = [
        _curve(axes, spec, curves, label, looks[label], shift / len(labels))
        for shift, label in enumerate(labels)
    ]
    _set_axes(axes, spec)
    left = MARGIN_INCHES / WIDTH_INCHES
    figure.legend(
        handles,
        legend,
        loc="upper left",
        bbox_to_anchor=(left, 1 - MARGIN_INCHES / height),
        ncols=columns,
        frameon=False,
        handlelength=3.6,
        columnspacing=1.5,
        borderpad=0,
        borderaxespad=0,
    ).set_in_layout(False)
    figure.text(
        left,
        MARGIN_INCHES / height,
        "\n".join(lines),
        va="bottom",
        fontsize=SMALL_POINTS,
        color="#333333",
        linespacing=1.15,
        in_layout=False,
    )
    return figure


def _curve(
    axes: Axes, spec: FigureSpec, curves: Curves, label: str, look: Look, shift: float
) -> Line2D:
    rows: pd.DataFrame = curves.table[curves.table["label"] == label]
    steps = rows["step"].to_numpy()
    prefix = "smooth_" if spec.smoothed_over else ""
    mean, low, high = (rows[prefix + part].to_numpy() for part in ("mean", "low", "high"))
    axes.fill_between(steps, low, high, color=look.colour, alpha=0.13, linewidth=0)
    if spec.smoothed_over:
        axes.plot(steps, rows["mean"], color=look.colour, linewidth=0.5, alpha=0.35, zorder=1.5)
    else:
        for edge in (low, high):  # where bands overlap, their edges tell them apart
            axes.plot(steps, edge, color=look.colour, linestyle=look.dash, linewidth=0.4, alpha=0.6)
    every = max(1, math.ceil(len(steps) / MARKERS_PER_CURVE))
    (line,) = axes.plot(
        steps,
        mean,
        color=look.colour,
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
            color=look.colour,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
        )
        crosses.set_in_layout(False)
    return line


def _set_axes(axes: Axes, spec: FigureSpec) -> None:
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


def width_inches(text: str) -> float:
    """How wide a line of legend or caption is."""
    font = FontProperties(family=RC["font.sans-serif"], size=SMALL_POINTS)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def wrapped(text: str, limit_inches: float) -> list[str]:
    """`text` broken at spaces into lines no wider than the limit, as far as its words allow."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_inches(longer) > limit_inches:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
