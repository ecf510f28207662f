"""What a method is: a rule that says through which inner steps the gradient flows."""

import random
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Window:
    """The inner steps `[start, stop)` that the meta-gradient flows through.

    Steps `[0, start)` are the warm-up: run, not differentiated. The outer loss is taken at θ_stop.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a window needs 0 <= start < stop, not [{self.start}, {self.stop})")

    @property
    def size(self) -> int:
        return self.stop - self.start


class Method(Protocol):
    """The interface of a method: built as `Class(unroll_length, window_size, **method_options)`."""

    def next_window(self, step: int, rng: random.Random) -> Window:
        """The window of outer step `step`. All randomness comes from `rng`, which is fresh at each
        call and the same for every method at the same seed and step."""
        ...

    def observe(self, step: int, outer_loss: float) -> None:
        """Told the outer loss after each outer step; only methods that adapt care."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: a dict of numbers, strings and None."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state()` returned."""
        ...


class StatelessMethod:
    """Base of the methods that neither adapt nor remember: they implement `next_window` only."""

    def __init__(self, unroll_length: int, window_size: int) -> None:
        if not 1 <= window_size <= unroll_length:
            raise ValueError(
                f"window_size={window_size} is longer than unroll_length={unroll_length}"
                if window_size > unroll_length
                else f"window_size={window_size} must be at least 1"
            )
        self.unroll_length = unroll_length
        self.window_size = window_size

    def observe(self, step: int, outer_loss: float) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass
