"""BPTT: the gradient flows through the whole unrolled trajectory."""

import random

from methods.look import BLUE, DASHED, Look
from methods.window import SkippingMethod, Window


class BPTT(SkippingMethod):
    """Back-propagation through time over all N inner steps (paper, section 2, equation 2).

    Window: always `[first, unroll_length)`, with `first=0` by default. `window_size` has no effect.

    The reference that the truncated methods approximate: its gradient leaves no inner step out. Its
    time and memory grow with the unroll length, and the products of many Hessians in equation 2
    make its norm unstable (Figures 2 and 7).
    """

    label = "BPTT"
    look = Look(BLUE, DASHED, "s")

    @property
    def last_first(self) -> int:
        return self.unroll_length - 1  # the window may have any size

    def next_window(self, step: int, rng: random.Random) -> Window:
        return Window(self.first, self.unroll_length)
