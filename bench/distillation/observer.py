"""What a run's method is told beside the windows it is asked for (`methods/observations.py`), and
when: each evaluation and each probe once, however often the run is stopped."""

import time
from collections.abc import Callable
from typing import Any

from bench.distillation.process_group import ProcessGroup
from methods import (
    Method,
    Probe,
    StepObservation,
    needs_evaluations,
    needs_inner_gradients,
    observes_probes,
    observes_steps,
)


class Observer:
    """Tells a method what it may look at.

    Attributes:
        needs_evaluations, needs_inner_gradients, observes_steps: what is measured for the method.
        evaluation_observed_at, probed_at: the last outer steps before which the method observed an
            evaluation and a probe; -1: none yet.
        probe_seconds: of the probe before the coming outer step.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self.needs_evaluations = needs_evaluations(method)
        self.needs_inner_gradients = needs_inner_gradients(method)
        self.observes_steps = observes_steps(method)
        self.evaluation_observed_at = self.probed_at = -1
        self.probe_seconds = 0.0

    def evaluation(self, step: int, train_loss: float) -> None:
        """Tell the evaluation before outer step `step`, unless it was told before the run stopped
        and resumed."""
        if needs_evaluations(self.method) and self.evaluation_observed_at < step:
            self.method.observe_evaluation(step, train_loss)
            self.evaluation_observed_at = step

    def probe(self, step: int, make: Callable[[], Probe]) -> None:
        """Make and tell the probe before outer step `step`, if the method asks for it. Others may
        have asked for the window of the step before it is made, as the variance does; so it is made
        by whoever comes first."""
        if not observes_probes(self.method) or self.probed_at >= step:
            return
        started = time.perf_counter()
        if self.method.needs_probe(step):
            self.method.observe_probe(step, make())
            self.probe_seconds = time.perf_counter() - started
        self.probed_at = step

    def share(self, group: ProcessGroup) -> None:
        """Give the other processes the state of the leader's method: it alone has evaluations and
        probes, unlike processors round differently, and all must choose the same window."""
        if self.needs_evaluations or self.observes_steps or observes_probes(self.method):
            state = group.broadcast(self.method.state)
            if not group.is_leader:
                self.method.load_state(state)

    def step(self, step: int, outer_loss: float, observation: StepObservation | None) -> None:
        """Tell an outer step that updated the distilled set."""
        self.method.observe(step, outer_loss)
        if observes_steps(self.method) and observation is not None:
            self.method.observe_step(observation)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the method's own state."""
        names = ("evaluation_observed_at", "probed_at", "probe_seconds")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state()` returned; older checkpoints lack some of it."""
        for name in self.state():
            setattr(self, name, state.get(name, getattr(self, name)))
