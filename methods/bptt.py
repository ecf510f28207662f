"""BPTT: the gradient flows through the whole unrolled trajectory."""

import random

from methods.window import StatelessMethod, Window


class BPTT(StatelessMethod):
    """Back-propagation through time over all N inner steps (paper, section 2, equation 2).

    Window: always `[0, unroll_length)`. Memory and time grow with the unroll length; `window_size`
    has no effect.
    """

    def next_window(self, step: int, rng: random.Random) -> Window:
        return Window(0, self.unroll_length)
