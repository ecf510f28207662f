"""T-BPTT: the gradient flows through the last steps of a trajectory of fixed length."""

import random

from methods.look import DASH_DOTTED, SKY_BLUE, Look
from methods.window import SkippingMethod, Window


class TruncatedBPTT(SkippingMethod):
    """Truncated back-propagation through time (paper, section 2: equation 2 summed from T-M).

    Window: `[unroll_length - window_size, unroll_length)`, without inner steps before `first`.

    The usual way to save time and memory, both of which its backward pass spends on `window_size`
    steps only, with a stable gradient and fast early progress. It never sees the first steps, and
    the paper finds its final accuracy below that of BPTT: prefer RaT-BPTT at the same window size.
    """

    label = "T-BPTT"
    look = Look(SKY_BLUE, DASH_DOTTED, "^")

    @property
    def last_first(self) -> int:
        return self.unroll_length - 1  # windows may be shorter than `window_size`

    def next_window(self, step: int, rng: random.Random) -> Window:
        return Window(max(self.first, self.unroll_length - self.window_size), self.unroll_length)
