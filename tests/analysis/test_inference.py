"""That verdicts are right as often as they say: on effects that are known."""

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.verdicts.inference import (
    Decision,
    Verdict,
    decide,
    decide_over_steps,
    intervals,
    resampled_means,
    standing,
)
from analysis.verdicts.power import Effect, seeds_for
from analysis.verdicts.region import Region

ABOVE_ZERO = Region(0.0, math.inf)
ALIKE = Region(-1.0, 1.0)
REPETITIONS = 200
# Three standard deviations above 5 %: what a rate of 5 % shows in 200 repetitions.
MOST = 0.05 + 3 * math.sqrt(0.05 * 0.95 / REPETITIONS)


def one(effects: list[float], region: Region = ABOVE_ZERO) -> Decision:
    return decide(np.array([effects]), ["a / b"], region)


def rates(
    region: Region, seeds: int, *, mean: float, comparisons: int = 1, skewed: bool = False
) -> dict[Verdict, float]:
    """How often each verdict is given, over simulated results whose true mean effect is known and
    whose standard deviation is 1."""
    rng = np.random.default_rng(7)
    counts: dict[Verdict, float] = {"holds": 0.0, "does not hold": 0.0, "undecided": 0.0}
    for _ in range(REPETITIONS):
        shape = (comparisons, seeds)
        noise = rng.exponential(size=shape) - 1 if skewed else rng.standard_normal(shape)
        verdict = decide(mean + noise, ["x"] * comparisons, region).verdict
        counts[verdict] += 1 / REPETITIONS
    return counts


@pytest.mark.parametrize("seeds", [3, 5, 20])
def test_without_an_effect_a_verdict_is_as_rare_as_stated(seeds: int) -> None:
    found = rates(ABOVE_ZERO, seeds, mean=0.0)
    assert 0 < found["holds"] + found["does not hold"] < MOST


def test_skewed_differences_leave_the_rate_near_the_stated_one() -> None:
    found = rates(ABOVE_ZERO, 20, mean=0.0, skewed=True)
    assert 0 < found["holds"] + found["does not hold"] < 0.05 + MOST


def test_many_comparisons_do_not_make_a_claim_fail_more_often() -> None:
    found = rates(ABOVE_ZERO, 5, mean=0.0, comparisons=12)
    assert found["does not hold"] < MOST
    assert found["holds"] < MOST


@pytest.mark.parametrize(("mean", "verdict"), [(2.0, "holds"), (-2.0, "does not hold")])
def test_a_large_effect_is_found_in_either_direction(mean: float, verdict: Verdict) -> None:
    assert rates(ABOVE_ZERO, 10, mean=mean)[verdict] > 0.95


def test_alike_needs_both_ends_within_the_margin() -> None:
    # At the edge of the margin "alike" is a false verdict, within it a right one.
    assert rates(ALIKE, 10, mean=1.0)["holds"] < MOST
    assert rates(ALIKE, 60, mean=0.0)["holds"] > 0.95
    assert rates(ALIKE, 10, mean=4.0)["does not hold"] > 0.95
    # Not seeing a difference is no proof of there being none.
    assert rates(ALIKE, 3, mean=0.0)["holds"] < 0.2
    lopsided = one([0.3, 0.5, 0.7, 0.9, 1.1])
    assert lopsided.verdict == "holds"  # above zero, but not within the margin:
    assert one([0.3, 0.5, 0.7, 0.9, 1.1], ALIKE).verdict == "undecided"


def test_one_or_two_seeds_never_decide() -> None:
    single = one([1000.0])
    assert (single.verdict, single.n, single.seeds_needed) == ("undecided", 1, 0)
    assert math.isnan(single.worst.low)
    pair = one([1000.0, 1000.0001])
    assert (pair.verdict, pair.seeds_needed) == ("undecided", 3)
    assert pair.worst.low > 0
    assert not pair.worst.holds  # or "1 of 1 hold" would stand beside "undecided"


