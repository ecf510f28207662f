"""What a method is: a rule that says through which inner steps the meta-gradient flows."""

import random
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol


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
    """The interface of a method: built as `Class(unroll_length, window_size, **method_options)`.

    A class may also have two attributes for figures and tables: `label`, a string (without one,
    the name of the class is shown), and `look`, a `methods.Look` (without one, figures choose a
    look that no other method of the figure has). Subclasses do not inherit them.

    What a method may look at beside the outer loss is told in `observations.py`. A class whose
    options were not all there from the beginning may have `options_before`: the values of the later
    ones that reproduce what was done before. At these values they stay out of the hash that names a
    run.
    """

    def next_window(self, step: int, rng: random.Random) -> Window:
        """The window of outer step `step`. All randomness comes from `rng`, which is fresh at each
        call and the same for every method at the same seed and step."""
        ...

    def observe(self, step: int, outer_loss: float) -> None:
        """Called with the outer loss after each outer step, for methods that adapt."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: a dict of numbers, strings, None, and lists and
        dicts of them; anything else is refused."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from what `state()` returned."""
        ...


class StatelessMethod:
    """Base of the methods whose windows do not depend on the past: they define `next_window` only.

    Raises:
        ValueError: the window does not fit into the trajectory.
    """

    options_before: ClassVar[dict[str, Any]] = {}

    def __init__(self, unroll_length: int, window_size: int) -> None:
        if window_size < 1:
            raise ValueError(f"window_size={window_size} must be at least 1")
        if window_size > unroll_length:
            raise ValueError(
                f"window_size={window_size} is longer than unroll_length={unroll_length}"
            )
        self.unroll_length = unroll_length
        self.window_size = window_size

    def observe(self, step: int, outer_loss: float) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class SkippingMethod(StatelessMethod):
    """Base of the benchmark's own methods, all of which can leave out the first inner steps: no
    window contains an inner step before `first`. These steps are run all the same.

    The first update of Adam is lr·g/(|g| + eps), nearly a sign, whose derivative is almost a delta
    function at g = 0. A window that contains inner step 0 differentiates through it.

    Raises:
        ValueError: `first` leaves too few inner steps for a window.
    """

    options_before: ClassVar[dict[str, Any]] = {"first": 0}

    def __init__(self, unroll_length: int, window_size: int, first: int = 0) -> None:
        super().__init__(unroll_length, window_size)
        if not 0 <= first <= self.last_first:
            raise ValueError(
                f"first={first} must lie between 0 and {self.last_first}: with a larger one some"
                " window would lack inner steps"
            )
        self.first = first

    @property
    def last_first(self) -> int:
        """The largest `first`: here the latest start of a window of full size."""
        return self.unroll_length - self.window_size
