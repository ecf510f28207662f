"""The parts of a report: a figure, a table, the images of a distilled set, as pieces of HTML.

Imports matplotlib and plotly, so it is imported only once there is a page to make.
"""

import base64
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from PIL import Image

from analysis.arguments import Request
from analysis.figures.anatomy import TITLE, Anatomy
from analysis.figures.curves import Curves, curves
from analysis.figures.finished import lacking_text, results_of
from analysis.figures.gallery import accuracy_of, composed, gallery_of
from analysis.figures.page import WEBP, Picture, rendered
from analysis.figures.pictures import (
    curve_looks,
    picture_of,
    picture_of_anatomy,
    picture_of_curves,
    picture_of_windows,
)
from analysis.figures.specs import CurveFigure, FigureSpec, ImageFigure, WindowFigure
from analysis.figures.style import Look
from analysis.grid_entries import Entry, GridRuns
from analysis.load import StoredRun
from analysis.rendered_table import RenderedTable
from analysis.report_page.interactive import charts
from analysis.report_page.vectors import svg_uri
from analysis.tables.beside_paper import column_name
from bench.system.errors import UserError

# The page is self-contained: no button sends its numbers anywhere.
CHART_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"],
    "plotlyServerURL": "",
}
CSV_DIGITS = 5
MAX_CLASSES, MAX_IMAGES = 10, 10  # of each set on the page


@dataclass(frozen=True)
class FigurePart:
    """A figure, or why there is none.

    Attributes:
        stem: of its file names, and its place on the page.
        heading: the title, after the paper's number.
        still: the figure as an image, as a data URI; empty if there is none.
        charts: what plotly draws as interactive charts of curves, one per panel, by the id of its
            place on the page.
        csv: the numbers behind it as gzipped CSV, as a data URI.
        note: what is missing, and the command that makes it.
    """

    stem: str
    heading: str
    caption: list[str] = field(default_factory=list)
    still: str = ""
    charts: dict[str, dict[str, Any]] = field(default_factory=dict)
    csv: str = ""
    note: str = ""


@dataclass(frozen=True)
class TablePart:
    """A table: its frames as HTML, each with a caption of its own or none, its notes, and what is
    missing."""

    name: str
    title: str
    caption: str
    frames: list[tuple[str, str]]
    notes: Sequence[str]
    missing: str


@dataclass(frozen=True)
class ImagePart:
    """One distilled set in pixel space."""

    grid: str
    label: str
    text: str
    uri: str


def figure_part(spec: FigureSpec, request: Request, stored: Sequence[StoredRun]) -> FigurePart:
    """A figure, drawn if there are runs for it."""
    live: dict[str, dict[str, Any]] = {}
    note = ""
    try:
        if isinstance(spec, WindowFigure):
            picture = picture_of_windows(spec, request)
        else:
            results = results_of(spec, request, stored)
            note = lacking_text(spec, request, results) if results.missing else ""
            if isinstance(spec, CurveFigure):
                numbers = curves(spec, results)
                picture = picture_of_curves(spec, results, numbers, request)
                live = _charts(spec, numbers, curve_looks(spec, results))
            else:
                picture = picture_of(spec, results, request)
    except UserError as error:
        return FigurePart(spec.stem, _heading(spec), note=str(error))
    # Lines stay sharp as SVG; pixels are pixels.
    pixels = isinstance(spec, ImageFigure)
    return FigurePart(
        spec.stem,
        _heading(spec),
        picture.caption.splitlines(),
        _uri("image/webp", rendered(picture, "webp")) if pixels else _drawing(picture),
        live,
        _csv(picture),
        note,
    )


def _heading(spec: FigureSpec) -> str:
    return f"Figure {spec.number}. {spec.title}" if spec.number else f"Ours: {spec.title}"


def anatomy_part(anatomy: Anatomy) -> FigurePart:
    """The heat maps of an anatomy."""
    picture = picture_of_anatomy(anatomy)
    still = _drawing(picture)
    title = f"{TITLE}: {anatomy.folder.name}"
    return FigurePart(
        anatomy.folder.name, title, picture.caption.splitlines(), still, csv=_csv(picture)
    )


def _charts(
    spec: CurveFigure, numbers: Curves, looks: Mapping[str, Look]
) -> dict[str, dict[str, Any]]:
    return {
        f"chart{spec.key}-{k}": {**json.loads(str(chart.to_json())), "config": CHART_CONFIG}
        for k, chart in enumerate(charts(spec, numbers, looks))
    }


def _csv(picture: Picture) -> str:
    # With a row for every outer step of every seed it would be half of the page: so compressed,
    # and with the digits that any curve or table shows, and one or two more.
    table = picture.table.to_csv(index=False, float_format=f"%.{CSV_DIGITS}g")
    return f"data:application/gzip;base64,{packed(table)}"


def table_part(table: RenderedTable) -> TablePart:
    """A table; the page lists the commands of all tables in one place."""
    frames = [(_html(frame), text) for frame, text in table.frames]
    return TablePart(table.name, table.title, table.caption, frames, table.notes, table.missing)


def image_parts(grid: GridRuns) -> Iterator[ImagePart]:
    """The set of the lowest finished seed of each entry."""
    for entry in grid.entries:
        runs = grid.runs(entry)
        if not runs:
            continue
        run = runs[min(runs)]
        try:
            gallery = gallery_of(run)
        except UserError:
            continue  # a run whose pictures were removed still has its numbers
        tiles = gallery.tiles[:MAX_CLASSES, :MAX_IMAGES]
        if tiles.shape[1] < tiles.shape[0]:
            tiles = tiles.swapaxes(0, 1)  # few images of each class: a column per class
        sheet, *_ = composed(tiles, tiles.shape[1])
        classes, images = gallery.tiles.shape[:2]
        evaluation = run.result["evaluation"]
        texts = [
            _stand_in(entry),
            f"{accuracy_of(evaluation)} (n = {evaluation['n']}), seed {run.config.seed}",
            f"first {MAX_CLASSES} of {classes} classes" if classes > MAX_CLASSES else "",
            f"first {MAX_IMAGES} of {images} images per class" if images > MAX_IMAGES else "",
        ]
        with io.BytesIO() as file:
            Image.fromarray(sheet).save(file, "webp", **WEBP)
            uri = _uri("image/webp", file.getvalue())
        yield ImagePart(grid.grid.name, _name(grid, entry), ", ".join(filter(None, texts)), uri)


def _name(grid: GridRuns, entry: Entry) -> str:
    """The name of an entry in the paper: its method, or its place in a table."""
    if len({other.paper.method for other in grid.entries}) > 1:
        return entry.experiment.label
    linear = ", linear" if entry.paper.parameterization == "linear" else ""
    return f"{column_name(entry.paper.dataset)}, IPC {entry.paper.ipc}{linear}"


def _stand_in(entry: Entry) -> str:
    config, paper = entry.experiment.config, entry.paper
    same = (config.dataset, config.ipc) == (paper.dataset, paper.ipc)
    return "" if same else f"run on {config.dataset}, IPC {config.ipc}"


def _html(frame: pd.DataFrame) -> str:
    frame = frame.map(lambda text: str(text).replace(" ± ", "\xa0±\xa0"))  # numbers stay whole
    return frame.to_html(index=False, border=0, classes="numbers", justify="left", na_rep="")


def _drawing(picture: Picture) -> str:
    return svg_uri(rendered(picture, "svg").decode())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def packed(text: str) -> str:
    """Text gzipped and in base64. Without a time: the same results make the same bytes."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
