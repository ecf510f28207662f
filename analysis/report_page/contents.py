"""What a report holds: every figure and table, the verdicts, and where their numbers come from.

Imports matplotlib and plotly, so it is imported only once there is a page to make.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from PIL import Image

from analysis.figures.curves import curves
from analysis.figures.finished import lacking_text, results_of
from analysis.figures.gallery import accuracy_text, composed, gallery_of
from analysis.figures.page import Picture, drawn
from analysis.figures.pictures import curve_looks, picture_of, picture_of_windows
from analysis.figures.specs import FIGURES, CurveFigure, FigureSpec, ImageFigure, WindowFigure
from analysis.load import Results, StoredRun, load_results
from analysis.provenance import Origin, common_settings, machines, origin_of, own_settings
from analysis.report_page.interactive import charts
from analysis.report_page.scorecard import Line, counts, lines
from analysis.request import Request, sweeps_first
from analysis.tables.captions import caption, missing_text
from analysis.tables.cells import TABLES, table
from analysis.tables.render import measured, quoted
from analysis.tables.scores import score_table
from analysis.verdicts.claiming import load_claims, outcomes
from analysis.verdicts.texts import RULES
from analysis.verdicts.texts import caption as claims_caption
from bench.errors import UserError
from bench.grids import grid_names, load_grid

SHOWN_GRIDS = ("methods_comparison", "parameterization", "standard_benchmarks")
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


@dataclass(frozen=True)
class Report:
    """All of it, in the order of the page; texts are plain, not HTML, except charts and frames."""

    scale: str
    settings: list[str]
    counts: dict[str, int]
    claims: list[Line]
    claims_caption: str
    rules: str
    figures: list[FigurePart]
    tables: list[TablePart]
    images: list[ImagePart]
    origins: list[Origin]
    machines: dict[str, dict[str, int]]
    common: dict[str, str]
    own: list[tuple[str, list[tuple[str, str]]]]
    commands: list[str]


def report(request: Request, stored: Sequence[StoredRun], root: Path) -> Report:
    """Everything that the runs under `root` have to say at one scale.

    Raises:
        UserError: a setting that no run has.
    """
    grids = [_results(name, request, stored) for name in grid_names()]
    found = outcomes(load_claims(), request, stored, root)
    made = [table(spec, request, stored, root) for spec in TABLES.values()]
    commands = [line for outcome in found for line in outcome.commands]
    commands += [line for one in made for cell in one.cells for line in cell.commands]
    scores = score_table(request, stored, root)
    commands += scores.missing[1:]
    commands += [request.sweep(results.grid) for results in grids if results.missing]
    with_runs = [results for results in grids if results.runs]
    common = common_settings(with_runs)
    return Report(
        scale=request.scale,
        settings=request.settings(),
        counts=counts(found),
        claims=lines(found),
        claims_caption=claims_caption(found, request),
        rules=RULES.strip(),
        figures=[_figure(spec, request, stored) for spec in FIGURES.values()],
        tables=[
            TablePart(
                one.spec.name,
                one.paper.title,
                caption(one, request.scale, request.settings()),
                [_html(frame) for frame in (measured(one), quoted(one)) if len(frame)],
                " ".join(missing_text(one)[:1]).partition("; make them with")[0],
            )
            for one in made
        ]
        + [
            TablePart(
                "scores",
                "What distilled sets are worth beside random real images and the full training set",
                scores.caption,
                [_html(scores.shown)],
                " ".join(scores.missing[:1]).partition("; make them with")[0],
            )
        ],
        images=[part for results in with_runs for part in _images(results)],
        origins=[origin_of(results, load_grid(results.grid).about) for results in grids],
        machines=machines(run for results in grids for run in results.runs),
        common=common,
        own=[(results.grid, own_settings(results, common)) for results in with_runs],
        commands=sweeps_first(commands),
    )


def _results(name: str, request: Request, stored: Sequence[StoredRun]) -> Results:
    return load_results(
        stored, load_grid(name), request.scale, request.overrides, seeds=request.seeds or None
    )


def _figure(spec: FigureSpec, request: Request, stored: Sequence[StoredRun]) -> FigurePart:
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


def _images(results: Results) -> Iterator[ImagePart]:
    """The set of the lowest finished seed of each experiment."""
    if results.grid not in SHOWN_GRIDS:
        return
    for label in results.experiments:
        run = next((run for run in results.runs if run.label == label), None)
        if run is None:
            continue
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
        text = f"{accuracy_text(evaluation)} (n = {evaluation['n']}), seed {run.config.seed}"
        with io.BytesIO() as file:
            Image.fromarray(sheet).save(file, "png")
            uri = _uri("image/png", file.getvalue())
        yield ImagePart(results.grid, label, ", ".join([text, *part]), uri)


def _html(frame: pd.DataFrame) -> str:
    return frame.to_html(index=False, border=0, classes="numbers", justify="left", na_rep="")


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
