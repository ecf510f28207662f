"""RaT-BPTT: a window of fixed size at a random place of the trajectory."""

import random

from methods.look import BLACK, SOLID, Look
from methods.window import SkippingMethod, Window


class RandomTruncatedBPTT(SkippingMethod):
    """Random truncated back-propagation through time (paper, Algorithm 1 and equation 3).

    Window: `[start, start + window_size)` with start uniform on
    `{first, ..., unroll_length - window_size}` (line 3 of Algorithm 1, where it is called M and
    `first` is 0). The inner
    training ends where the window ends: later steps are not run.

    The paper's method and the first choice. Its backward pass costs what that of T-BPTT does, its
    warm-up on average half as much, and over many outer steps it covers the whole trajectory. The
    paper takes an unroll length of about three times the window size (C.3).
    """

    label = "RaT-BPTT"
    look = Look(BLACK, SOLID, "o")

    def next_window(self, step: int, rng: random.Random) -> Window:
        start = rng.randint(self.first, self.unroll_length - self.window_size)
        return Window(start, start + self.window_size)
