"""BPTT whose trajectory grows during the run (paper, C.5, Figure 8)."""

import random

from methods.look import DASH_DOTTED, ORANGE, Look
from methods.window import SkippingMethod, Window


class GrowingBPTT(SkippingMethod):
    """Full back-propagation along a trajectory that grows linearly with the outer step (paper, C.5:
    "BPTT-Increasing Windows", from 10 to 180 inner steps).

    Window: `[first, length(step))` with

        length(step) = first_length + (unroll_length - first_length) * step / grow_steps,

    rounded to the nearest integer (a half up), until outer step `grow_steps`, and `unroll_length`
    from there on. The inner training ends where the window ends.

    An attempt to stabilize BPTT that the paper finds worse than BPTT and R-BPTT. It is cheap early
    and as expensive as BPTT in the end. The paper does not say within how many outer steps the
    trajectory grows: set `grow_steps` to fit the length of the run. `first_length=0` (the default)
    stands for the window size, which has no other effect.
    """

    label = "BPTT-Increasing Windows"
    look = Look(ORANGE, DASH_DOTTED, "X")

    def __init__(
        self,
        unroll_length: int,
        window_size: int,
        first_length: int = 0,
        grow_steps: int = 20000,
        first: int = 0,
    ) -> None:
        if not 0 <= first_length <= unroll_length:
            raise ValueError(
                f"first_length={first_length} must lie between 1 and unroll_length={unroll_length},"
                " or be 0 for the window size"
            )
        self.first_length = first_length or window_size
        super().__init__(unroll_length, window_size, first)
        if grow_steps < 1:
            raise ValueError(f"grow_steps={grow_steps} must be at least 1 outer step")
        self.grow_steps = grow_steps

    @property
    def last_first(self) -> int:
        return self.first_length - 1

    def next_window(self, step: int, rng: random.Random) -> Window:
        growth = (self.unroll_length - self.first_length) * min(step, self.grow_steps)
        # growth / grow_steps + 1/2 rounded down, in integers: exact for any number of steps.
        rounded = (2 * growth + self.grow_steps) // (2 * self.grow_steps)
        return Window(self.first, self.first_length + rounded)