def test_the_interval_is_the_wider_of_t_and_bootstrap() -> None:
    effects = np.array([[1.0, 2.0, 4.0, 9.0]])
    [((low,), (high,))] = intervals(effects, resampled_means(effects), 0.95)
    t = stats.t.interval(0.95, 3, effects.mean(), stats.sem(effects[0]))
    assert (low, high) == pytest.approx(t)  # at 4 seeds
    rng = np.random.default_rng(0)
    skewed = rng.exponential(size=(1, 40)) ** 3
    [((low,), (high,))] = intervals(skewed, resampled_means(skewed), 0.95)
    t = stats.t.interval(0.95, 39, skewed.mean(), stats.sem(skewed[0]))
    assert low == pytest.approx(t[0])
    assert high > t[1] + 0.01  # the long tail


def test_equal_results_are_alike_and_not_above() -> None:
    assert one([0.0, 0.0, 0.0], ALIKE).verdict == "holds"
    assert one([0.0, 0.0, 0.0]).verdict == "undecided"
    assert one([2.0, 2.0, 2.0]).verdict == "holds"


def test_the_comparison_that_speaks_least_for_the_claim_comes_first() -> None:
    effects = np.array([[5.0, 5.1, 5.2], [-9.0, -9.1, -9.2], [1.0, 1.1, 1.2]])
    found = decide(effects, ["a", "b", "c"], ABOVE_ZERO)
    assert found.verdict == "does not hold"
    assert [comparison.name for comparison in found.comparisons] == ["b", "c", "a"]
    assert [comparison.holds for comparison in found.comparisons] == [False, True, True]


def test_the_comparison_that_comes_first_has_the_verdict_of_the_claim() -> None:
    clear, unclear = [0.5, 0.51, 0.52], [9.0, -1.0, 2.0]  # of means 0.51 and 3.3
    found = decide(np.array([clear, unclear]), ["clear", "unclear"], ABOVE_ZERO)
    assert found.verdict == "undecided"
    assert found.worst.name == "unclear"
    against, lower = [-0.5, -0.51, -0.52], [-9.0, 1.0, -2.0]
    found = decide(np.array([lower, against]), ["lower", "against"], ABOVE_ZERO)
    assert found.verdict == "does not hold"
    assert found.worst.name == "against"


def test_the_comparison_that_comes_first_has_the_p_value_of_the_claim() -> None:
    certain, wide = [0.5, 0.51, 0.52], [6.5, 5.0, 6.0]  # the mean of the first is smaller
    found = decide(np.array([certain, wide]), ["certain", "wide"], ABOVE_ZERO)
    assert found.verdict == "holds"
    assert (found.worst.name, found.p) == ("wide", found.worst.p)
    found = decide(-np.array([wide, certain]), ["wide", "certain"], ABOVE_ZERO)
    assert found.verdict == "does not hold"
    assert (found.worst.name, found.p) == ("certain", 2 * found.worst.p)


def test_an_undecided_claim_needs_more_seeds_than_it_has() -> None:
    # One comparison like this would need three seeds; at the level of forty each needs four.
    outside = np.array([[-1.0, -1.05, -0.9]] * 40)
    found = decide(outside, ["outside"] * 40, ABOVE_ZERO)
    assert found.verdict == "undecided"
    assert found.seeds_needed == 4
    assert seeds_for([Effect(-0.98, float(outside[0].std(ddof=1)))], ABOVE_ZERO) == 3


def standardized(seeds: int) -> np.ndarray:
    """Noise with exactly mean 0 and standard deviation 1."""
    noise = np.random.default_rng(1).standard_normal(seeds)
    return (noise - noise.mean()) / noise.std(ddof=1)


@pytest.mark.parametrize("comparisons", [1, 3])
@pytest.mark.parametrize(("region", "mean"), [(ABOVE_ZERO, 1.0), (ALIKE, 0.0), (ALIKE, 0.2)])
def test_seeds_needed_decide_with_the_stated_probability(
    region: Region, mean: float, comparisons: int
) -> None:
    found = decide(np.array([mean + standardized(4)] * comparisons), ["x"] * comparisons, region)
    assert found.verdict == "undecided"
    assert found.seeds_needed is not None
    rate = rates(region, found.seeds_needed, mean=mean, comparisons=comparisons)["holds"]
    assert abs(rate - 0.82) < 3 * math.sqrt(
        0.8 * 0.2 / REPETITIONS
    )  # whole seeds: often above 80 %


