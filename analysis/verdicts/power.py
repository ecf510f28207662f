"""The power of a claim: how probably n seeds give it the verdict that a true effect implies.

The effect of a comparison is taken as normal over seeds, and the rule as that of `inference.py`
with its t intervals; the bootstrap interval, which only widens them, is left out. Comparisons of
one claim are taken as independent. `tests/analysis/test_power.py` compares it with simulation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from analysis.verdicts.region import LEVEL, MAX_NEEDED, MIN_SEEDS, POWER, Region

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILES = 2000  # of the standard deviation that is observed


@dataclass(frozen=True)
class Effect:
    """A true effect; `mean` and `spread` (the standard deviation over seeds) in the claim's unit,
    logarithms for factors."""

    mean: float
    spread: float


def power(effects: Sequence[Effect], region: Region, seeds: int, error: float = 1 - LEVEL) -> float:
    """The probability of "holds" if all effects lie in the region, of "does not hold" if one lies
    outside, where each comparison of the claim has one of these effects.

    Args:
        error: of "does not hold", over all comparisons.

    Returns:
        A probability; 0 below `MIN_SEEDS` seeds, which give no verdict.
    """
    if seeds < MIN_SEEDS:
        return 0.0
    if all(region.inner_distance(effect.mean) > 0 for effect in effects):
        return math.prod(_within(effect, region, seeds) for effect in effects)
    joint = 1 - error / len(effects)
    return 1 - math.prod(1 - _outside(effect, region, seeds, joint) for effect in effects)


def seeds_for(effects: Sequence[Effect], region: Region, error: float = 1 - LEVEL) -> int:
    """The fewest seeds with a power of `POWER`; `MAX_NEEDED` + 1 if those are not enough."""
    low, high = MIN_SEEDS, MAX_NEEDED + 1  # the power rises with the number of seeds
    while low < high:
        middle = (low + high) // 2
        if power(effects, region, middle, error) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low


def detectable(spread: float, seeds: int, wanted: float = POWER) -> float:
    """The smallest distance of an effect from the one edge of its region that these seeds decide
    with this probability; infinite below `MIN_SEEDS` seeds."""
    if seeds < MIN_SEEDS:
        return math.inf
    region, low, high = Region(0.0, math.inf), 0.0, 100 * spread
    for _ in range(40):
        middle = (low + high) / 2
        if power([Effect(middle, spread)], region, seeds) >= wanted:
            high = middle
        else:
            low = middle
    return high


def _within(effect: Effect, region: Region, seeds: int, level: float = LEVEL) -> float:
    """The probability that the t interval of a comparison lies within a region: of the normal mean
    for each standard deviation that may be observed, averaged over these (chi distribution)."""
    import numpy as np
    from scipy.special import ndtr

    spread = max(effect.spread, 1e-300)  # without any, a distance decides surely
    half = _half_widths(seeds, level) * spread
    error = spread / math.sqrt(seeds)
    highest = ndtr((region.high - effect.mean - half) / error)
    lowest = ndtr((region.low - effect.mean + half) / error)
    return float(np.maximum(highest - lowest, 0).mean())


@cache
def _half_widths(seeds: int, level: float) -> "NDArray":
    """[QUANTILES] half the width of the t interval, in standard deviations over seeds."""
    import numpy as np
    from scipy import stats

    probabilities = (np.arange(QUANTILES) + 0.5) / QUANTILES
    observed = np.sqrt(stats.chi2.ppf(probabilities, seeds - 1) / (seeds - 1))
    return stats.t.ppf((1 + level) / 2, seeds - 1) * observed / math.sqrt(seeds)


def _outside(effect: Effect, region: Region, seeds: int, level: float) -> float:
    """The probability that the t interval of a comparison lies wholly outside the region."""
    below, above = Region(-math.inf, region.low), Region(region.high, math.inf)
    return sum(
        _within(effect, side, seeds, level)
        for side in (below, above)
        if side.low < math.inf and side.high > -math.inf
    )
