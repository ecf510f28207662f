"""How curves look: a fixed colour, dash and marker for each method, in every figure.

The colours are Okabe and Ito's, dealt out so that the methods of one figure of the paper stay apart
for every kind of colour blindness and in lightness; dashes and markers say the same without colour.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.config.run_config import RunConfig

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# A dash is matplotlib's (offset, (on, off, ...)), in line widths.
SOLID, DASHED, DOTTED = (0, ()), (0, (5, 1.6)), (0, (1, 1.2))
DASH_DOTTED, DASH_DOT_DOTTED = (0, (6, 1.5, 1, 1.5)), (0, (5, 1.3, 1, 1.3, 1, 1.3))
LONG_DASHED = (0, (9, 2.5))


@dataclass(frozen=True)
class Look:
    """The look of one curve."""

    color: str
    dash: tuple[int, tuple[float, ...]]
    marker: str


METHOD_LOOKS = {
    "bptt": Look("#0072B2", DASHED, "s"),
    "t_bptt": Look("#56B4E9", DASH_DOTTED, "^"),
    "r_bptt": Look("#CC79A7", DOTTED, "D"),
    "rat_bptt": Look("#000000", SOLID, "o"),
    "forward_window": Look("#E69F00", DASHED, ">"),
    "backward_window": Look("#009E73", DASH_DOTTED, "<"),
    "growing_bptt": Look("#E69F00", DASH_DOTTED, "X"),
}
OTHER_LOOKS = [
    Look("#D55E00", DASH_DOT_DOTTED, "v"),  # the one colour that no method of the paper has
    Look("#009E73", LONG_DASHED, "P"),
    Look("#E69F00", DASH_DOT_DOTTED, "X"),
    Look("#CC79A7", LONG_DASHED, "p"),
    Look("#56B4E9", DASHED, "h"),
    Look("#0072B2", DASH_DOT_DOTTED, "d"),
    Look("#000000", DOTTED, "*"),
]
# For the values of a setting, in the order of the grid: of Figure 6 the first four share a panel,
# and the third with the last two.
VALUE_LOOKS = [
    Look("#0072B2", DASHED, "s"),
    Look("#CC79A7", DOTTED, "D"),
    Look("#000000", SOLID, "o"),
    Look("#56B4E9", DASH_DOTTED, "^"),
    Look("#009E73", LONG_DASHED, "v"),
    Look("#E69F00", DASH_DOT_DOTTED, "X"),
]
PARAMETERIZATION_LOOKS = {
    "pixels": Look("#000000", SOLID, "o"),
    "linear": Look("#D55E00", DASHED, "D"),
}


def looks(experiments: Mapping[str, RunConfig]) -> dict[str, Look]:
    """A look for each label. The first experiment of a method has the method's own; the others, and
    users' methods, have those that no method of the figure uses, least like them first."""
    result: dict[str, Look] = {}
    for label, config in experiments.items():
        own = METHOD_LOOKS.get(config.method)
        if own is not None and own not in result.values():
            result[label] = own
    used = {look.color for look in result.values()}
    spare = sorted(OTHER_LOOKS, key=lambda look: look.color in used)  # stable
    others = [label for label in experiments if label not in result]
    for k, label in enumerate(others):
        result[label] = spare[k % len(spare)]
    return {label: result[label] for label in experiments}


def value_looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label of experiments that are one method with other settings."""
    return {label: VALUE_LOOKS[k % len(VALUE_LOOKS)] for k, label in enumerate(labels)}


WIDTH_INCHES = 3.5  # one column of a two-column page
WIDE_INCHES = 7.0  # both columns
AXES_HEIGHT_INCHES = 2.3  # with tick labels and axis label
FONT_POINTS = 8.0
SMALL_POINTS = 7.0  # legend, ticks and caption; nothing is smaller

RC: "dict[RcKeyType, Any]" = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same figure on every machine
    "font.size": FONT_POINTS,
    "axes.labelsize": FONT_POINTS,
    "xtick.labelsize": SMALL_POINTS,
    "ytick.labelsize": SMALL_POINTS,
    "legend.fontsize": SMALL_POINTS,
    "legend.title_fontsize": SMALL_POINTS,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.which": "major",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.15,
    "lines.markersize": 4.0,
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
