"""AT-BPTT: windows placed where the inner gradient is large early in the distillation, and small
late in it."""

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

from methods.look import VERMILION, Look
from methods.observations import Probe
from methods.window import SkippingMethod, Window

STAGES = ("early", "middle", "late")
CHECKS_PER_STEP = 0.15  # of the released code, for the first stage


class AutomaticTruncatedBPTT(SkippingMethod):
    """Automatic truncated BPTT (Li et al., NeurIPS 2025, arXiv 2510.04838), after its text.

    Every `probe_every` outer steps a probe gives g_t, the norm of the inner gradient at inner step
    t, and the accuracy on the target batch at the end of the trajectory. Each probe is a check: if
    the accuracy has risen by less than `threshold` points since the last one in `checks` checks in
    a row, the next stage begins. The window is `[start, start + size)`, moved to end within the
    trajectory, with

        p(start) = softmax(g_t / tau)  early,  uniform  in the middle,  softmax(-g_t / tau)  late,
        size = W - radius + 2·radius·η(start),

    W = `window_size`, η(t) in [0, 1] the rank of |g_t - g_{t-1}| among all inner steps (0 for t=0).

    What the text leaves open is an option: `radius=-1` (d in the paper) stands for a quarter of W,
    as in the published command for CIFAR-10 (10 of 40), and `checks=0` for 15 % of the unroll
    length, the released code's number for its first stage. That code differs from the text. Its
    size follows the gradient in the first stage only, and is W + d and W - d in the others; each
    size is drawn around the one before instead of around W, so that it drifts. Its late stage
    mirrors the early draw (start = N - t - size) instead of drawing small gradients. Its second
    threshold is 1 point, in checks of 12.5 % of N. The accuracy of a check is that of the networks
    at θ_stop, whose stops differ. Its README sets d by `-d`, which its command line refuses
    (`--d`). The paper's low-rank Hessian is not part of this method: gradients here are exact.

    That code also draws a window once an epoch and keeps it for all of its outer steps
    (`window_resample_every=10` comes near), probes other networks than it then trains, and rounds
    sizes down with η = rank/N.

    A probe costs an inner training without differentiation, which counts among the method's
    seconds. At `scale=quick` (n = 5 seeds, grid `adaptive_windows`) no gain over RaT-BPTT is
    certain, with `first=1` (+2.2 points, interval -0.7 to 5.0) or without: prefer RaT-BPTT.

    Attributes:
        stage: index into `STAGES`.
        norms: g_t of the last probe; None before the first.
        accuracy: of the last check; None before the first.
        below: checks in a row below the threshold.
    """

    label = "AT-BPTT"
    look = Look(VERMILION, marker="P")

    def __init__(
        self,
        unroll_length: int,
        window_size: int,
        tau: float = 1.0,
        radius: int = -1,
        threshold: float = 1.5,
        checks: int = 0,
        probe_every: int = 10,
        first: int = 0,
    ) -> None:
        super().__init__(unroll_length, window_size, first)
        self.tau, self.threshold = tau, threshold
        self.radius = checked_radius(radius, window_size, part=4)
        self.checks = checks or max(1, round(CHECKS_PER_STEP * unroll_length))
        self.probe_every = probe_every
        check_positive(tau=tau, checks=self.checks, probe_every=probe_every)
        self.stage, self.below = 0, 0
        self.norms: list[float] | None = None
        self.accuracy: float | None = None

    def needs_probe(self, step: int) -> bool:
        return step % self.probe_every == 0

    def observe_probe(self, step: int, probe: Probe) -> None:
        if all(map(math.isfinite, probe.inner_gradient_norms)):
            self.norms = list(probe.inner_gradient_norms)
        if self.accuracy is not None and self.stage < len(STAGES) - 1:
            risen = probe.accuracy - self.accuracy >= self.threshold
            self.below = 0 if risen else self.below + 1
            if self.below == self.checks:
                self.stage, self.below = self.stage + 1, 0
        self.accuracy = probe.accuracy

    def next_window(self, step: int, rng: random.Random) -> Window:
        if self.norms is None:  # no probe has been finite
            start = rng.randint(self.first, self.unroll_length - self.window_size)
            return Window(start, start + self.window_size)
        (drawn,) = rng.choices(range(self.unroll_length), self.probabilities(self.norms))
        longest = self.unroll_length - self.first
        size = min(sizes(self.window_size, self.radius, ranks(changes(self.norms)))[drawn], longest)
        start = min(drawn, self.unroll_length - size)
        return Window(start, start + size)

    def probabilities(self, norms: Sequence[float]) -> list[float]:
        """Of each inner step to be drawn as the start, before the window is moved to fit."""
        sign = {"early": 1, "middle": 0, "late": -1}[STAGES[self.stage]]
        stop = len(norms)
        if sign == 0:  # every start of a window that fits
            stop -= self.window_size - 1
        logits = [sign * norm / self.tau for norm in norms[self.first : stop]]
        return [0.0] * self.first + softmax(logits) + [0.0] * (len(norms) - stop)

    def state(self) -> dict[str, Any]:
        names = ("stage", "below", "norms", "accuracy")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def checked_radius(radius: int, window_size: int, part: int) -> int:
    """By how much a window's size may differ from `window_size`; -1 stands for this part of it.

    Raises:
        ValueError: a window could have no inner step.
    """
    if not -1 <= radius < window_size:
        raise ValueError(
            f"radius={radius} must lie between 0 and window_size-1={window_size - 1}, or be -1 for"
            f" 1/{part} of window_size"
        )
    return window_size // part if radius == -1 else radius


def check_positive(**options: float) -> None:
    """Check options that must be positive and finite.

    Raises:
        ValueError: one is not.
    """
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value} must be positive and finite")


def changes(norms: Sequence[float]) -> list[float]:
    """|g_t - g_{t-1}|, 0 for t=0."""
    return [0.0, *(abs(b - a) for a, b in itertools.pairwise(norms))]


def ranks(values: Sequence[float]) -> list[float]:
    """The share of the other values that lie below each: in [0, 1]."""
    ordered = sorted(values)
    return [ordered.index(value) / max(len(values) - 1, 1) for value in values]


def sizes(window_size: int, radius: int, shares: Sequence[float]) -> list[int]:
    """`window_size` - radius + 2·radius·share for each share in [0, 1], rounded."""
    return [round(window_size - radius + 2 * radius * share) for share in shares]


def softmax(logits: Sequence[float]) -> list[float]:
    """Their exponentials, as parts of the sum."""
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    return [weight / sum(weights) for weight in weights]
