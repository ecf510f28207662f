"""T-BPTT: the gradient flows through the last steps of a trajectory of fixed length."""

import random

from methods.window import StatelessMethod, Window


class TruncatedBPTT(StatelessMethod):
    """Truncated back-propagation through time (paper, section 2: equation 2 summed from T-M).

    Window: always `[unroll_length - window_size, unroll_length)`.
    """

    def next_window(self, step: int, rng: random.Random) -> Window:
        return Window(self.unroll_length - self.window_size, self.unroll_length)
