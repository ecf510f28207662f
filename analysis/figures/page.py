"""The page that every figure stands on: its caption beneath, its legend above, its three files.

Imports matplotlib, so it is imported only once there is something to draw. No pyplot: no global
state, no display needed.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from analysis.figures.style import RC, SMALL_POINTS, WIDTH_INCHES
from bench.system.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

DPI = 300
SCREEN_DPI = 200
CAPTION_LINE_INCHES = SMALL_POINTS * 1.3 / 72
LEGEND_LINE_INCHES = SMALL_POINTS * 1.7 / 72
MARGIN_INCHES = 0.05


@dataclass(frozen=True)
class Picture:
    """A figure before it is drawn.

    Attributes:
        table: the numbers behind it, for the CSV.
        caption: in paragraphs, a line each.
        make: makes the figure with a caption beneath, or "" for none; called under `RC`.
    """

    table: "pd.DataFrame"
    caption: str
    make: Callable[[str], Figure]


def save(picture: Picture, stem: Path) -> list[Path]:
    """Write `stem`.png, `stem`.pdf and `stem`.csv, each whole or not at all; returns the paths."""
    with mpl.rc_context(RC):
        figure = picture.make(picture.caption)
        told = picture.caption.replace("\n", " ")
        png, pdf, csv = (stem.with_name(f"{stem.name}.{end}") for end in ("png", "pdf", "csv"))
        with atomic_write(png) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata={"Description": told})
        with atomic_write(pdf) as temporary:
            # No date: the same results make the same file.
            figure.savefig(temporary, metadata={"Subject": told, "CreationDate": None})
        with atomic_write(csv) as temporary:
            picture.table.to_csv(temporary, index=False)
    return [png, pdf, csv]


def drawn(picture: Picture, form: str) -> bytes:
    """The picture without its caption, as "svg" or "png"; the same results make the same bytes."""
    with mpl.rc_context({**RC, "svg.hashsalt": "figure"}), io.BytesIO() as file:
        date = {"Date": None} if form == "svg" else None
        picture.make("").savefig(file, format=form, dpi=SCREEN_DPI, metadata=date)
        return file.getvalue()


def new_page(
    caption: str, axes_inches: float, legend_lines: int = 0, width: float = WIDTH_INCHES
) -> Figure:
    """An empty page with its caption, and room for a legend and for axes.

    Args:
        axes_inches: height of the axes with their labels.
        legend_lines: lines of legend above them.
        width: of the page, in inches.
    """
    limit = width - 2 * MARGIN_INCHES
    lines = [line for part in caption.splitlines() for line in wrapped(part, limit)]
    above = LEGEND_LINE_INCHES * legend_lines + 2 * MARGIN_INCHES
    beneath = CAPTION_LINE_INCHES * len(lines) + 2 * MARGIN_INCHES
    height = above + axes_inches + beneath
    figure = Figure(figsize=(width, height))
    # The layout fits the axes and their labels between the two; it would count neither right.
    figure.set_layout_engine(
        "constrained",
        rect=(0, beneath / height, 1, axes_inches / height),
        w_pad=MARGIN_INCHES,
        h_pad=0.01,
    )
    figure.text(
        MARGIN_INCHES / width,
        MARGIN_INCHES / height,
        "\n".join(lines),
        va="bottom",
        fontsize=SMALL_POINTS,
        color="#333333",
        linespacing=1.15,
        in_layout=False,
    )
    return figure


def add_legend(
    figure: Figure,
    handles: Sequence[Artist],
    texts: Sequence[str],
    *,
    columns: int = 1,
    title: str = "",
    left: float = 0.0,
) -> None:
    """A legend at the top of the page, its left edge at `left` of the width."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles,
        texts,
        loc="upper left",
        bbox_to_anchor=(left + MARGIN_INCHES / width, 1 - MARGIN_INCHES / height),
        ncols=columns,
        title=title or None,
        alignment="left",
        frameon=False,
        handlelength=3.6,
        columnspacing=1.5,
        borderpad=0,
        borderaxespad=0,
    ).set_in_layout(False)


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
