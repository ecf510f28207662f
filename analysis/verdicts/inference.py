"""Verdicts on claims from paired seeds, with error rates.

A claim is one or more comparisons. The effect of each is one number per seed: the same seed means
the same networks and target batches on both sides, so the two are subtracted seed by seed. The
claim states the region of the mean effect: above a threshold, below one, or within a margin.

- The interval of an effect is, at each end, the wider of the paired t interval and the percentile
  interval of the bootstrap. The t interval is right for normal differences at any number of seeds;
  the bootstrap is far too narrow at 3 to 5 seeds, but follows a skewed distribution.
- *holds*: the 95 % interval of every comparison lies within the region, at both ends. For a claim
  of equality these are the two one-sided tests of equivalence (TOST), each at 2.5 %.
- *does not hold*: the interval of some comparison lies wholly outside the region. The level is 95 %
  over all comparisons of the claim (Bonferroni).
- *undecided*: neither, or fewer than 3 seeds. The number of seeds needed is the smallest at which
  the t intervals of all comparisons decide the claim with a probability of 80 %, if the observed
  effects and spreads were the true ones (`power.py`).

A claim about each outer step, read literally, is a comparison per step: all must hold. With many
steps that is out of reach even of a large lead, so such a claim is also read as: in the region *on
the mean of steps, and at no step significantly outside* (`decide_over_steps`). The mean is taken
seed by seed, so however the steps of a run are correlated, its spread over seeds includes it.
Bonferroni over the steps holds for any correlation. It fails if the mean or some step lies wholly
outside, at 97.5 % each over all means and over all steps; so the seeds needed are those that decide
the means, or the fewer that show a step outside. What `holds` bounds is the error of the
mean: that no step is seen outside does not prove that none is.

If the true effect lies on the edge of the region, a claim with one comparison gets a wrong verdict
of either kind in at most 2.5 % of repetitions.

No verdict is corrected for the number of claims, or for seeds that were added after a look at
fewer. So each has a p value, the smallest error (1 - level) at which it would be the same: after
two looks at 95 % a reader may ask for p < 0.025. `standing` says which verdicts are left by
Holm's correction (Scandinavian Journal of Statistics 6, 1979), after which all of them are right
with a probability of at least 95 %, and by that of Benjamini and Hochberg (Journal of the Royal
Statistical Society B 57, 1995), after which at most 5 % of them are expected to be wrong, if the p
values are independent or positively dependent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from analysis.verdicts.power import Effect, seeds_for
from analysis.verdicts.region import LEVEL, MIN_SEEDS, Region

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2000

Verdict = Literal["holds", "does not hold", "undecided", "not tested", "not run"]


@dataclass(frozen=True)
class Comparison:
    """The effect in one comparison.

    Attributes:
        name: what is compared.
        effect: mean over seeds; `low` and `high` bound its 95 % interval (NaN below two seeds).
        spread: standard deviation over seeds (NaN below two).
        p: two-sided p value of the effect's distance from the nearest edge of the region, on
            whichever side of it; the larger of t test and bootstrap (NaN below two seeds).
    """

    name: str
    effect: float
    low: float
    high: float
    spread: float
    p: float
    holds: bool
    fails: bool


@dataclass(frozen=True)
class StepCount:
    """The measured steps behind a verdict on the mean of steps, over all pairs.

    Attributes:
        inside: steps whose observed effect lies in the claimed region.
        outside: steps whose effect lies significantly outside it.
    """

    total: int
    inside: int
    outside: int


@dataclass(frozen=True)
class Decision:
    """A verdict and its comparisons.

    Attributes:
        p: the smallest error at which the verdict would be the same; None unless it holds or does
            not.
        steps: only of a verdict on the mean of steps.
        seeds_needed: None unless undecided; above `MAX_NEEDED`: not feasible; 0: unknown, because
            one seed has no spread.
    """

    verdict: Verdict
    n: int
    comparisons: list[Comparison]
    p: float | None = None
    seeds_needed: int | None = None
    steps: StepCount | None = None

    @property
    def worst(self) -> Comparison:
        """The one that is shown: the first, as they are sorted."""
        return self.comparisons[0]


def decide(effects: "NDArray", names: Sequence[str], region: Region) -> Decision:
    """The verdict on a claim.

    Args:
        effects: [comparisons, seeds], finite.
        names: of the comparisons.
        region: the claimed region of each row's mean.
    """
    n = effects.shape[1]
    rows = _worst_first(_compared(effects, names, region, 1 - LEVEL), region)
    if n >= MIN_SEEDS:
        if all(comparison.holds for comparison in rows):
            return Decision("holds", n, rows, max(row.p for row in rows))
        if any(comparison.fails for comparison in rows):
            return Decision("does not hold", n, rows, _joint_p(rows, region))
    needed = _needed(rows, region, n, 1 - LEVEL)
    return Decision("undecided", n, rows, seeds_needed=needed)


def decide_over_steps(
    effects: "Sequence[NDArray]",
    names: Sequence[str],
    step_names: Sequence[Sequence[str]],
    region: Region,
) -> Decision:
    """The verdict on a claim about the mean of steps and against each of them.

    Args:
        effects: [steps, seeds] of each pair, finite.
        names: of the pairs.
        step_names: of the steps of each pair.
        region: the claimed region of the mean of each pair, which no step may lie outside.
    """
    import numpy as np

    error = (1 - LEVEL) / 2
    means = np.array([pair.mean(axis=0) for pair in effects])
    each_name = [name for of_pair in step_names for name in of_pair]
    each = _compared(np.concatenate(list(effects)), each_name, region, error)
    against = [step for step in each if step.fails]
    inside = sum(region.inner_distance(step.effect) > 0 for step in each)
    count = StepCount(len(each), inside, len(against))
    rows = _worst_first(_compared(means, names, region, error), region)
    n = means.shape[1]
    if n >= MIN_SEEDS:
        if against or any(row.fails for row in rows):
            of_means, of_steps = _joint_p(rows, region), _joint_p(each, region)
            steps = _worst_first(against, region)
            shown = [*rows, *steps] if of_means <= of_steps else [*steps, *rows]
            p = min(1.0, 2 * min(of_means, of_steps))
            return Decision("does not hold", n, shown, p, steps=count)
        if all(row.holds for row in rows):
            return Decision("holds", n, rows, max(row.p for row in rows), steps=count)
    needed = _needed(rows, region, n, error)
    if needed and inside < len(each):  # the steps that are outside may decide it before
        needed = min(needed, _needed(each, region, n, error))
    return Decision("undecided", n, rows, seeds_needed=needed, steps=count)


def _compared(
    effects: "NDArray", names: Sequence[str], region: Region, error: float
) -> list[Comparison]:
    """The comparison of each row of effects [comparisons, seeds]; `fails` is wrong for any of them
    in at most `error` of repetitions."""
    import numpy as np

    means = effects.mean(axis=1)
    if effects.shape[1] < 2:
        nan = math.nan
        return [
            Comparison(name, float(mean), nan, nan, nan, nan, False, False)
            for name, mean in zip(names, means, strict=True)
        ]
    spreads = effects.std(axis=1, ddof=1)
    resampled = resampled_means(effects)
    levels = LEVEL, 1 - error / len(effects)
    (low, high), (joint_low, joint_high) = intervals(effects, resampled, *levels)
    edges = region.low, region.high
    p = np.max([_p_values(effects, resampled, edge) for edge in edges], axis=0)
    # Below `MIN_SEEDS` nothing is decided.
    few = effects.shape[1] < MIN_SEEDS
    return [
        Comparison(
            names[k],
            float(means[k]),
            float(low[k]),
            float(high[k]),
            float(spreads[k]),
            float(p[k]),
            holds=not few and bool(low[k] > region.low and high[k] < region.high),
            fails=not few and bool(joint_high[k] < region.low or joint_low[k] > region.high),
        )
        for k in range(len(effects))
    ]


def resampled_means(effects: "NDArray") -> "NDArray":
    """[comparisons, RESAMPLES] the means of bootstrap samples of the seeds; the same effects give
    the same samples."""
    import numpy as np
    from scipy import stats

    found = stats.bootstrap(
        (effects,),
        np.mean,
        axis=1,
        n_resamples=RESAMPLES,
        batch=100,  # at a time: the same samples, without gigabytes for many comparisons and seeds
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return found.bootstrap_distribution


def intervals(
    effects: "NDArray", resampled: "NDArray", *levels: float
) -> "list[tuple[NDArray, NDArray]]":
    """(lower, upper) ends of the interval of each row's mean, for each level: the wider of the t
    interval and the percentile interval of the bootstrap.

    Args:
        effects: [comparisons, seeds], at least two seeds.
        resampled: their `resampled_means`.
    """
    import numpy as np
    from scipy import stats

    n = effects.shape[1]
    mean = effects.mean(axis=1)
    error = effects.std(axis=1, ddof=1) / math.sqrt(n)
    pairs = []
    for level in levels:
        half = stats.t.ppf((1 + level) / 2, n - 1) * error
        # Of the means that are there, so that an interval ends at an edge where p says so.
        low = np.quantile(resampled, (1 - level) / 2, axis=1, method="lower")
        high = np.quantile(resampled, (1 + level) / 2, axis=1, method="higher")
        pairs.append((np.minimum(mean - half, low), np.maximum(mean + half, high)))
    return pairs


def _p_values(effects: "NDArray", resampled: "NDArray", edge: float) -> "NDArray":
    """For each row of effects [comparisons, seeds], twice the probability that a mean as far from
    the edge is observed though the true one lies on it: the larger of t test and bootstrap."""
    import numpy as np
    from scipy import stats

    n = effects.shape[1]
    distance = effects.mean(axis=1) - edge
    error = effects.std(axis=1, ddof=1) / math.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Without any spread a distance is certain, and no distance is none.
        steps = np.where(distance == 0, 0.0, np.abs(distance) / error)
    beyond = np.where(distance[:, None] > 0, resampled <= edge, resampled >= edge).mean(axis=1)
    return np.minimum(1.0, 2 * np.maximum(stats.t.sf(steps, n - 1), beyond))


def _joint_p(comparisons: Sequence[Comparison], region: Region) -> float:
    """The error, over all comparisons (Bonferroni), at which the clearest of those outside the
    region is still outside; 1 if none is."""
    outside = [one.p for one in comparisons if region.inner_distance(one.effect) < 0]
    return min([1.0, *(len(comparisons) * p for p in outside)])


def standing(decisions: Sequence[Decision]) -> tuple[list[float], list[float]]:
    """The p values of the verdicts that are left at 5 % over all decisions with `MIN_SEEDS`, the
    smallest first: by Holm's correction, and by Benjamini and Hochberg's."""
    import numpy as np
    from scipy import stats

    judged = [1.0 if one.p is None else one.p for one in decisions if one.n >= MIN_SEEDS]
    if not judged:
        return [], []
    p = np.sort(judged)
    exceeded = p > (1 - LEVEL) / np.arange(len(p), 0, -1)
    holm = np.argmax(exceeded) if exceeded.any() else len(p)
    discovered = stats.false_discovery_control(p) <= 1 - LEVEL
    return p[:holm].tolist(), p[discovered].tolist()


def _worst_first(comparisons: list[Comparison], region: Region) -> list[Comparison]:
    """Those that do not hold, the clearest first; those without a verdict, by their mean; those
    that hold, the least certain first. So the first is the one that the verdict on the claim rests
    on, and its p value is that of the claim, up to the correction for all of its comparisons."""

    def order(one: Comparison) -> float:
        if one.fails or one.holds:
            return one.p if one.fails else -one.p
        return region.inner_distance(one.effect)

    return sorted(comparisons, key=lambda one: (not one.fails, one.holds, order(one)))


def _needed(comparisons: Sequence[Comparison], region: Region, n: int, error: float) -> int:
    """Seeds that would decide, more than the `n` that did not; 0 if there is no spread to tell it
    from. `error` is that of "does not hold", over all comparisons."""
    if any(math.isnan(one.spread) for one in comparisons):
        return 0
    effects = [Effect(one.effect, one.spread) for one in comparisons]
    return max(n + 1, seeds_for(effects, region, error))
