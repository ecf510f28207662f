"""The parts of a report: a figure, a table, the images of a distilled set, as pieces of HTML.

Imports matplotlib and plotly, so it is imported only once there is a page to make.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd
from PIL import Image

from analysis.arguments import Request
from analysis.figures.curves import curves
from analysis.figures.finished import lacking_text, results_of
from analysis.figures.gallery import accuracy_text, composed, gallery_of
from analysis.figures.page import Picture, drawn
from analysis.figures.pictures import curve_looks, picture_of, picture_of_windows
from analysis.figures.specs import CurveFigure, FigureSpec, ImageFigure, WindowFigure
from analysis.grid_entries import Entry, GridRuns
from analysis.load import Results, StoredRun
from analysis.report_page.interactive import charts
from analysis.tables.captions import caption, missing_text
from analysis.tables.cells import Table
from analysis.tables.render import column_name, measured, quoted
from analysis.tables.scores import ScoreTable
from bench.system.errors import UserError

# The page stands alone: no button sends its numbers anywhere.
CHART_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"],
    "plotlyServerURL": "",
}
MOST_CLASSES, MOST_IMAGES = 10, 10  # of a set in the gallery: a page is looked at as a whole


@dataclass(frozen=True)
class FigurePart:
    """A figure, or why there is none.

    Attributes:
        still: the figure as an image, as a data URI; empty where there is none.
        charts: the same as plotly's HTML, one a panel; none where it is no figure of curves.
        csv: the numbers behind it, as a data URI.
        note: what is missing, and how to make it.
    """

    number: int
    title: str
    caption: list[str] = field(default_factory=list)
    still: str = ""
    charts: list[str] = field(default_factory=list)
    csv: str = ""
    note: str = ""


@dataclass(frozen=True)
class TablePart:
    """A table: its frames as HTML, and what it lacks."""

    name: str
    title: str
    caption: str
    frames: list[str]
    note: str


@dataclass(frozen=True)
class ImagePart:
    """One distilled set in pixel space."""

    grid: str
    label: str
    text: str
    uri: str


def figure_part(spec: FigureSpec, request: Request, stored: Sequence[StoredRun]) -> FigurePart:
    """A figure, drawn if there are runs for it."""
    live, note = [], ""
    try:
        if isinstance(spec, WindowFigure):
            picture = picture_of_windows(spec, request)
        else:
            results = results_of(spec, request, stored)
            picture = picture_of(spec, results, request)
            note = lacking_text(spec, request, results) if results.missing else ""
            live = _charts(spec, results)
    except UserError as error:
        return FigurePart(spec.number, spec.title, note=str(error))
    # Lines stay sharp as SVG; pixels are pixels.
    form = "png" if isinstance(spec, ImageFigure) else "svg"
    return FigurePart(
        spec.number,
        spec.title,
        picture.caption.splitlines(),
        _uri("image/svg+xml" if form == "svg" else "image/png", drawn(picture, form)),
        live,
        _csv(picture),
        note,
    )


def _charts(spec: FigureSpec, results: Results) -> list[str]:
    if not isinstance(spec, CurveFigure):
        return []
    made = charts(spec, curves(spec, results), curve_looks(spec, results))
    return [
        chart.to_html(
            config=CHART_CONFIG,
            include_plotlyjs=False,
            full_html=False,
            div_id=f"chart{spec.number}-{k}",
        )
        for k, chart in enumerate(made)
    ]


def _csv(picture: Picture) -> str:
    return _uri("text/csv", picture.table.to_csv(index=False).encode())


def table_part(made: Table, request: Request) -> TablePart:
    """A table beside the paper's."""
    return TablePart(
        made.spec.name,
        made.paper.title,
        caption(made, request.scale, request.settings()),
        [_html(frame) for frame in (measured(made), quoted(made)) if len(frame)],
        _without_commands(missing_text(made)),
    )


def score_part(made: ScoreTable) -> TablePart:
    """The table of scores."""
    title = "What distilled sets are worth beside random real images and the full training set"
    note = _without_commands(made.missing)
    return TablePart("scores", title, made.caption, [_html(made.shown)], note)


def _without_commands(missing: Sequence[str]) -> str:
    """What is missing; the page has all commands in one place."""
    return missing[0].partition("; make them with")[0] if missing else ""


def image_parts(grid: GridRuns) -> Iterator[ImagePart]:
    """The set of the lowest finished seed of each entry."""
    for entry in grid.entries:
        runs = grid.runs(entry)
        if not runs:
            continue
        run = runs[min(runs)]
        try:
            shown = gallery_of(run)
        except UserError:
            continue  # a run whose pictures were removed still has its numbers
        tiles = shown.tiles[:MOST_CLASSES, :MOST_IMAGES]
        if tiles.shape[1] < tiles.shape[0]:
            tiles = tiles.swapaxes(0, 1)  # few images a class: a class a column
        sheet, *_ = composed(tiles, tiles.shape[1])
        classes, count = shown.tiles.shape[:2]
        part = [f"first {MOST_CLASSES} of {classes} classes"] if classes > MOST_CLASSES else []
        part += [f"first {MOST_IMAGES} of {count} images a class"] if count > MOST_IMAGES else []
        evaluation = run.result["evaluation"]
        reached = f"{accuracy_text(evaluation)} (n = {evaluation['n']}), seed {run.config.seed}"
        with io.BytesIO() as file:
            Image.fromarray(sheet).save(file, "png")
            uri = _uri("image/png", file.getvalue())
        text = ", ".join([*_stand_in(entry), reached, *part])
        yield ImagePart(grid.grid.name, _name(grid, entry), text, uri)


def _name(grid: GridRuns, entry: Entry) -> str:
    """What an entry is in the paper: its method, or its place in a table."""
    if len({other.paper.method for other in grid.entries}) > 1:
        return entry.label
    linear = ", linear" if entry.paper.parameterization == "linear" else ""
    return f"{column_name(entry.paper.dataset)}, IPC {entry.paper.ipc}{linear}"


def _stand_in(entry: Entry) -> list[str]:
    own, paper = ((c.dataset, c.ipc) for c in (entry.config, entry.paper))
    return [] if own == paper else [f"run on {own[0]}, IPC {own[1]}"]


def _html(frame: pd.DataFrame) -> str:
    frame = frame.map(lambda text: str(text).replace(" ± ", "\xa0±\xa0"))  # numbers stay whole
    return frame.to_html(index=False, border=0, classes="numbers", justify="left", na_rep="")


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
