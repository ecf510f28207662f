"""Methods that look at the trajectory, against enumeration on scripted probes and steps."""

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.training.randomness import python_random
from methods import Method, Probe, StepObservation, Window, make_method, observes_probes
from methods.automatic_truncated import AutomaticTruncatedBPTT
from methods.automatic_truncated_policy import PolicyTruncatedBPTT
from methods.signal_to_noise import SignalToNoiseBPTT

NORMS = [3.0, 1.0, 0.5, 2.0, 2.5, 0.25, 1.5, 0.75, 1.25, 0.1]
N, W = len(NORMS), 4
DRAWS = 4000
ADAPTIVE = ("at_bptt", "at_bptt_plus", "snr_bptt")


def probe(norms: Sequence[float] = NORMS, accuracy: float = 50.0) -> Probe:
    return Probe(list(norms), 1.0, accuracy)


def assert_drawn(method: Method, expected: dict[tuple[int, int], float]) -> None:
    """Every window occurs as often as it should, within 4 standard deviations."""
    rng = random.Random(3)
    windows = [method.next_window(0, rng) for _ in range(DRAWS)]
    counts = Counter((window.start, window.stop) for window in windows)
    assert set(counts) <= set(expected)
    for window, share in expected.items():
        deviation = math.sqrt(share * (1 - share) / DRAWS)
        assert abs(counts[window] / DRAWS - share) <= 4 * deviation + 1e-9


def summed(pairs: Sequence[tuple[tuple[int, int], float]]) -> dict[tuple[int, int], float]:
    shares: dict[tuple[int, int], float] = {}
    for window, share in pairs:
        shares[window] = shares.get(window, 0.0) + share
    return shares


# --- AT-BPTT


def at_bptt_windows(
    norms: Sequence[float], weights: Sequence[float], radius: int, first: int = 0
) -> dict[tuple[int, int], float]:
    """The windows of the paper's rule, step by step, from weights of the starts."""
    n, pairs = len(norms), []
    for start in range(first, n):
        change = abs(norms[start] - norms[start - 1]) if start else 0.0
        below = sum((abs(norms[t] - norms[t - 1]) if t else 0.0) < change for t in range(n))
        size = min(round(W - radius + 2 * radius * below / (n - 1)), n - first)
        fitted = min(start, n - size)
        pairs.append(((fitted, fitted + size), weights[start] / sum(weights[first:])))
    return summed(pairs)


@pytest.mark.parametrize("tau", [0.5, 2.0])
@pytest.mark.parametrize("radius", [0, 3])
@pytest.mark.parametrize("first", [0, 2])
def test_at_bptt_draws_large_gradients_early_any_in_the_middle_and_small_ones_late(
    tau: float, radius: int, first: int
) -> None:
    method = AutomaticTruncatedBPTT(N, W, tau=tau, radius=radius, first=first)
    method.observe_probe(0, probe())
    uniform = [1.0 if start <= N - W else 0.0 for start in range(N)]
    for stage, weights in enumerate(
        [[math.exp(g / tau) for g in NORMS], uniform, [math.exp(-g / tau) for g in NORMS]]
    ):
        method.stage = stage
        assert_drawn(method, at_bptt_windows(NORMS, weights, radius, first))


def test_at_bptt_changes_its_stage_after_so_many_checks_in_a_row_below_the_threshold() -> None:
    method = AutomaticTruncatedBPTT(N, W, threshold=1.5, checks=3)
    script = [  # (accuracy, stage after the check)
        *[(10.0, 0), (15.0, 0)],  # +5
        *[(16.0, 0), (17.4, 0), (18.9, 0)],  # +1, +1.4, then +1.5: not below, so counted anew
        *[(19.0, 0), (18.0, 0), (18.5, 1)],  # the third in a row
        *[(25.0, 1), (25.0, 1), (20.0, 1), (20.5, 2)],
        *[(50.0, 2), (0.0, 2), (0.0, 2), (0.0, 2), (0.0, 2)],  # the last stage
    ]
    for check, (accuracy, stage) in enumerate(script):
        method.observe_probe(10 * check, probe(accuracy=accuracy))
        assert method.stage == stage, check


def test_at_bptt_without_options_has_the_released_codes_numbers() -> None:
    method = AutomaticTruncatedBPTT(200, 40)
    assert (method.radius, method.checks) == (10, 30)
    asked = [step for step in range(35) if method.needs_probe(step)]
    assert asked == [0, 10, 20, 30]


