"""RaT-BPTT: a window of fixed size at a random place of the trajectory."""

import random

from methods.window import StatelessMethod, Window


class RandomTruncatedBPTT(StatelessMethod):
    """Random truncated back-propagation through time (paper, Algorithm 1 and equation 3).

    Window: `[start, start + window_size)` with start uniform on
    `{0, ..., unroll_length - window_size}` (line 3 of Algorithm 1, where it is called M). Its end
    is the end of the inner training: the steps behind it are not run.
    """

    def next_window(self, step: int, rng: random.Random) -> Window:
        start = rng.randint(0, self.unroll_length - self.window_size)
        return Window(start, start + self.window_size)
