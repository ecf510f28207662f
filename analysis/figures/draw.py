"""Curves with bands over seeds, drawn by seaborn.

Imports matplotlib, so it is imported only once there is something to draw.
"""

import math
from collections.abc import Mapping
from typing import Any

import seaborn as sns
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
from analysis.figures.page import add_legend, finish_page, new_page, wrapped
from analysis.figures.specs import CurveFigure
from analysis.figures.style import (
    AXES_HEIGHT_INCHES,
    PAPER_LINE,
    PAPER_TEXT,
    SMALL_POINTS,
    WIDE_INCHES,
    WIDTH_INCHES,
    Look,
)

MARKERS_PER_CURVE = 15
PANEL_INCHES = 1.2  # height of a panel of one experiment, with a title of one line
FACET_INCHES = 1.55  # of a panel of several curves
TITLE_LINE_INCHES = 0.13
FINE_TICKS = tuple(half / 2 for half in range(2, 20))


def make_figure(
    spec: CurveFigure, curves: Curves, looks: Mapping[str, Look], caption: str
) -> Figure:
    """The figure as matplotlib's object; to be called under `RC`.

    Args:
        looks: by identity of the experiment.
    """
    if spec.facets:
        return _figure_of_facets(spec, curves, looks, caption)
    if spec.each_seed:
        return _figure_of_seeds(spec, curves, looks, caption)
    count = len(curves.panels)
    figure = new_page(AXES_HEIGHT_INCHES, WIDTH_INCHES if count == 1 else WIDE_INCHES)
    all_axes = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    if spec.log:  # before seaborn estimates: its means are then geometric
        all_axes[0].set_yscale("log")
    for k, (axes, panel) in enumerate(zip(all_axes, curves.panels, strict=True)):
        _draw_means(axes, spec, curves, panel, looks)
        _set_axes(axes, spec.log)
        axes.set_xlabel(spec.x_label)
        axes.set_ylabel(spec.y_label if k == 0 else "")
        handles, identities = axes.get_legend_handles_labels()
        axes.get_legend().remove()
        texts = [panel.texts[identity] for identity in identities]
        add_legend(figure, handles, texts, panel.title, (k, count))
    return finish_page(figure, caption)


def _figure_of_seeds(
    spec: CurveFigure, curves: Curves, looks: Mapping[str, Look], caption: str
) -> Figure:
    """A panel per experiment with a line per seed."""
    (panel,) = curves.panels
    titles = {k: wrapped(text, WIDE_INCHES / 2 - 0.7) for k, text in panel.texts.items()}
    rows = math.ceil(len(titles) / 2)
    higher = TITLE_LINE_INCHES * (max(map(len, titles.values())) - 1)
    figure = new_page((PANEL_INCHES + higher) * rows + 0.35, WIDE_INCHES)
    all_axes = list(figure.subplots(rows, 2, squeeze=False, sharex=True, sharey=True).flat)
    for k, (axes, (identity, title)) in enumerate(zip(all_axes, titles.items(), strict=False)):
        color = looks[identity].color
        _draw_seeds(axes, spec, curves, identity, color)
        for part in curves.paper.get(identity, []):
            axes.plot((part.start, part.stop), (part.median,) * 2, **PAPER_LINE)
        _mark_shifts(axes, curves.shifts.get(identity, {}), color, row=0)
        axes.set_title("\n".join(title), fontsize=SMALL_POINTS, loc="left", pad=4)
        axes.set_ylabel("" if k % 2 else "\n".join(wrapped(spec.y_label, 0.8 * PANEL_INCHES)))
        axes.set_xlabel("Outer step" if k + 2 >= len(titles) else "")
        axes.tick_params(labelbottom=k + 2 >= len(titles))
    if spec.log:
        all_axes[0].set_yscale("log")
    _set_axes(all_axes[0], spec.log)
    for axes in all_axes[len(titles) :]:
        axes.remove()
    if curves.paper:
        add_legend(figure, [Line2D([], [], **PAPER_LINE)], [PAPER_TEXT])
    return finish_page(figure, caption)