def test_at_bptt_before_its_first_finite_probe_is_rat_bptt() -> None:
    plain, waiting = make_method("rat_bptt", N, W), make_method("at_bptt", N, W)
    assert observes_probes(waiting)
    waiting.observe_probe(0, probe([math.nan] * N))
    for step in range(30):
        assert plain.next_window(step, random.Random(step)) == waiting.next_window(
            step, random.Random(step)
        )


# --- AT-BPTT++


def test_at_bptt_plus_follows_its_equations_over_several_probes() -> None:
    kl, rate, tau, radius = 0.7, 0.2, 0.5, 3
    method = PolicyTruncatedBPTT(N, W, tau=tau, radius=radius, kl=kl, ref_rate=rate)
    assert_drawn(method, summed([((max(0, t + 1 - W), t + 1), 1 / N) for t in range(N)]))
    reference, means = np.full(N, 1 / N), []
    for k in range(5):
        norms = np.roll(NORMS, k) * (1 + 0.3 * math.sin(2 * k))
        method.observe_probe(k, probe(norms.tolist()))
        means.append(norms.mean())
        span = max(means) - min(means)
        beta = 1.0 if k == 0 else 2 * (means[-1] - min(means)) / span - 1
        advantage = (norms - norms.mean()) / norms.std()
        policy = reference * np.exp(beta * advantage / kl)
        policy /= policy.sum()
        reference = (1 - rate) * reference + rate * policy
        assert method.policy == pytest.approx(policy.tolist(), rel=1e-5)
        assert method.reference == pytest.approx(reference.tolist(), rel=1e-5)
        change = np.abs(np.diff(norms, prepend=norms[0]))
        standard = (change - change.mean()) / change.std()
        sizes = np.round(W - radius + 2 * radius / (1 + np.exp(-standard / tau))).astype(int)
        assert_drawn(
            method,
            summed([((max(0, t + 1 - sizes[t]), t + 1), policy[t]) for t in range(N)]),
        )


def test_at_bptt_plus_moves_to_small_gradients_when_the_mean_falls() -> None:
    method = PolicyTruncatedBPTT(N, W, kl=0.5)
    shares = []
    for k, factor in enumerate((1.0, 0.1)):
        method.observe_probe(k, probe([factor * norm for norm in NORMS]))
        shares.append(method.policy)
    largest, smallest = NORMS.index(max(NORMS)), NORMS.index(min(NORMS))
    assert shares[0][largest] > shares[0][smallest]
    assert shares[1][largest] < shares[1][smallest]


def test_at_bptt_plus_has_a_window_where_all_its_weight_lies_before_the_first_step() -> None:
    method = PolicyTruncatedBPTT(N, W, kl=1e-3, first=3)
    method.observe_probe(0, probe([100.0, *NORMS[1:]]))
    assert sum(method.policy[3:]) == pytest.approx(1.0)
    for step in range(20):
        assert method.next_window(step, random.Random(step)).start >= 3


def test_at_bptt_plus_takes_a_constant_mean_as_the_beginning() -> None:
    method = PolicyTruncatedBPTT(N, W)
    for step in range(3):
        method.observe_probe(step, probe())
        assert method.updated_beta(sum(NORMS) / N) == 1.0


# --- SNR-BPTT


def tell(method: SignalToNoiseBPTT, start: int, norm: float, alignment: float) -> None:
    window = Window(start, start + W)
    method.observe_step(StepObservation(1, 1.0, window, norm, alignment, []))


def test_snr_bptt_draws_by_signal_to_noise_per_cost_above_a_floor() -> None:
    method = SignalToNoiseBPTT(N, W, bins=3, floor=0.4, decay=0.5, window_cost=2.0)
    assert [list(starts) for starts in method.ranges] == [[0, 1], [2, 3], [4, 5, 6]]
    assert_drawn(method, {(start, start + W): 1 / 7 for start in range(7)})
    told = {0: [(2.0, 0.5), (4.0, 0.1)], 2: [(1.0, 0.9)], 4: [(1.0, -0.5), (3.0, 0.1)]}
    for start, steps in told.items():
        for norm, alignment in steps:
            tell(method, start, norm, alignment)
    # Decay 1/2: the mean of two values after the first is their plain mean.
    snr = [
        ((1.0 + 0.4) / 2) ** 2 / ((4.0 + 16.0) / 2),
        0.9**2,
        0.0,  # the mean of -0.5 and 0.3 is negative
    ]
    cost = [0.5 + 2 * W, 2.5 + 2 * W, 5 + 2 * W]
    weights = [n * s / c for n, s, c in zip((2, 2, 3), snr, cost, strict=True)]
    probabilities = [
        0.4 * n / 7 + 0.6 * weight / sum(weights)
        for n, weight in zip((2, 2, 3), weights, strict=True)
    ]
    assert method.probabilities() == pytest.approx(probabilities)
    expected = {
        (start, start + W): p / len(starts)
        for p, starts in zip(probabilities, method.ranges, strict=True)
        for start in starts
    }
    assert_drawn(method, expected)


