"""From the specification of a figure and its results to a picture.

Imports matplotlib, so it is imported only once there is something to draw.
"""

from functools import partial

from analysis.arguments import Request
from analysis.figures.anatomy import Anatomy, anatomy_caption, draw_anatomy
from analysis.figures.captions import curve_caption, former_variance_text
from analysis.figures.comparison import (
    comparison_caption,
    comparison_table,
    draw_comparison,
)
from analysis.figures.curves import Curves, curves
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
from bench.system.errors import UserError


def picture_of(spec: FigureSpec, results: Results, request: Request) -> Picture:
    """The picture of finished runs.

    Raises:
        UserError: they did not record what the figure shows.
    """
    if isinstance(spec, CurveFigure):
        return picture_of_curves(spec, results, curves(spec, results), request)
    if isinstance(spec, ComparisonFigure):
        table = comparison_table(results)
        text = comparison_caption(spec, results, table, request)
        make = partial(draw_comparison, table, PARAMETERIZATION_LOOKS)
        return Picture(table, text, make)
    assert isinstance(spec, ImageFigure)
    shown = gallery(spec, results, request)
    text = gallery_caption(spec, results, shown, request)
    return Picture(gallery_table(shown), text, partial(draw_gallery, shown))


def picture_of_curves(
    spec: CurveFigure, results: Results, numbers: Curves, request: Request
) -> Picture:
    """The picture of the curves of finished runs.

    Raises:
        UserError: the runs did not record what they show.
    """
    if spec.facets and not numbers.panels:
        raise UserError(
            f"figure {spec.key}: no run of grid {results.grid} belongs to a panel of it"
        )
    if numbers.table["mean"].notna().sum() == 0:
        reason = former_variance_text(spec, results)
        raise UserError(
            f"figure {spec.key}: the finished runs of grid {results.grid} recorded no"
            f" {spec.column}, or no finite one{f' ({reason})' if reason else ''}"
        )
    text = curve_caption(spec, results, numbers, request)
    make = partial(make_figure, spec, numbers, curve_looks(spec, results))
    return Picture(numbers.shown_table(spec), text, make)


def curve_looks(spec: CurveFigure, results: Results) -> dict[str, Look]:
    """The look of each experiment, by identity: that of its method or, if the figure compares
    settings of one method, that of its position; in facets that of its curve."""
    experiments = {one.identity: one.config for one in results.experiments}
    if spec.facets:
        found = {identity: spec.facets.curve_of(one) for identity, one in experiments.items()}
        return {identity: curve.look for identity, curve in found.items() if curve}
    return value_looks(experiments) if spec.panels else looks(experiments)


def picture_of_windows(spec: WindowFigure, request: Request) -> Picture:
    """The picture of the windows that methods choose; it needs no runs.

    Raises:
        UserError: an unknown method, or invalid settings.
    """
    configs = configurations(spec, request)
    table = window_table(configs, spec.steps)
    return Picture(table, window_caption(spec, configs, request), partial(draw_windows, table))


def picture_of_anatomy(anatomy: Anatomy) -> Picture:
    """The picture of an anatomy; its table has every window."""
    return Picture(anatomy.table, anatomy_caption(anatomy), partial(draw_anatomy, anatomy))
