"""What a run does about outer steps whose loss or meta-gradient is not finite.

Such a step never updates the distilled set, the outer optimizer, the clipping average or the
method. `not_finite` says what follows:

    skip      the run goes on with the next step; after more than 50 of them in a row it has
              diverged
    stop      the run has diverged
    restore   the run goes back to the distilled set of up to 100 outer steps before, with all that
              belongs to it, and goes on from there with the coming networks and batches; at the
              11th time it has diverged

A distilled set that is not finite itself is never evaluated: with `restore` the run goes back, else
it has diverged.
"""

import copy
from collections.abc import Callable
from typing import Any

State = dict[str, Any]

MAX_STEPS_NOT_FINITE = 50
MAX_RESTORATIONS = 10
STEPS_BETWEEN_COPIES = 100


class Diverged(RuntimeError):
    """Losses, meta-gradients or the distilled set are not finite, and going on is of no use."""


class DivergenceGuard:
    """Follows the outer steps of one run.

    Args:
        policy: the setting `not_finite`.

    Attributes:
        steps_not_finite: in a row, up to the last step.
        restorations: how often the run went back.
        copy: what it would go back to; None except with `restore`.
    """

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.steps_not_finite = self.restorations = 0
        self.copy: State | None = None

    def before(self, step: int, state: Callable[[], State], is_finite: Callable[[], bool]) -> None:
        """Keep a copy of the state from time to time."""
        if self.policy == "restore" and step % STEPS_BETWEEN_COPIES == 0 and is_finite():
            self.copy = copy.deepcopy(state())

    def after(self, step: int, step_is_finite: bool, is_finite: Callable[[], bool]) -> State | None:
        """What to go back to after outer step `step`; None: nothing.

        Args:
            is_finite: whether the distilled set is finite.

        Raises:
            Diverged: the run should end.
        """
        if step_is_finite:
            self.steps_not_finite = 0
            return None
        self.steps_not_finite += 1
        if self.policy == "restore" and self.copy is not None:
            self.restorations += 1
            if self.restorations > MAX_RESTORATIONS:
                raise Diverged(
                    f"outer step {step} is not finite, after {MAX_RESTORATIONS} restorations"
                )
            return copy.deepcopy(self.copy)
        if self.policy == "stop":
            raise Diverged(f"outer step {step}: loss or meta-gradient is not finite")
        if not is_finite():
            raise Diverged(f"the distilled set is not finite before outer step {step}")
        if self.steps_not_finite > MAX_STEPS_NOT_FINITE:
            raise Diverged(
                f"{self.steps_not_finite} meta-gradients in a row were not finite"
                f" (up to outer step {step})"
            )
        return None

    def state(self) -> State:
        """For a checkpoint."""
        return {
            "steps_not_finite": self.steps_not_finite,
            "restorations": self.restorations,
            "copy": self.copy,
        }

    def load_state(self, state: State) -> None:
        """Continue from what `state()` returned, also of a version without policies."""
        self.steps_not_finite = state["steps_not_finite"]
        self.restorations, self.copy = state.get("restorations", 0), state.get("copy")
