"""The curves of `figures/draw.py` as interactive charts.

Imports plotly, so it is imported only once there is a page to make.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from analysis.figures.curves import Curves, Panel
from analysis.figures.specs import CurveFigure
from analysis.figures.style import PAPER_LINE, Look

if TYPE_CHECKING:
    import pandas as pd

LINE_PIXELS = 2.0
# matplotlib's markers, as plotly calls them.
SYMBOLS = {
    **{"s": "square", "^": "triangle-up", "D": "diamond", "o": "circle", ">": "triangle-right"},
    **{"<": "triangle-left", "X": "x", "v": "triangle-down", "P": "cross", "p": "pentagon"},
    **{"h": "hexagon", "d": "diamond-tall", "*": "star"},
}


def charts(spec: CurveFigure, curves: Curves, looks: Mapping[str, Look]) -> list[go.Figure]:
    """One chart per panel, with numbers on hover: a line and band for each experiment, or a line
    for each seed.

    Args:
        looks: by identity of the experiment.
    """
    return [_chart(spec, curves, panel, looks) for panel in curves.panels]


def _chart(spec: CurveFigure, curves: Curves, panel: Panel, looks: Mapping[str, Look]) -> go.Figure:
    figure = go.Figure()
    for identity, text in panel.texts.items():
        table = curves.values if spec.each_seed else curves.table
        rows = table[table["experiment"] == identity]
        if spec.each_seed:
            _add_seeds(figure, spec, rows, identity, text, looks[identity])
            _add_paper(figure, curves, identity, text, looks[identity])
        else:
            _add_curve(figure, spec, rows, identity, text, looks[identity])
        left_out = curves.left_out.loc[curves.left_out["experiment"] == identity, spec.x]
        for step in left_out.tolist():
            figure.add_annotation(
                **{"x": step, "y": 1, "yref": "paper", "text": "×", "showarrow": False},
                font_color=looks[identity].color,
            )
        for seed, steps in curves.shifts.get(identity, {}).items():
            for step in steps:
                figure.add_annotation(
                    **{"x": step, "y": 0, "yref": "paper", "text": "|", "showarrow": False},
                    **{"hovertext": f"{text}, seed {seed}: the window shifted at {step}"},
                    font_color=looks[identity].color,
                )
    figure.update_layout(
        template="simple_white",
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 60, "r": 12, "t": 30, "b": 48},
        height=440,
        hovermode="x unified",
        hoverlabel={"namelength": -1, "font_size": 12},
        # Measured from the bottom edge: names that take several lines on a phone shrink the axes.
        legend={
            **{"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0},
            "title": {"text": panel.title, "side": "top"},  # beside them it would cut them off
        },
        xaxis={
            **{"title": spec.x_label, "showgrid": True, "tickformat": ",d"},
            "unifiedhovertitle": {"text": f"{spec.x_label} %{{x}}"},
        },
        yaxis={"title": spec.y_label, "showgrid": True, "type": "log" if spec.log else "linear"},
    )
    if spec.log:
        figure.update_yaxes(exponentformat="power", dtick=1 if _decades(curves) > 2 else None)
    return figure


def _add_curve(
    figure: go.Figure,
    spec: CurveFigure,
    rows: "pd.DataFrame",
    identity: str,
    text: str,
    look: Look,
) -> None:
    mean, low, high, steps = (rows[column] for column in ("mean", "low", "high", spec.x))
    # A click in the legend hides the curve with its band.
    common: dict[str, Any] = {"x": steps, "legendgroup": identity}
    silent: dict[str, Any] = {**common, "showlegend": False, "hoverinfo": "skip"}
    if low.notna().any():
        edge = {"mode": "lines", "line": {"width": 0}}
        figure.add_scatter(**silent, **edge, y=low)
        figure.add_scatter(
            **silent, **edge, y=high, fill="tonexty", fillcolor=_transparent(look.color, 0.13)
        )
    figure.add_scatter(
        **common,
        y=mean,
        name=text,
        mode="lines+markers" if len(steps) <= 40 else "lines",
        line={"color": look.color, "width": LINE_PIXELS, "dash": dash(look)},
        marker={
            "symbol": SYMBOLS[look.marker],
            "size": 8,
            "line": {"color": "white", "width": 0.6},
        },
        customdata=[
            _number_text(*numbers, spec.log)
            for numbers in zip(mean, low, high, rows["n"], strict=True)
        ],
        hovertemplate="%{customdata}",
    )


def _add_seeds(
    figure: go.Figure,
    spec: CurveFigure,
    rows: "pd.DataFrame",
    identity: str,
    text: str,
    look: Look,
) -> None:
    for k, (seed, values) in enumerate(rows.groupby("seed")):
        figure.add_scatter(
            x=values[spec.x],
            y=values["value"].astype("float32"),  # as drawn; in base64, so half as long
            name=text,
            legendgroup=identity,
            showlegend=k == 0,
            mode="lines",
            line={"color": look.color, "width": 0.8},
            hovertemplate=f"%{{y:.3g}}, seed {seed}",
        )


def _add_paper(figure: go.Figure, curves: Curves, identity: str, text: str, look: Look) -> None:
    """The paper's medians over ranges of outer steps, with gaps between the ranges."""
    parts = curves.paper.get(identity, [])
    if not parts:
        return
    figure.add_scatter(
        x=[x for part in parts for x in (part.start, part.stop - 1, None)],
        y=[y for part in parts for y in (part.median, part.median, None)],
        name=f"{text}, the paper on CIFAR-10",
        legendgroup=identity,
        mode="lines",
        line={"color": PAPER_LINE["color"], "width": 4},
        hovertemplate="%{y:.3g}, median over a range",
    )


def _number_text(mean: float, low: float, high: float, n: int, log: bool) -> str:
    form = ".3g" if log else ".1f"
    band = "" if math.isnan(low) else f" ({low:{form}} to {high:{form}})"
    return f"{mean:{form}}{band}, n = {n}"


def dash(look: Look) -> str:
    """A look's dash in plotly's format; matplotlib's is in line widths."""
    _, pattern = look.dash
    return ",".join(f"{LINE_PIXELS * part:g}px" for part in pattern) or "solid"


def _transparent(color: str, alpha: float) -> str:
    red, green, blue = (int(color[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def _decades(curves: Curves) -> float:
    values = curves.table["mean"].dropna()
    return math.log10(values.max() / values.min()) if len(values) else 0.0
