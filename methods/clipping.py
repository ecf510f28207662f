"""What is done to a meta-gradient before it updates the distilled set.

A clipping takes the norm of the part of the meta-gradient that is limited and returns the factor
that this part is multiplied by. The part is the gradient of the images, as in the paper's published
code, which never clips that of learned labels; or, with `clipped=all`, both together. `CLIPPINGS`
lists all clippings.
"""

import math
from typing import Any


class Clipping:
    """The interface, built as `Class(clip_ratio, clip_decay)`. One without a state defines `factor`
    only."""

    def __init__(self, clip_ratio: float, clip_decay: float) -> None:
        """Each subclass uses the settings that it needs."""

    def factor(self, norm: float) -> float:
        """The number that a gradient of norm `norm` is multiplied by."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from what `state()` returned."""


class NoClipping(Clipping):
    """Leaves the gradient as it is: for gradients that are known to be stable."""

    def factor(self, norm: float) -> float:
        return 1.0


class UnitNorm(Clipping):
    """Scales every gradient to norm 1 (paper, C.5, "BPTT-Normalized Gradient")."""

    def factor(self, norm: float) -> float:
        return 1.0 / norm if norm > 0 and math.isfinite(norm) else 1.0


class EmaClipping(Clipping):
    """Limits the norm to `clip_ratio` times its exponential moving average. The paper's choice:
    decay 0.9, ratio 2 (C.5); 1.05 in the ablation of Figure 8.

    The average is first updated with the current, unclipped norm, then used. A norm that is not
    finite never enters the average: one NaN would switch the clipping off for good.
    """

    def __init__(self, clip_ratio: float, clip_decay: float) -> None:
        if not clip_ratio > 0:
            raise ValueError(f"clip_ratio={clip_ratio} must be positive")
        if not 0 <= clip_decay < 1:
            raise ValueError(f"clip_decay={clip_decay} must lie in [0, 1)")
        self.ratio = clip_ratio
        self.decay = clip_decay
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


CLIPPINGS: dict[str, type[Clipping]] = {
    "ema": EmaClipping,
    "unit_norm": UnitNorm,
    "none": NoClipping,
}


def make_clipping(name: str, clip_ratio: float, clip_decay: float) -> Clipping:
    """The clipping called `name` in `CLIPPINGS`, in its initial state.

    Raises:
        ValueError: an unknown name, or a setting out of its range.
    """
    if name not in CLIPPINGS:
        raise ValueError(f"unknown clipping {name!r}; known: {', '.join(CLIPPINGS)}")
    return CLIPPINGS[name](clip_ratio, clip_decay)
