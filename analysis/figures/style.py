"""How curves look: a color, dash and marker for each method, the same in every figure.

A method states its look in its own file (`methods/look.py`). Those of the paper's figures stay
apart for every kind of color blindness and in lightness; dashes and markers say the same without
color.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bench.config.objectives import OBJECTIVES
from bench.config.run_config import RunConfig
from methods import method_look
from methods.look import (
    BLACK,
    BLUE,
    DASH_DOT_DOTTED,
    DASH_DOTTED,
    DASHED,
    DOTTED,
    GREEN,
    LONG_DASHED,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    SOLID,
    VERMILION,
    Look,
)

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# For methods without a look, and for further experiments of a method.
SPARE_LOOKS = [
    Look(VERMILION, DASH_DOT_DOTTED, "v"),  # the one color that no method of the paper has
    Look(GREEN, LONG_DASHED, "P"),
    Look(ORANGE, DASH_DOT_DOTTED, "X"),
    Look(PURPLE, LONG_DASHED, "p"),
    Look(SKY_BLUE, DASHED, "h"),
    Look(BLUE, DASH_DOT_DOTTED, "d"),
    Look(BLACK, DOTTED, "*"),
]
# For the values of a setting, in the order of the grid: of Figure 6 the first four share a panel,
# and the third with the last two.
VALUE_LOOKS = [
    Look(BLUE, DASHED, "s"),
    Look(PURPLE, DOTTED, "D"),
    Look(BLACK, SOLID, "o"),
    Look(SKY_BLUE, DASH_DOTTED, "^"),
    Look(GREEN, LONG_DASHED, "v"),
    Look(ORANGE, DASH_DOT_DOTTED, "X"),
]
# The paper's own curve beside ours, in the color that no method of the paper has.
PAPER_LINE: dict[str, Any] = {
    "color": VERMILION,
    "linewidth": 1.2,
    "solid_capstyle": "butt",
    "zorder": 3,
}
PAPER_TEXT = "the paper's own curve, CIFAR-10: its medians over ranges of outer steps"
PARAMETERIZATION_LOOKS = {
    "pixels": Look(BLACK, SOLID, "o"),
    "linear": Look(VERMILION, DASHED, "D"),
    "idc": Look(GREEN, DOTTED, "s"),
    "haba": Look(PURPLE, DASH_DOTTED, "^"),
}


def looks(experiments: Mapping[str, RunConfig]) -> dict[str, Look]:
    """A look for each label. The first experiment of a method has the look that the method states;
    all others have spare ones, those first whose color no method of the figure has."""
    stated: dict[str, Look] = {}
    for label, config in experiments.items():
        objective = OBJECTIVES.get(config.objective)
        look = objective.look if objective else method_look(config.method)
        if look is not None and look not in stated.values():
            stated[label] = look
    used_colors = {look.color for look in stated.values()}
    spare = sorted(SPARE_LOOKS, key=lambda look: look.color in used_colors)  # stable
    others = [label for label in experiments if label not in stated]
    chosen = {label: spare[k % len(spare)] for k, label in enumerate(others)}
    return {label: stated.get(label) or chosen[label] for label in experiments}


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
    "figure.autolayout": False,  # `page.py` places, whatever the user's own defaults say
    "figure.constrained_layout.use": False,
    "savefig.facecolor": "white",
}
