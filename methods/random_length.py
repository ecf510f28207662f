"""R-BPTT: full back-propagation along trajectories of random length."""

import random

from methods.look import DOTTED, PURPLE, Look
from methods.window import SkippingMethod, Window


class RandomLengthBPTT(SkippingMethod):
    """Full unrolling along trajectories of randomly sampled lengths (paper, section 2, "R-BPTT").

    Window: `[first, length)`, `first=0` by default, with length uniform on
    `{min_length, ..., unroll_length}`. The paper does not state the distribution; an earlier
    snapshot of its code has this one. `min_length=0` (the default) stands for the window size, so
    that the trajectories end where the windows of RaT-BPTT may end.

    The paper's control for RaT-BPTT: the same random ends, without truncation. On average it is
    cheaper than BPTT and at worst as expensive; the paper finds its gradients as unstable and its
    accuracy lower.
    """

    label = "R-BPTT"
    look = Look(PURPLE, DOTTED, "D")

    def __init__(
        self, unroll_length: int, window_size: int, min_length: int = 0, first: int = 0
    ) -> None:
        if not 0 <= min_length <= unroll_length:
            raise ValueError(
                f"min_length={min_length} must lie between 1 and unroll_length={unroll_length},"
                " or be 0 for the window size"
            )
        self.min_length = min_length or window_size
        super().__init__(unroll_length, window_size, first)

    @property
    def last_first(self) -> int:
        return self.min_length - 1

    def next_window(self, step: int, rng: random.Random) -> Window:
        return Window(self.first, rng.randint(self.min_length, self.unroll_length))
