"""SNR-BPTT, ours: random windows, more often where a meta-gradient is worth its time."""

import itertools
import math
import random
from typing import Any

from methods.look import GREEN, SOLID, Look
from methods.observations import StepObservation
from methods.window import SkippingMethod, Window


class SignalToNoiseBPTT(SkippingMethod):
    """RaT-BPTT whose windows are drawn in proportion to the signal-to-noise ratio per cost that was
    measured for them during the run, with a floor of uniform sampling. Ours.

    The possible starts are divided into `bins` ranges of nearly equal size. Each outer step tells
    the norm n of the meta-gradient and its cosine a to the mean of the gradients before it (Adam's
    first moment): the part of it that goes where the optimisation goes. Of each range,

        SNR = (mean of a·n)² / mean of n²,     0 where the mean of a·n is negative,

    with exponential means of decay `decay` over its own steps. It lies in [0, 1]: 1 if all
    meta-gradients are equal, about 0 if nothing but noise. The cost of a window that starts at s is
    s + `window_cost`·window_size inner training steps (a step that is differentiated through takes
    about four times as long as one that is not; `python -m bench.speed` measures it). A range that
    has not been drawn yet counts as the best. With `floor` the share of uniform draws,

        p(range) = floor·|range|/Σ|range| + (1 - floor)·|range|·SNR/cost / Σ(|range|·SNR/cost),

    and within a range all starts are equally likely. Costs are counted, not timed: measured seconds
    would make a run depend on the machine and on what else it does. It costs what RaT-BPTT does for
    the same windows. Not tuned. At `scale=quick` it ends 1.4 points above RaT-BPTT if both have
    `first=1`, and 4 points below BPTT; with inner step 0 no difference is seen (n = 5 seeds, grid
    `adaptive_windows`). Prefer it to RaT-BPTT, with `first=1`, where windows must be short.

    Attributes:
        ranges: the starts of each range.
        signals, powers: the means of a·n and of n²; None before the first step of a range.
    """

    label = "SNR-BPTT"
    look = Look(GREEN, SOLID, "*")

    def __init__(
        self,
        unroll_length: int,
        window_size: int,
        bins: int = 5,
        floor: float = 0.3,
        decay: float = 0.9,
        window_cost: float = 4.0,
        first: int = 0,
    ) -> None:
        super().__init__(unroll_length, window_size, first)
        if bins < 1:
            raise ValueError(f"bins={bins} must be at least 1")
        if not 0 < floor <= 1:
            raise ValueError(f"floor={floor} must lie in (0, 1]: every window must have a chance")
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} must lie in [0, 1)")
        if not 0 < window_cost < float("inf"):
            raise ValueError(f"window_cost={window_cost} must be positive and finite")
        self.floor, self.decay, self.window_cost = floor, decay, window_cost
        starts = range(first, unroll_length - window_size + 1)
        count = min(bins, len(starts))
        edges = [len(starts) * k // count for k in range(count + 1)]
        self.ranges = [starts[a:b] for a, b in itertools.pairwise(edges)]
        self.signals: list[float | None] = [None] * count
        self.powers: list[float | None] = [None] * count

    def next_window(self, step: int, rng: random.Random) -> Window:
        (starts,) = rng.choices(self.ranges, self.probabilities())
        start = rng.choice(starts)
        return Window(start, start + self.window_size)

    def probabilities(self) -> list[float]:
        """Of each range."""
        worths = [self.worth(k) for k in range(len(self.ranges))]
        best = max((worth for worth in worths if worth is not None), default=0.0)
        weights = [
            len(starts) * (best if worth is None else worth)
            for starts, worth in zip(self.ranges, worths, strict=True)
        ]
        number, total = sum(map(len, self.ranges)), sum(weights)
        floor = self.floor if total > 0 else 1.0
        return [
            floor * len(starts) / number + (1 - floor) * weight / (total or 1.0)
            for starts, weight in zip(self.ranges, weights, strict=True)
        ]

    def worth(self, k: int) -> float | None:
        """The signal-to-noise ratio of a range over its cost; None before its first step."""
        signal, power = self.signals[k], self.powers[k]
        if signal is None or power is None:
            return None
        starts = self.ranges[k]
        cost = (starts[0] + starts[-1]) / 2 + self.window_cost * self.window_size
        return max(signal, 0.0) ** 2 / power / cost if power > 0 else 0.0

    def observe_step(self, observation: StepObservation) -> None:
        if math.isnan(observation.alignment):
            return  # there was no mean to agree with
        norm, start = observation.gradient_norm, observation.window.start
        k = next(k for k, starts in enumerate(self.ranges) if start in starts)
        self.signals[k] = self.blended(self.signals[k], observation.alignment * norm)
        self.powers[k] = self.blended(self.powers[k], norm**2)

    def blended(self, mean: float | None, value: float) -> float:
        """The exponential mean after one more value."""
        return value if mean is None else self.decay * mean + (1 - self.decay) * value

    def state(self) -> dict[str, Any]:
        return {"signals": list(self.signals), "powers": list(self.powers)}

    def load_state(self, state: dict[str, Any]) -> None:
        self.signals, self.powers = list(state["signals"]), list(state["powers"])
