"""AT-BPTT++: a policy over the ends of windows that follows the norms of the inner gradient."""

import math
import random
from typing import Any

from methods.automatic_truncated import (
    changes,
    check_positive,
    checked_radius,
    sizes,
    softmax,
)
from methods.look import DASHED, VERMILION, Look
from methods.observations import Probe
from methods.window import SkippingMethod, Window

EPS = 1e-8


class PolicyTruncatedBPTT(SkippingMethod):
    """AT-BPTT++ (at-bptt-plus, released code of 2026, class `WTPOSelector`; no paper yet): the
    choice of windows only.

    Each probe (every `probe_every` outer steps; in that code every step) gives g_t, the norm of the
    inner gradient at inner step t. With A_t and C_t the values of g_t and of |g_t - g_{t-1}|,
    standardized over the trajectory (C_0 from a change of 0), and m the mean of g,

        β = 2·(m - m_min)/(m_max - m_min) - 1   over all probes so far, 1 at the first
        policy = softmax(log ref + β·A/kl)
        ref ← (1 - ref_rate)·ref + ref_rate·policy,   uniform at the start,

    over the inner steps from `first` on.

    The last inner step of the window, t, is drawn from the policy. The window is
    `[t + 1 - size, t + 1)`, shortened where it would begin before `first`, with

        size = W - radius + 2·radius·sigmoid(C_t / tau),   W = `window_size`.

    `radius=-1` (the default) stands for a third of W, as in the published commands (20 of 60). That
    code also replaces the meta-gradient by a low-rank part of itself, refreshed now and then
    (`CacheRefreshLRHA`). This is left out: it changes the gradient, not the window.

    A probe costs an inner training without differentiation, which counts among the method's
    seconds. At `scale=quick` (n = 5 seeds, grid `adaptive_windows`) it ends 2.3 points above
    RaT-BPTT if both have `first=1`, and no gain is seen with inner step 0. It makes a probe before
    every outer step: prefer it where probes are cheap beside windows.

    Attributes:
        policy, reference: probabilities of each inner step.
        change: C_t of the last probe; None before the first.
        lowest, highest: of m so far; None before the first probe.
    """

    label = "AT-BPTT++"
    look = Look(VERMILION, DASHED, "X")

    def __init__(
        self,
        unroll_length: int,
        window_size: int,
        tau: float = 1.0,
        radius: int = -1,
        kl: float = 1.0,
        ref_rate: float = 0.05,
        probe_every: int = 1,
        first: int = 0,
    ) -> None:
        super().__init__(unroll_length, window_size, first)
        self.radius = checked_radius(radius, window_size, part=3)
        self.tau, self.kl, self.ref_rate, self.probe_every = tau, kl, ref_rate, probe_every
        check_positive(tau=tau, kl=kl, probe_every=probe_every)
        if not 0 <= ref_rate <= 1:
            raise ValueError(f"ref_rate={ref_rate} must lie in [0, 1]")
        ends = unroll_length - first
        self.policy = self.reference = [0.0] * first + [1 / ends] * ends
        self.change: list[float] | None = None
        self.lowest: float | None = None
        self.highest: float | None = None

    def needs_probe(self, step: int) -> bool:
        return step % self.probe_every == 0

    def observe_probe(self, step: int, probe: Probe) -> None:
        norms = probe.inner_gradient_norms
        if not all(map(math.isfinite, norms)):
            return
        beta = self.updated_beta(math.fsum(norms) / len(norms))
        advantages = standardized(norms)
        logits = [
            math.log(max(reference, EPS)) + beta * advantage / self.kl
            for reference, advantage in zip(self.reference, advantages, strict=True)
        ]
        self.policy = [0.0] * self.first + softmax(logits[self.first :])
        self.reference = [
            (1 - self.ref_rate) * reference + self.ref_rate * probability
            for reference, probability in zip(self.reference, self.policy, strict=True)
        ]
        self.change = standardized(changes(norms))

    def updated_beta(self, mean: float) -> float:
        """β of the probe with this mean norm, which from now on belongs to the range."""
        if self.lowest is None or self.highest is None:
            self.lowest = self.highest = mean
            return 1.0
        self.lowest, self.highest = min(self.lowest, mean), max(self.highest, mean)
        span = self.highest - self.lowest
        return 2 * (mean - self.lowest) / (span + EPS) - 1 if span >= EPS else 1.0

    def next_window(self, step: int, rng: random.Random) -> Window:
        (last,) = rng.choices(range(self.unroll_length), self.policy)
        change = 0.0 if self.change is None else self.change[last]
        (size,) = sizes(self.window_size, self.radius, [sigmoid(change / self.tau)])
        return Window(max(self.first, last + 1 - size), last + 1)

    def state(self) -> dict[str, Any]:
        names = ("policy", "reference", "change", "lowest", "highest")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def standardized(values: list[float]) -> list[float]:
    """Minus their mean, over their standard deviation (of the population)."""
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return [(value - mean) / (deviation + EPS) for value in values]


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), for any value."""
    return 0.5 * (1 + math.tanh(value / 2))
