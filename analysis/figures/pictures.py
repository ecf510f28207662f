"""From a figure of the paper and the results for it to a picture: each kind of figure in its way.

Imports matplotlib, so it is imported only once there is something to draw.
"""

from functools import partial

from analysis.arguments import Request
from analysis.figures.captions import curve_caption
from analysis.figures.comparison import (
    comparison_caption,
    comparison_table,
    draw_comparison,
    is_comparable,
)
from analysis.figures.curves import curves
from analysis.figures.draw import make_figure
from analysis.figures.gallery import draw_gallery, gallery, gallery_caption, gallery_table
from analysis.figures.page import Picture
from analysis.figures.specs import (
    ComparisonFigure,
    CurveFigure,
    FigureSpec,
    ImageFigure,
    WindowFigure,
)
from analysis.figures.style import PARAMETERIZATION_LOOKS, Look, looks, value_looks
from analysis.figures.windows import configurations, draw_windows, window_caption, window_table
from analysis.load import Results
from bench.config.command_line import words
from bench.config.grid import load_grid
from bench.system.errors import UserError


def picture_of(spec: FigureSpec, results: Results, request: Request) -> Picture:
    """The picture of finished runs.

    Raises:
        UserError: they did not record what the figure shows.
    """
    settings = request.settings()
    if isinstance(spec, CurveFigure):
        numbers = curves(spec, results)
        if numbers.table["mean"].notna().sum() == 0:
            raise UserError(
                f"figure {spec.number}: the finished runs of grid {results.grid} recorded no"
                f" {spec.column}, or none that is finite"
            )
        text = curve_caption(spec, results, numbers, settings)
        make = partial(make_figure, spec, numbers, curve_looks(spec, results))
        return Picture(numbers.table, text, make)
    if isinstance(spec, ComparisonFigure):
        table = comparison_table(results)
        text = comparison_caption(spec, results, table, settings)
        comparable = is_comparable(results, settings)
        make = partial(draw_comparison, table, PARAMETERIZATION_LOOKS, comparable)
        return Picture(table, text, make)
    assert isinstance(spec, ImageFigure)
    shown = gallery(spec, results, request.overrides)
    text = gallery_caption(spec, results, shown, settings)
    return Picture(gallery_table(shown), text, partial(draw_gallery, shown))


def curve_looks(spec: CurveFigure, results: Results) -> dict[str, Look]:
    """The look of each label: that of its method or, where one method is shown with several
    settings, of its place among them."""
    return value_looks(results.experiments) if spec.panels else looks(results.experiments)


def picture_of_windows(spec: WindowFigure, request: Request) -> Picture:
    """The picture of what methods answer, for which no run is needed.

    Raises:
        UserError: an unknown method, or impossible settings.
    """
    grid, only = load_grid(request.grid or spec.like), words(request.only)
    configs = configurations(spec, grid, request.scale, request.overrides, only)
    table = window_table(configs, spec.steps)
    text = window_caption(spec, configs, request.scale, request.settings())
    return Picture(table, text, partial(draw_windows, table))
