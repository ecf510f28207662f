"""What a method may look at beside the outer loss: evaluations, outer steps, inner trainings.

Each is optional. A method says that it wants it, and only then is it measured and paid for. All
processes of a run get the state of the leader's method, so that they choose the same window.
"""

from dataclasses import dataclass
from typing import Protocol, TypeGuard

from methods.window import Method, Window


@dataclass(frozen=True)
class StepObservation:
    """An outer step that was made.

    Attributes:
        step: counts from 0.
        outer_loss: of the target batch at θ_stop; the mean over replicas.
        window: of the step.
        gradient_norm: of the whole meta-gradient, before clipping.
        alignment: cosine of the meta-gradient and the outer Adam's mean of those before it (its
            first moment); NaN where one of them is 0, as the mean is before the first update.
        inner_gradient_norms: of the gradient of the inner loss at the inner steps [0, stop), the
            mean over replicas; empty unless the method has `needs_inner_gradients`.
    """

    step: int
    outer_loss: float
    window: Window
    gradient_norm: float
    alignment: float
    inner_gradient_norms: list[float]


@dataclass(frozen=True)
class Probe:
    """An inner training of full length without a meta-gradient: of the network and the batches of
    the coming outer step (of replica 0).

    Attributes:
        inner_gradient_norms: of the gradient of the inner loss at the inner steps [0, N).
        outer_loss: of the target batch of the coming outer step at θ_N.
        accuracy: on the same images, in percent.
    """

    inner_gradient_norms: list[float]
    outer_loss: float
    accuracy: float


class EvaluationObserver(Method, Protocol):
    """A method that also observes how fresh networks do that were trained on the distilled set.

    Attributes:
        needs_evaluations: True; of the class, or of the object where it depends on an option.
            Without it nothing is measured for the method, and nothing has to be paid for.
    """

    needs_evaluations: bool

    def observe_evaluation(self, step: int, train_loss: float) -> None:
        """Called once for each measurement of the accuracy (every `accuracy_every` outer steps),
        before the window of outer step `step` is asked for.

        Args:
            train_loss: mean cross-entropy of the target images that the run distills from, mean
                over the fresh networks; may be infinite or NaN.
        """
        ...


class StepObserver(Method, Protocol):
    """A method that observes more of an outer step than its loss. It may have the attribute
    `needs_inner_gradients = True`, of the class or of the object; these norms are computed without
    a further pass through the network."""

    def observe_step(self, observation: StepObservation) -> None:
        """Called after each outer step that updated the distilled set, after `observe`."""
        ...


class ProbeObserver(Method, Protocol):
    """A method that can ask for probes. A probe takes the time of an inner training, which counts
    among the seconds of the outer step before which it is made."""

    def needs_probe(self, step: int) -> bool:
        """Whether to probe before the window of outer step `step` is asked for."""
        ...

    def observe_probe(self, step: int, probe: Probe) -> None:
        """Called once for each probe."""
        ...


def needs_evaluations(method: Method) -> TypeGuard[EvaluationObserver]:
    """Whether the method observes evaluations."""
    return bool(getattr(method, "needs_evaluations", False))


def observes_steps(method: Method) -> TypeGuard[StepObserver]:
    """Whether the method observes outer steps."""
    return callable(getattr(method, "observe_step", None))


def needs_inner_gradients(method: Method) -> bool:
    """Whether the method observes the norms of the inner gradients of outer steps."""
    return observes_steps(method) and bool(getattr(method, "needs_inner_gradients", False))


def observes_probes(method: Method) -> TypeGuard[ProbeObserver]:
    """Whether the method may ask for probes."""
    return callable(getattr(method, "needs_probe", None))


def missing_observer(method: Method) -> str:
    """What a method says that it needs and cannot observe; empty where nothing is missing."""
    if needs_evaluations(method) and not callable(getattr(method, "observe_evaluation", None)):
        return "needs evaluations and lacks observe_evaluation"
    if observes_probes(method) and not callable(getattr(method, "observe_probe", None)):
        return "needs probes and lacks observe_probe"
    if getattr(method, "needs_inner_gradients", False) and not observes_steps(method):
        return "needs inner gradients and lacks observe_step"
    return ""
