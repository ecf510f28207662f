"""Conditioners: what is done to a meta-gradient before the distilled set is updated.

A clipping sees the norm of the whole meta-gradient (images and learned labels together) and
answers with the factor that the gradient is multiplied by.
"""

import math
from typing import Any, Protocol


class Clipping(Protocol):
    """The interface: `factor(norm)`, and a state for checkpoints."""

    def factor(self, norm: float) -> float:
        """The number that a gradient of norm `norm` is multiplied by."""
        ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class NoClipping:
    """Leaves the gradient as it is."""

    def factor(self, norm: float) -> float:
        return 1.0

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class UnitNorm(NoClipping):
    """Scales every gradient to norm 1 (paper, C.5, "BPTT-Normalized Gradient")."""

    def factor(self, norm: float) -> float:
        return 1.0 / norm if norm > 0 and math.isfinite(norm) else 1.0


class EMAClipping:
    """Clips the norm at `ratio` times its exponential moving average (paper, C.5: decay 0.9,
    ratio 2; 1.05 in the ablation of Figure 8).

    The average is first updated with the current, unclipped norm, then used. A norm that is not
    finite never enters the average: one NaN would switch the clipping off for good.
    """

    def __init__(self, ratio: float, decay: float) -> None:
        if not ratio > 0:
            raise ValueError(f"clip_ratio={ratio} must be positive")
        if not 0 <= decay < 1:
            raise ValueError(f"clip_decay={decay} must lie in [0, 1)")
        self.ratio = ratio
        self.decay = decay
        self.average: float | None = None

    def factor(self, norm: float) -> float:
        if not math.isfinite(norm):
            return 1.0
        self.average = (
            norm if self.average is None else self.decay * self.average + (1 - self.decay) * norm
        )
        limit = self.ratio * self.average
        return min(1.0, limit / norm) if norm > 0 else 1.0

    def state(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state(self, state: dict[str, Any]) -> None:
        self.average = state["average"]


CLIPPINGS = ("ema", "unit_norm", "none")


def make_clipping(name: str, clip_ratio: float, clip_decay: float) -> Clipping:
    """The clipping called `name`, one of `CLIPPINGS`."""
    if name == "ema":
        return EMAClipping(clip_ratio, clip_decay)
    if name == "unit_norm":
        return UnitNorm()
    if name == "none":
        return NoClipping()
    raise ValueError(f"unknown clipping {name!r}; known: {', '.join(CLIPPINGS)}")