def _figure_of_facets(
    spec: CurveFigure, curves: Curves, looks: Mapping[str, Look], caption: str
) -> Figure:
    """Panels in two columns with the same axes, and one legend for all."""
    columns = min(2, len(curves.panels))
    rows = math.ceil(len(curves.panels) / 2)
    figure = new_page(FACET_INCHES * rows + 0.35, WIDE_INCHES)
    all_axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    if spec.log:  # before seaborn estimates: its means are then geometric
        all_axes[0].set_yscale("log")
    handles: dict[str, Line2D] = {}
    for k, (axes, panel) in enumerate(zip(all_axes, curves.panels, strict=False)):
        if spec.each_seed:
            for identity in panel.texts:
                _draw_seeds(axes, spec, curves, identity, looks[identity].color)
        else:
            _draw_means(axes, spec, curves, panel, looks)
            axes.get_legend().remove()
        for identity, text in panel.texts.items():
            look = looks[identity]
            marker = "" if spec.each_seed else look.marker
            handle = Line2D(
                [],
                [],
                linestyle="-" if spec.each_seed else look.dash,
                color=look.color,
                marker=marker,
                markeredgecolor="white",
            )
            handles.setdefault(text, handle)
        beneath = k + 2 >= len(curves.panels)
        axes.set_title(panel.title, fontsize=SMALL_POINTS, loc="left", pad=4)
        axes.set_ylabel("" if k % 2 else "\n".join(wrapped(spec.y_label, 0.8 * FACET_INCHES)))
        axes.set_xlabel(spec.x_label)
        axes.xaxis.label.set_visible(beneath)  # shared axes hide all but those of the last row
        axes.tick_params(labelbottom=beneath)
    _set_axes(all_axes[0], spec.log)
    for axes in all_axes[len(curves.panels) :]:
        axes.remove()
    add_legend(figure, list(handles.values()), list(handles))
    return finish_page(figure, caption)


def _draw_seeds(axes: Axes, spec: CurveFigure, curves: Curves, identity: str, color: str) -> None:
    """A thin line for each seed of an experiment."""
    values = curves.values[curves.values["experiment"] == identity].dropna(subset=["value"])
    if not values.empty:  # seaborn fails where nothing is finite
        sns.lineplot(
            values,
            x=spec.x,
            y="value",
            units="run",
            estimator=None,
            color=color,
            linewidth=0.5,
            alpha=0.7,
            ax=axes,
        )
    _mark_left_out(axes, spec, curves, identity, color)


def _draw_means(
    axes: Axes, spec: CurveFigure, curves: Curves, panel: Panel, looks: Mapping[str, Look]
) -> None:
    """Mean and standard deviation over seeds of each curve, on the axes' scale."""
    order = list(panel.texts)
    values = curves.values[curves.values["experiment"].isin(order)]
    dashes: dict[str, Any] = {identity: looks[identity].dash[1] or "" for identity in order}
    sns.lineplot(
        values,
        x=spec.x,
        y="value",
        hue="experiment",
        style="experiment",
        hue_order=order,
        style_order=order,
        palette={identity: looks[identity].color for identity in order},
        dashes=dashes,
        markers={identity: looks[identity].marker for identity in order},
        errorbar="sd",
        err_kws={"alpha": 0.15, "linewidth": 0.4},
        markeredgewidth=0.4,
        ax=axes,
    )
    every = max(1, math.ceil(values["step"].nunique() / MARKERS_PER_CURVE))
    for k, line in enumerate(axes.get_lines()):
        # Shifted from curve to curve, so that markers of curves that coincide stay apart.
        line.set_markevery((k * every // len(order), every))
    for identity in order:  # also those that have no line, because nothing is finite
        _mark_left_out(axes, spec, curves, identity, looks[identity].color)
    for k, identity in enumerate(one for one in order if one in curves.shifts):
        _mark_shifts(axes, curves.shifts[identity], looks[identity].color, row=k)


def _mark_left_out(
    axes: Axes, spec: CurveFigure, curves: Curves, identity: str, color: str
) -> None:
    steps = curves.left_out.loc[curves.left_out["experiment"] == identity, spec.x]
    if steps.empty:
        return
    axes.plot(
        steps,
        [0.985] * len(steps),
        linestyle="",
        marker="x",
        color=color,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
        in_layout=False,
    )


def _mark_shifts(axes: Axes, shifts: Mapping[int, list[int]], color: str, row: int) -> None:
    """A bar at the bottom, in the color of the curve, for each shift of each seed."""
    steps = [step for of_seed in shifts.values() for step in of_seed]
    if not steps:
        return
    axes.plot(
        steps,
        [0.03 + 0.05 * row] * len(steps),
        linestyle="",
        marker="|",
        markersize=5,
        markeredgewidth=1.2,
        color=color,
        transform=axes.get_xaxis_transform(),
        in_layout=False,
    )


def _set_axes(axes: Axes, log: bool) -> None:
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if not log:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        return
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
