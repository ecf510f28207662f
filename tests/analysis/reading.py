"""Whether a figure can be read."""

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.figures.style import SMALL_POINTS


def assert_readable(figure: Figure) -> None:
    """No text is cut, too small or under another; axes, legends and caption keep apart."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    outside = {tick for axes in figure.axes for tick in _ticks_outside(axes)}
    shown = [
        item
        for item in figure.findobj(Text)
        if isinstance(item, Text) and item.get_text() and item.get_visible()
    ]
    boxes = []
    for item in shown:
        if item in outside:
            continue  # a tick outside of the axes is not drawn
        box = item.get_window_extent(renderer)
        assert box.x0 >= figure.bbox.x0 - 0.5, item
        assert box.x1 <= figure.bbox.x1 + 0.5, item
        assert box.y0 >= figure.bbox.y0 - 0.5, item
        assert box.y1 <= figure.bbox.y1 + 0.5, item
        assert float(item.get_fontsize()) >= SMALL_POINTS
        boxes.append((item, box))
    for k, (one, box) in enumerate(boxes):
        for other, its in boxes[:k]:
            assert not box.overlaps(its), (one, other)
    under = [*figure.legends, *(text for text in figure.texts if not text.get_in_layout())]
    assert len(under) > len(figure.legends)
    for axes in figure.axes:
        around = axes.get_tightbbox(renderer)
        assert around is not None
        for item in under:
            assert not around.overlaps(item.get_window_extent(renderer)), item


def _ticks_outside(axes: Axes) -> list[Text]:
    found = []
    for axis, limits, place in ((axes.xaxis, axes.get_xlim(), 0), (axes.yaxis, axes.get_ylim(), 1)):
        low, high = sorted(limits)
        for label in axis.get_ticklabels(which="both"):
            if not low <= label.get_position()[place] <= high or not label.get_visible():
                found.append(label)
    return found
