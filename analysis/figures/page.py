"""The page of a figure: legends above the axes, caption beneath them, and its files.

Imports matplotlib, so it is imported only once there is something to draw. It makes `Figure`
objects without pyplot: no global state, no display.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from analysis.figures.style import RC, SMALL_POINTS, WIDTH_INCHES
from bench.system.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

DPI = 300
SCREEN_DPI = 200
WEBP: dict[str, Any] = {"lossless": True, "method": 6, "quality": 100}  # a quarter smaller than PNG
MARGIN_INCHES = 0.05
HANDLE_INCHES = 0.6  # the line, marker and gaps of a legend's entry


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


def save(picture: Picture, stem: Path, with_caption: bool) -> list[Path]:
    """Write `stem`.png, `stem`.pdf and `stem`.csv, each atomically; returns the paths.

    The caption is part of the figure, or is written to `stem`.txt.
    """
    metadata = picture.caption.replace("\n", " ")
    paths = [stem.with_name(f"{stem.name}.{end}") for end in ("png", "pdf", "csv", "txt")]
    png, pdf, csv, txt = paths
    with mpl.rc_context(RC):
        figure = picture.make(picture.caption if with_caption else "")
        with atomic_write(png) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata={"Description": metadata})
        # What it placed stays. Placing again takes as long as drawing, also by the engine "none".
        figure.set_layout_engine(None)
        with atomic_write(pdf) as temporary:
            # No date: the same results make the same file.
            figure.savefig(temporary, dpi=DPI, metadata={"Subject": metadata, "CreationDate": None})
    with atomic_write(csv) as temporary:
        picture.table.to_csv(temporary, index=False)
    if with_caption:
        return paths[:3]
    with atomic_write(txt) as temporary:
        temporary.write_text(f"{picture.caption}\n", encoding="utf-8")
    return paths


def rendered(picture: Picture, form: str) -> bytes:
    """The picture without its caption, as "svg" or "webp"; the same results make the same bytes."""
    how: dict[str, Any] = {"svg": {"metadata": {"Date": None}}, "webp": {"pil_kwargs": WEBP}}
    with mpl.rc_context({**RC, "svg.hashsalt": "figure"}), io.BytesIO() as file:
        picture.make("").savefig(file, format=form, dpi=SCREEN_DPI, **how[form])
        return file.getvalue()


def new_page(axes_inches: float, width: float = WIDTH_INCHES) -> Figure:
    """A page for axes of this height, their labels included; `finish_page` adds the rest."""
    return Figure(figsize=(width, axes_inches))


def add_legend(
    figure: Figure,
    handles: Sequence[Artist],
    texts: Sequence[str],
    title: str = "",
    part: tuple[int, int] = (0, 1),
) -> None:
    """A legend at the top of the page, in two columns if they fit.

    Args:
        part: (k, n): the legend is above the k-th of n equal parts of the width.
    """
    limit = figure.get_figwidth() / part[1]
    lines = ["\n".join(wrapped(text, limit - HANDLE_INCHES)) for text in texts]
    for columns in (2, 1):
        legend = figure.legend(
            handles,
            lines,
            loc="upper left",
            bbox_to_anchor=(part[0] / part[1], 1),
            ncols=columns,
            title=title or None,
            alignment="left",
            frameon=False,
            handlelength=3.6,
            columnspacing=1.5,
            borderpad=0,
            borderaxespad=1,
        )
        legend.set_in_layout(False)
        if columns == 1 or legend.get_window_extent().width / figure.dpi < limit:
            return
        legend.remove()


def finish_page(figure: Figure, caption: str) -> Figure:
    """Make the page higher by its legends and its caption, which is added here."""
    width, axes_inches = figure.get_size_inches()
    # What is drawn was seen to be one percent wider than what is measured.
    limit = 0.98 * width - 2 * MARGIN_INCHES
    lines = [line for part in caption.splitlines() for line in wrapped(part, limit)]
    text = figure.text(
        MARGIN_INCHES,
        MARGIN_INCHES,
        "\n".join(lines),
        transform=figure.dpi_scale_trans,
        va="bottom",
        fontsize=SMALL_POINTS,
        color="#333333",
        linespacing=1.15,
        in_layout=False,
    )
    boxes = [legend.get_window_extent() for legend in figure.legends]
    above = max((box.height / figure.dpi for box in boxes), default=0) + 3 * MARGIN_INCHES
    beneath = text.get_window_extent().height / figure.dpi + 2 * MARGIN_INCHES if lines else 0.0
    height = above + axes_inches + beneath
    figure.set_size_inches(width, height)
    rect = (0, beneath / height, 1, axes_inches / height)
    layout = ConstrainedLayoutEngine(rect=rect, w_pad=MARGIN_INCHES, h_pad=0.01)
    figure.set_layout_engine(layout)
    return figure


def wrapped(text: str, limit_inches: float) -> list[str]:
    """`text` broken at spaces into lines no wider than the limit, as far as its words allow."""
    font = FontProperties(family=RC["font.sans-serif"], size=SMALL_POINTS)
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        width = text_to_path.get_text_width_height_descent(longer, font, ismath=False)[0] / 72
        if lines[-1] and width > limit_inches:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