def test_a_claim_with_an_effect_outside_needs_the_seeds_that_show_it() -> None:
    hard = 0.5 + standardized(6)
    found = decide(np.array([hard, -hard - 0.3]), ["for", "against"], ABOVE_ZERO)
    effects = [Effect(0.5, 1.0), Effect(-0.8, 1.0)]
    needed = seeds_for(effects, ABOVE_ZERO)
    # On the mean of steps, "does not hold" has half of the error.
    over_mean = seeds_for(effects, ABOVE_ZERO, 0.025)
    steps = over_steps([hard[None], -hard[None] - 0.3])
    assert (found.seeds_needed, steps.seeds_needed) == (needed, over_mean)
    assert over_mean > needed


# --- on the mean of steps, and at no step significantly outside


def correlated(rng: np.random.Generator, steps: int, seeds: int, correlation: float) -> np.ndarray:
    """Noise [steps, seeds] of standard deviation 1, correlated between the steps of a seed: a
    first-order autoregression."""
    noise = np.empty((steps, seeds))
    noise[0] = rng.standard_normal(seeds)
    for step in range(1, steps):
        fresh = math.sqrt(1 - correlation**2) * rng.standard_normal(seeds)
        noise[step] = correlation * noise[step - 1] + fresh
    return noise


def over_steps(effects: list[np.ndarray], region: Region = ABOVE_ZERO) -> Decision:
    names = [f"pair {k}" for k in range(len(effects))]
    steps = [
        [f"{name}, {t}" for t in range(len(e))] for name, e in zip(names, effects, strict=True)
    ]
    return decide_over_steps(effects, names, steps, region)