def test_snr_bptt_takes_a_range_without_a_step_for_the_best() -> None:
    method = SignalToNoiseBPTT(N, W, bins=7, floor=0.5)
    tell(method, 0, 1.0, 0.8)
    tell(method, 1, 1.0, 0.2)
    shares = method.probabilities()
    assert shares[2:] == pytest.approx([shares[0]] * 5)
    assert shares[1] < shares[0]
    assert sum(shares) == pytest.approx(1.0)


def test_snr_bptt_is_uniform_where_no_range_has_a_signal() -> None:
    method = SignalToNoiseBPTT(N, W, bins=7)
    for start in range(7):
        tell(method, start, 1.0, -0.1)
    assert method.probabilities() == pytest.approx([1 / 7] * 7)


def test_snr_bptt_learns_nothing_where_there_is_no_mean_to_agree_with() -> None:
    method = SignalToNoiseBPTT(N, W)
    method.observe_step(StepObservation(1, 1.0, Window(0, W), 1.0, math.nan, []))
    assert method.state() == SignalToNoiseBPTT(N, W).state()


# --- all


def course(method: Method, steps: range, norms_of: Callable[[int], list[float]]) -> list[Window]:
    """The windows of outer steps with these norms in the probes."""
    windows = []
    for step in steps:
        if observes_probes(method) and method.needs_probe(step):
            method.observe_probe(step, probe(norms_of(step), accuracy=norms_of(step)[0]))
        window = method.next_window(step, python_random(1, "window", step))
        windows.append(window)
        method.observe(step, 1.0)
        norm = norms_of(step)[0]
        if isinstance(method, SignalToNoiseBPTT) and math.isfinite(norm):  # else nothing is told
            method.observe_step(StepObservation(step, 1.0, window, norm, 0.3, []))
    return windows


@given(
    name=st.sampled_from(ADAPTIVE),
    unroll_length=st.integers(1, 30),
    data=st.data(),
)
def test_windows_lie_within_the_trajectory_and_after_the_first_step(
    name: str, unroll_length: int, data: st.DataObject
) -> None:
    window_size = data.draw(st.integers(1, unroll_length))
    first = data.draw(st.integers(0, unroll_length - window_size))
    options: dict[str, Any] = {"first": first}
    if name != "snr_bptt":
        options |= {"radius": data.draw(st.integers(-1, window_size - 1)), "probe_every": 3}
    if name == "at_bptt":
        options["checks"] = 1
    method = make_method(name, unroll_length, window_size, options)
    norm = st.one_of(st.floats(0, 1e6), st.just(math.nan), st.just(math.inf))
    norms = st.lists(norm, min_size=unroll_length, max_size=unroll_length)
    scripts = data.draw(st.lists(norms, min_size=3, max_size=3))
    for window in course(method, range(20), lambda step: scripts[step % 3]):
        assert first <= window.start < window.stop <= unroll_length


@pytest.mark.parametrize("name", ADAPTIVE)
def test_one_restored_from_json_continues_as_the_uninterrupted_one(name: str) -> None:
    def norms_of(step: int) -> list[float]:
        draw = python_random(9, "norms", step)
        return [draw.expovariate(0.1) for _ in range(20)]

    whole = course(make_method(name, 20, 6), range(60), norms_of)
    for interruption in (1, 17, 30):
        stopped, restored = make_method(name, 20, 6), make_method(name, 20, 6)
        course(stopped, range(interruption), norms_of)
        restored.load_state(json.loads(json.dumps(stopped.state(), allow_nan=False)))
        assert course(restored, range(interruption, 60), norms_of) == whole[interruption:]


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        *[("at_bptt", "tau", 0.0), ("at_bptt", "radius", 6), ("at_bptt", "radius", -2)],
        *[("at_bptt", "checks", -1), ("at_bptt", "probe_every", 0)],
        *[("at_bptt_plus", "kl", 0.0), ("at_bptt_plus", "ref_rate", 1.1)],
        *[("at_bptt_plus", "tau", math.inf), ("at_bptt_plus", "probe_every", 0)],
        *[("snr_bptt", "bins", 0), ("snr_bptt", "floor", 0.0), ("snr_bptt", "decay", 1.0)],
        ("snr_bptt", "window_cost", 0.0),
    ],
)
def test_options_outside_their_range_are_rejected_by_name(
    name: str, option: str, value: float
) -> None:
    with pytest.raises(ValueError, match=f"{option}="):
        make_method(name, 20, 6, {option: value})
