"""How the curve of a method looks in figures: its color, dash and marker."""

import re
from dataclasses import dataclass

# The colors of Okabe and Ito, which stay apart for every kind of color blindness.
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

# A dash is matplotlib's (offset, (on, off, ...)), in line widths.
Dash = tuple[int, tuple[float, ...]]
SOLID, DASHED, DOTTED = (0, ()), (0, (5, 1.6)), (0, (1, 1.2))
DASH_DOTTED, DASH_DOT_DOTTED = (0, (6, 1.5, 1, 1.5)), (0, (5, 1.3, 1, 1.3, 1, 1.3))
LONG_DASHED = (0, (9, 2.5))

MARKERS = tuple("os^v<>DdXPph*")  # as matplotlib names them


@dataclass(frozen=True)
class Look:
    """The look of one curve.

    Attributes:
        color: as `#rrggbb`.
        dash: one of the dashes of this file.
        marker: one of `MARKERS`.

    Raises:
        ValueError: a color of another form, or an unknown marker.
    """

    color: str
    dash: Dash = SOLID
    marker: str = "o"

    def __post_init__(self) -> None:
        if not re.fullmatch("#[0-9A-Fa-f]{6}", self.color):
            raise ValueError(f"color {self.color!r} must have the form #rrggbb")
        if self.marker not in MARKERS:
            raise ValueError(f"marker {self.marker!r} must be one of {' '.join(MARKERS)}")