@pytest.mark.parametrize("correlation", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("seeds", [3, 5, 20])
def test_steps_without_an_effect_get_a_verdict_as_rarely_as_stated(
    seeds: int, correlation: float
) -> None:
    rng = np.random.default_rng(3)
    found = [
        over_steps([correlated(rng, 20, seeds, correlation) for _ in range(2)]).verdict
        for _ in range(REPETITIONS)
    ]
    assert found.count("holds") < MOST * REPETITIONS / 2 + 3  # at most 2.5 %
    assert found.count("holds") + found.count("does not hold") < MOST * REPETITIONS


def test_a_lead_at_every_step_is_seldom_called_a_failure_by_its_worst_step() -> None:
    # The smallest true lead that is one: nothing at most steps, so that each may fail by chance.
    rng = np.random.default_rng(4)
    lead = np.zeros((100, 1))
    lead[:30] = 4.0
    found = [over_steps([lead + correlated(rng, 100, 5, 0.5)]) for _ in range(REPETITIONS)]
    assert sum(one.verdict == "does not hold" for one in found) < MOST * REPETITIONS
    assert sum(one.verdict == "holds" for one in found) > 0.9 * REPETITIONS


def test_five_seeds_find_a_lead_of_two_deviations_where_the_literal_claim_never_holds() -> None:
    rng = np.random.default_rng(5)
    whole, literal = [], []
    for _ in range(60):
        # 66 steps of three pairs, as in Figure 3: the literal claim has 198 comparisons.
        effects = [2.0 + correlated(rng, 66, 5, 0.8) for _ in range(3)]
        whole.append(over_steps(effects).verdict)
        literal.append(decide(np.concatenate(effects), ["x"] * 198, ABOVE_ZERO).verdict)
    assert whole.count("holds") >= 54
    assert literal.count("holds") == 0
    assert whole.count("does not hold") == 0


def test_one_step_that_is_clearly_behind_makes_the_claim_fail_and_is_shown_first() -> None:
    rng = np.random.default_rng(6)
    effects = 2.0 + 0.1 * correlated(rng, 50, 5, 0.5)
    assert over_steps([effects]).verdict == "holds"
    effects[17] -= 4.0
    found = over_steps([effects])
    assert found.verdict == "does not hold"
    assert found.worst.name == "pair 0, 17"
    assert found.steps is not None
    assert (found.steps.total, found.steps.inside, found.steps.outside) == (50, 49, 1)
    # One that is behind by as much as its noise is no evidence.
    effects[17] = -0.1 + rng.standard_normal(5)
    assert over_steps([effects]).verdict == "holds"


def test_steps_that_are_outside_need_no_more_seeds_than_they_need_alone() -> None:
    rng = np.random.default_rng(7)
    effects = correlated(rng, 12, 6, 0.5)
    effects -= effects.mean()  # the mean is at the edge and decides nothing
    effects[3] -= 0.9
    effects[8] += 0.9
    found = over_steps([effects])
    assert found.verdict == "undecided"
    steps = [Effect(float(e.mean()), float(e.std(ddof=1))) for e in effects]
    needed = seeds_for(steps, ABOVE_ZERO, 0.025)
    assert found.seeds_needed == needed < 100
    mean = effects.mean(axis=0)
    of_mean = seeds_for([Effect(float(mean.mean()), float(mean.std(ddof=1)))], ABOVE_ZERO, 0.025)
    assert of_mean > needed


@pytest.mark.parametrize("lost", [1, 40])
def test_the_comparison_that_p_belongs_to_is_shown(lost: int) -> None:
    # Of 50 steps one is far behind, or all are: then the mean is what is certain.
    rng = np.random.default_rng(8)
    effects = (
        0.1 * correlated(rng, 50, 8, 0.5) + np.r_[np.full(lost, -1.0), np.ones(50 - lost)][:, None]
    )
    found = over_steps([effects])
    assert found.verdict == "does not hold"
    tests = 1 if found.worst.name == "pair 0" else 50
    assert found.p == pytest.approx(2 * tests * found.worst.p)
    assert (found.worst.name == "pair 0") == (lost == 40)


def test_an_interval_ends_at_an_edge_where_p_says_so() -> None:
    # Skewed effects, of which the bootstrap decides; the edge just inside or outside the interval.
    rng = np.random.default_rng(9)
    for _ in range(50):
        effects = np.exp(2 * rng.standard_normal((1, 60)))
        (one,) = decide(effects, ["x"], ABOVE_ZERO).comparisons
        for edge in (one.low, one.high):
            for nudge in (-1e-9, 1e-9):
                region = Region(edge + nudge, math.inf)
                found = decide(effects, ["x"], region)
                assert (found.verdict == "undecided") == (found.comparisons[0].p >= 0.05)


def test_the_steps_of_one_or_two_seeds_never_decide() -> None:
    assert over_steps([np.full((3, 1), 9.0)]).verdict == "undecided"
    pair = over_steps([np.array([[9.0, 9.1], [-9.0, -9.001]])])
    assert (pair.verdict, pair.steps and pair.steps.outside) == ("undecided", 0)


def test_steps_within_a_margin_are_alike_and_one_outside_it_makes_them_fail() -> None:
    rng = np.random.default_rng(8)
    effects = 0.1 * correlated(rng, 10, 6, 0.5)
    assert over_steps([effects], ALIKE).verdict == "holds"
    effects[3] += 5
    assert over_steps([effects], ALIKE).verdict == "does not hold"


# --- p values, and what is left after a correction


def t_test(effects: Any, edge: float, alternative: str = "two-sided") -> float:
    return float(tuple(stats.ttest_1samp(effects, edge, alternative=alternative))[1])


def test_a_p_value_below_the_error_is_a_verdict() -> None:
    rng = np.random.default_rng(9)
    for seeds in (3, 5, 20):
        for mean in np.linspace(-2, 2, 11):
            for region in (ABOVE_ZERO, Region(-math.inf, 0.0), ALIKE):
                found = decide((mean + rng.standard_normal(seeds))[None], ["a"], region)
                assert (found.verdict != "undecided") == (found.worst.p < 0.05)
                assert found.p == (None if found.verdict == "undecided" else found.worst.p)


def test_the_p_value_is_that_of_the_paired_t_test() -> None:
    effects = [0.4, 1.1, 0.8, 0.5]
    found = one(effects)
    assert found.p == pytest.approx(t_test(effects, 0.0))
    # Alike: the two one-sided tests, of which the nearer edge decides; twice their p value.
    nearer = t_test(effects, 1.0, alternative="less")
    assert one(effects, ALIKE).worst.p == pytest.approx(2 * nearer)


def test_the_p_value_of_a_skewed_distribution_is_that_of_the_bootstrap() -> None:
    skewed = np.random.default_rng(0).exponential(size=40) ** 3
    edge = stats.t.interval(0.95, 39, skewed.mean(), stats.sem(skewed))[1] + 0.5
    assert t_test(skewed, edge) < 0.05
    found = one(list(skewed), Region(edge, math.inf))  # but the tail is long
    assert (found.verdict, found.p) == ("undecided", None)
    assert found.worst.p > 0.05


def test_the_p_value_of_several_comparisons_is_that_of_the_verdict() -> None:
    weak, strong = [0.9, 1.1, 1.6], [1.0, 1.01, 1.02]
    p_weak, p_strong = (t_test(row, 0.0) for row in (weak, strong))
    assert decide(np.array([weak, strong]), ["w", "s"], ABOVE_ZERO).p == pytest.approx(p_weak)
    against = -np.array([weak, strong, [-1.0, -2.0, -9.0]])
    assert decide(against, ["w", "s", "x"], ABOVE_ZERO).p == pytest.approx(3 * p_strong)
    # On the mean of steps and against each: twice, at the number of all steps.
    rng = np.random.default_rng(6)
    steps = 2.0 + 0.1 * correlated(rng, 50, 5, 0.5)
    mean = steps.mean(axis=0)
    assert over_steps([steps]).p == pytest.approx(t_test(mean, 0.0))
    steps[17] -= 4.0
    step = t_test(steps[17], 0.0)
    assert over_steps([steps]).p == pytest.approx(2 * 50 * step)


def test_equal_results_have_a_p_value() -> None:
    assert one([0.0, 0.0, 0.0]).worst.p == 1.0
    assert one([2.0, 2.0, 2.0]).p == 0.0
    assert math.isnan(one([2.0]).worst.p)


def verdict_with(p: float, n: int = 5) -> Decision:
    return Decision("holds" if p < 0.05 else "undecided", n, [], p if p < 0.05 else None)


def test_corrections_count_the_verdicts_that_are_left() -> None:
    # Five claims. Holm: 0.01 at 5, then 0.0125, and 0.02 is above 0.05 / 3. Benjamini and
    # Hochberg: 0.03 is at most 4 * 0.05 / 5.
    found = [verdict_with(p) for p in (0.03, 0.001, 0.02, 0.9, 0.012)]
    left = ([0.001, 0.012], [0.001, 0.012, 0.02, 0.03])
    assert standing(found) == left
    assert standing([*found, verdict_with(0.9, n=2)]) == left  # no verdict was possible
    both = [0.001, 0.002]
    assert standing([verdict_with(p) for p in both]) == (both, both)
    assert standing([]) == ([], [])


def test_without_an_effect_a_correction_seldom_leaves_anything() -> None:
    rng = np.random.default_rng(10)
    left = [standing([verdict_with(p) for p in rng.random(20)]) for _ in range(REPETITIONS)]
    assert 0 < sum(len(holm) > 0 for holm, _ in left) < MOST * REPETITIONS
    assert 0 < sum(len(found) > 0 for _, found in left) < MOST * REPETITIONS


def test_samples_are_drawn_in_batches_and_are_those_drawn_at_once() -> None:
    effects = np.random.default_rng(3).normal(size=(5, 7))
    drawn = np.random.default_rng(0).integers(0, 7, (2000, 7))
    means = effects[:, drawn].mean(axis=2)
    np.testing.assert_allclose(resampled_means(effects), means, rtol=1e-12)
    tracemalloc.start()
    resampled_means(np.ones((100, 100)))
    at_once = 100 * 2000 * 100 * 8
    assert tracemalloc.get_traced_memory()[1] < at_once / 4
    tracemalloc.stop()
