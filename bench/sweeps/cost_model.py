"""A model of the cost of a run, in seconds and bytes: a sum of parts that are linear in the inner
steps, so that a few short measurements predict the cost of many steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Steps:
    """The inner steps of one outer step.

    Attributes:
        warm_up: steps before the window.
        window: steps in the window.
        kept: those of the window whose activations are kept for the backward pass.
    """

    warm_up: int
    window: int
    kept: int = 0


@dataclass(frozen=True)
class Linear:
    """A cost that is linear in the inner steps: a constant part, and what one step of each kind
    adds. A kept step may add less than nothing: it takes memory and saves time."""

    constant: float = 0.0
    warm_up: float = 0.0
    window: float = 0.0
    kept: float = 0.0

    def at(self, steps: Steps) -> float:
        """The cost of an outer step with so many inner steps."""
        return (
            self.constant
            + self.warm_up * steps.warm_up
            + self.window * steps.window
            + self.kept * steps.kept
        )


def fit(measured: Mapping[Steps, float], least: float = 0.0) -> Linear:
    """The line through a few measurements in which nothing is kept. The first has no warm-up; each
    of the others differs from it in one number.

    Args:
        least: what a step of the window costs at least. Measured differences are noise where steps
            are cheap, and a slope below it, or below 0 for the warm-up, is one of noise.
    """
    (first, base), *others = measured.items()
    warm_up, window = 0.0, least
    for steps, value in others:
        if steps.warm_up:
            warm_up = max((value - base) / steps.warm_up, 0.0)
        else:
            window = max((value - base) / (steps.window - first.window), least)
    return Linear(base - window * first.window, warm_up, window)


@dataclass(frozen=True)
class Trained:
    """A fresh network on the distilled set.

    Attributes:
        step: seconds of one training step.
        measuring: seconds of finding its accuracy on the validation and the test part, and on the
            training part if it selects.
    """

    step: float
    measuring: float

    def seconds(self, networks: int, steps: Sequence[int]) -> float:
        """Of so many networks, measured at each of these numbers of steps."""
        return networks * (max(steps) * self.step + len(steps) * self.measuring)


@dataclass(frozen=True)
class Parts:
    """What the parts of a run cost; the same for all runs that differ only in their windows and in
    how often they do what.

    Attributes:
        step, step_bytes: of an outer step, in seconds and footprint; `kept` adds to both.
        variance, variance_bytes: of a measurement of the variance; None where there is none.
        trained: by network, `arch` first.
        full: on the full training set; None where no scores are asked for.
        evaluation_bytes: largest footprint of an evaluation.
        affordable: inner steps whose activations can be kept.
        data_bytes: of the whole data set in memory, of which nothing else here is a part.
        sees_memory: False where memory cannot be measured: all bytes are 0 then.
        scaled: parts were measured on fewer images than the run takes, for want of time.
        gpu_free_bytes: as in `Estimate`.
    """

    step: Linear
    step_bytes: Linear
    variance: Linear | None
    variance_bytes: Linear | None
    trained: dict[str, Trained]
    full: Trained | None
    evaluation_bytes: float
    affordable: int
    data_bytes: int
    sees_memory: bool
    scaled: bool
    gpu_free_bytes: int | None = None


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        seconds: of the whole run, alone on the machine.
        peak_bytes: memory that it cannot do without: on a CPU that of its process, on a GPU that of
            the GPU. None where it could not be measured.
        shared_bytes: the mapped data set, of which all runs on one machine share one copy.
        spare_bytes: activations that activation_memory=auto keeps beside that where memory is free.
        gpu_free_bytes: what is free on the run's GPU; None on a CPU.
        scaled: it rests on measurements of fewer images than the run takes.
    """

    seconds: float
    peak_bytes: int | None
    shared_bytes: int = 0
    spare_bytes: int = 0
    gpu_free_bytes: int | None = None
    scaled: bool = False


@dataclass(frozen=True)
class Failure:
    """Why there is no estimate.

    Attributes:
        out_of_memory: even the short measurement found too little memory.
    """

    cause: str
    out_of_memory: bool = False
