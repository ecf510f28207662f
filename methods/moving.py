"""Windows that move along the trajectory when learning stagnates (paper, C.2, Figure 5)."""

import math
import random
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from methods.look import DASH_DOTTED, DASHED, GREEN, ORANGE, Look
from methods.window import SkippingMethod, Window

RULES = ("evaluation_loss", "outer_loss")


class MovingWindow(SkippingMethod, ABC):
    """A window that shifts by its own size whenever the loss stagnates: whenever it has had no new
    best for `patience` outer steps (the paper: 2,000). The paper does not say which loss.

    `rule="evaluation_loss"`, as in the paper's code: the loss on the target images of fresh
    networks trained on the distilled set, at each measurement of the accuracy (`accuracy_every`).
    After a shift the best stays the best of the whole run, and the window has `patience` outer
    steps to improve on it.

    `rule="outer_loss"`, ours, cheaper: the outer loss of every step, smoothed by an exponential
    moving average with decay `smoothing`. After a shift average and best start again, because
    losses at different window ends are different quantities. Any slow improvement at one end then
    keeps the window where it is.

    At the limit of the trajectory the window stays; in both published snapshots of the code the run
    ends there, with a patience of 600 or 2,000 steps. The paper's control for RaT-BPTT: windows of
    the same size that cover the trajectory in order. An outer step costs at most what one of T-BPTT
    does. Short runs need a shorter patience, or the window never moves.
    """

    # Before there was a choice, the outer loss decided.
    options_before: ClassVar[dict[str, Any]] = {
        **SkippingMethod.options_before,
        "rule": "outer_loss",
    }

    def __init__(
        self,
        unroll_length: int,
        window_size: int,
        patience: int = 2000,
        smoothing: float = 0.99,
        rule: str = "outer_loss",
        first: int = 0,
    ) -> None:
        super().__init__(unroll_length, window_size, first)
        if patience < 1:
            raise ValueError(f"patience={patience} must be at least 1 outer step")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing={smoothing} must lie in [0, 1)")
        if rule not in RULES:
            raise ValueError(f"rule={rule} is not one of {', '.join(RULES)}")
        self.patience = patience
        self.smoothing = smoothing
        self.needs_evaluations = rule == "evaluation_loss"
        self.start = self.first_start()
        self.best: float | None = None
        self.average: float | None = None  # outer_loss
        self.steps_without_best = 0  # outer_loss
        self.waiting_since = 0  # evaluation_loss: outer step of the last new best or shift

    @abstractmethod
    def first_start(self) -> int:
        """Where the window begins before its first shift."""

    @abstractmethod
    def shifted_start(self) -> int:
        """Where the window begins after a shift from `self.start`, within the trajectory."""

    def next_window(self, step: int, rng: random.Random) -> Window:
        return Window(self.start, self.start + self.window_size)

    def observe_evaluation(self, step: int, train_loss: float) -> None:
        if math.isfinite(train_loss) and (self.best is None or train_loss < self.best):
            self.best, self.waiting_since = train_loss, step
        elif step - self.waiting_since >= self.patience:
            self.start, self.waiting_since = self.shifted_start(), step

    def observe(self, step: int, outer_loss: float) -> None:
        if self.needs_evaluations or not math.isfinite(outer_loss):
            return  # one NaN would stay in the average until the next shift
        self.average = (
            outer_loss
            if self.average is None
            else self.smoothing * self.average + (1 - self.smoothing) * outer_loss
        )
        if self.best is None or self.average < self.best:
            self.best, self.steps_without_best = self.average, 0
        else:
            self.steps_without_best += 1
        if self.steps_without_best >= self.patience:
            self.start = self.shifted_start()
            self.average, self.best, self.steps_without_best = None, None, 0

    def state(self) -> dict[str, Any]:
        return {
            "start": self.start,
            "best": self.best,
            "average": self.average,
            "steps_without_best": self.steps_without_best,
            "waiting_since": self.waiting_since,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.start = state["start"]
        self.best = state["best"]
        self.average = state["average"]
        self.steps_without_best = state["steps_without_best"]
        self.waiting_since = state.get("waiting_since", 0)  # not in a state of before the rule


class ForwardWindow(MovingWindow):
    """Called "forward moving" in the paper (C.2): starts at the END, moves to the BEGINNING.

    First window: `[unroll_length - window_size, unroll_length)`; each shift lowers its start by
    `window_size`, down to `first`. The words are ambiguous: the paper's published code calls the
    opposite direction "forward". This file follows the paper's text.
    """

    label = "Forward moving"
    look = Look(ORANGE, DASHED, ">")

    def first_start(self) -> int:
        return self.unroll_length - self.window_size

    def shifted_start(self) -> int:
        return max(self.start - self.window_size, self.first)


class BackwardWindow(MovingWindow):
    """Called "backward moving" in the paper (C.2): starts at the BEGINNING, moves to the END.

    First window: `[first, first + window_size)`; each shift raises its start by `window_size`, up
    to `unroll_length - window_size`. On the ambiguity of the words see `ForwardWindow`.
    """

    label = "Backward moving"
    look = Look(GREEN, DASH_DOTTED, "<")

    def first_start(self) -> int:
        return self.first

    def shifted_start(self) -> int:
        return min(self.start + self.window_size, self.unroll_length - self.window_size)
