"""Verdicts: what paired seeds say of a claim, and how sure that is.

A claim is one or more comparisons; the effect of each is a number a seed (the same seed means the
same networks and target batches on both sides, so the two are subtracted seed by seed), and the
claim says in which region the mean effect lies: above a threshold, below one, or within a margin.

- The interval of an effect is, on either side, the wider of the paired t interval and the
  percentile interval of the bootstrap. The first is right for normal differences at any number of
  seeds; the bootstrap alone is far too narrow at 3 to 5 seeds, but follows a skewed distribution.
- *holds*: the 95 % interval of every comparison lies within its region. Both ends have to: for a
  claim that two things are alike these are the two one-sided tests of equivalence, each at 2.5 %.
- *does not hold*: the interval of some comparison lies wholly outside of its region. The level is
  95 % over all of them together (Bonferroni).
- *undecided*: neither, or fewer than 3 seeds. With it stands how many seeds it would need: the
  fewest at which the t test decides with a probability of 80 %, were the effects and spreads seen
  here the true ones.

At a true effect on the very edge of its region, a claim of one comparison gets a wrong verdict of
either kind in at most 2.5 % of repetitions. Nothing is corrected for the number of claims.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.95
POWER = 0.8
MIN_SEEDS = 3
MAX_NEEDED = 1000
RESAMPLES = 2000

Verdict = Literal["holds", "does not hold", "undecided", "not run"]


@dataclass(frozen=True)
class Region:
    """Where a claim says that the mean effect lies: between `low` and `high`."""

    low: float
    high: float

    def inner_distance(self, effect: float) -> float:
        """How far inside the region an effect lies; negative: outside."""
        return min(effect - self.low, self.high - effect)


@dataclass(frozen=True)
class Comparison:
    """What the seeds say of one comparison.

    Attributes:
        name: what is compared.
        effect: mean over seeds; `low` and `high` bound its 95 % interval (NaN below two seeds).
        spread: standard deviation over seeds (NaN below two).
    """

    name: str
    effect: float
    low: float
    high: float
    spread: float
    holds: bool
    fails: bool


@dataclass(frozen=True)
class Decision:
    """A verdict and what it rests on.

    Attributes:
        seeds_needed: None unless undecided; more than `MAX_NEEDED` stands for "not in sight", and 0
            for "not known": one seed has no spread.
    """

    verdict: Verdict
    n: int
    comparisons: list[Comparison]
    seeds_needed: int | None = None

    @property
    def worst(self) -> Comparison:
        """The comparison that speaks least for the claim: the first, as they are sorted."""
        return self.comparisons[0]


def decide(effects: "NDArray", names: Sequence[str], region: Region) -> Decision:
    """The verdict on a claim.

    Args:
        effects: [comparisons, seeds], finite.
        names: of the comparisons.
        region: where the mean of each row should lie.
    """
    comparisons, n = effects.shape
    means = effects.mean(axis=1)
    if n < 2:
        nan = math.nan
        lone = [
            Comparison(name, float(mean), nan, nan, nan, False, False)
            for name, mean in zip(names, means, strict=True)
        ]
        return Decision("undecided", n, _worst_first(lone, region), 0)
    spreads = effects.std(axis=1, ddof=1)
    joint = 1 - (1 - LEVEL) / comparisons
    (low, high), (joint_low, joint_high) = intervals(effects, LEVEL, joint)
    found = [
        Comparison(
            names[k],
            float(means[k]),
            float(low[k]),
            float(high[k]),
            float(spreads[k]),
            holds=bool(low[k] > region.low and high[k] < region.high),
            fails=bool(joint_high[k] < region.low or joint_low[k] > region.high),
        )
        for k in range(comparisons)
    ]
    found = _worst_first(found, region)
    if n >= MIN_SEEDS:
        if all(comparison.holds for comparison in found):
            return Decision("holds", n, found)
        if any(comparison.fails for comparison in found):
            return Decision("does not hold", n, found)
    return Decision("undecided", n, found, _needed(found, region))


def intervals(effects: "NDArray", *levels: float) -> "list[tuple[NDArray, NDArray]]":
    """(lower, upper) ends of the interval of each row's mean, at each of the levels: the wider of
    the t interval and the bootstrap's.

    Args:
        effects: [comparisons, seeds], at least two seeds.
    """
    import numpy as np
    from scipy import stats

    n = effects.shape[1]
    mean = effects.mean(axis=1)
    error = effects.std(axis=1, ddof=1) / math.sqrt(n)
    found, resampled = [], None
    for level in levels:
        resampled = stats.bootstrap(
            (effects,),
            np.mean,
            axis=1,
            confidence_level=level,
            n_resamples=0 if resampled else RESAMPLES,  # the same resamples serve all levels
            bootstrap_result=resampled,
            method="percentile",
            rng=np.random.default_rng(0),  # the same results give the same interval
        )
        half = stats.t.ppf((1 + level) / 2, n - 1) * error
        ends = resampled.confidence_interval
        found.append((np.minimum(mean - half, ends.low), np.maximum(mean + half, ends.high)))
    return found


def _worst_first(comparisons: list[Comparison], region: Region) -> list[Comparison]:
    return sorted(comparisons, key=lambda found: region.inner_distance(found.effect))


def _needed(comparisons: Sequence[Comparison], region: Region) -> int:
    """Seeds that would decide: all comparisons for the claim or, where some effect lies outside of
    its region, the clearest of those against it."""
    outside = [c for c in comparisons if region.inner_distance(c.effect) < 0]
    judged = outside or comparisons
    counts = [seeds_needed(abs(region.inner_distance(c.effect)), c.spread) for c in judged]
    return min(counts) if outside else max(counts)


def seeds_needed(distance: float, spread: float) -> int:
    """The fewest seeds, at least `MIN_SEEDS`, at which a t test at `LEVEL` tells an effect at this
    distance from its bound with a probability of `POWER`; `MAX_NEEDED` + 1 where so many do not.
    """
    for n, quantiles in _quantiles().items():
        if distance > 0 and distance >= quantiles * spread / math.sqrt(n):
            return n
    return MAX_NEEDED + 1


@cache
def _quantiles() -> dict[int, float]:
    """Of t, at `LEVEL` and at `POWER` together, by number of seeds."""
    import numpy as np
    from scipy import stats

    seeds = np.arange(MIN_SEEDS, MAX_NEEDED + 1)
    both = stats.t.ppf((1 + LEVEL) / 2, seeds - 1) + stats.t.ppf(POWER, seeds - 1)
    return dict(zip(seeds.tolist(), both.tolist(), strict=True))
