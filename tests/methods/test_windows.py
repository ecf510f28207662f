"""The window that each method chooses, against enumeration of all windows that it may choose."""

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.training.randomness import python_random
from methods import METHODS, BackwardWindow, Window, make_method
from methods.early_random_truncated import EarlyRandomTruncatedBPTT
from methods.window import Method

DRAWS_PER_OUTCOME = 1000


def draw_windows(method: Method, draws: int) -> Counter[tuple[int, int]]:
    """How often each window is chosen in `draws` outer steps."""
    windows = (method.next_window(step, python_random(7, "window", step)) for step in range(draws))
    return Counter((window.start, window.stop) for window in windows)


def assert_uniform(counts: Counter[tuple[int, int]], outcomes: set[tuple[int, int]]) -> None:
    """Every outcome occurs, no other does, and each count lies within 4 standard deviations."""
    assert_drawn(counts, dict.fromkeys(outcomes, 1 / len(outcomes)))


def assert_drawn(
    counts: Counter[tuple[int, int]], probabilities: dict[tuple[int, int], float]
) -> None:
    """The same for outcomes of any probability."""
    assert set(counts) == set(probabilities)
    draws = counts.total()
    for outcome, probability in probabilities.items():
        deviation = math.sqrt(draws * probability * (1 - probability))
        assert abs(counts[outcome] - draws * probability) <= 4 * deviation


class Listed(random.Random):
    """A generator whose random() goes through (k + 1/2) / n: every part of [0, 1) in proportion."""

    def __init__(self, n: int) -> None:
        super().__init__(0)
        self.n, self.k = n, 0

    def random(self) -> float:
        self.k += 1
        return (self.k - 0.5) / self.n


@pytest.mark.parametrize(("unroll_length", "window_size"), [(1, 1), (5, 5), (9, 2), (40, 12)])
def test_bptt_always_takes_the_whole_trajectory(unroll_length: int, window_size: int) -> None:
    method = make_method("bptt", unroll_length, window_size)
    assert set(draw_windows(method, 50)) == {(0, unroll_length)}


@pytest.mark.parametrize(("unroll_length", "window_size"), [(1, 1), (5, 5), (9, 2), (40, 12)])
def test_t_bptt_always_takes_the_last_steps(unroll_length: int, window_size: int) -> None:
    method = make_method("t_bptt", unroll_length, window_size)
    assert set(draw_windows(method, 50)) == {(unroll_length - window_size, unroll_length)}


@pytest.mark.parametrize(("unroll_length", "window_size"), [(1, 1), (5, 5), (9, 2), (20, 13)])
def test_rat_bptt_is_uniform_on_all_windows_of_its_size(
    unroll_length: int, window_size: int
) -> None:
    outcomes = {
        (start, stop)
        for start in range(unroll_length)
        for stop in range(start + 1, unroll_length + 1)
        if stop - start == window_size
    }
    method = make_method("rat_bptt", unroll_length, window_size)
    assert_uniform(draw_windows(method, DRAWS_PER_OUTCOME * len(outcomes)), outcomes)


@pytest.mark.parametrize(
    ("unroll_length", "window_size", "min_length", "shortest"),
    [(9, 4, 0, 4), (9, 4, 1, 1), (9, 4, 7, 7), (9, 4, 9, 9), (6, 6, 0, 6)],
)
def test_r_bptt_is_uniform_on_lengths_from_min_length_which_is_the_window_size_by_default(
    unroll_length: int, window_size: int, min_length: int, shortest: int
) -> None:
    outcomes = {(0, length) for length in range(shortest, unroll_length + 1)}
    method = make_method("r_bptt", unroll_length, window_size, {"min_length": min_length})
    assert_uniform(draw_windows(method, DRAWS_PER_OUTCOME * len(outcomes)), outcomes)


def test_r_bptt_without_options_starts_its_lengths_at_the_window_size() -> None:
    counts = draw_windows(make_method("r_bptt", 8, 5), 500)
    assert set(counts) == {(0, 5), (0, 6), (0, 7), (0, 8)}


def early_probabilities(unroll_length: int, window_size: int, power: int) -> list[Fraction]:
    """Of each start, by enumeration: it counts as the number of starts from it on, to the power."""
    starts = [s for s in range(unroll_length) if s + window_size <= unroll_length]
    weights = [sum(other >= start for other in starts) ** power for start in starts]
    return [Fraction(weight, sum(weights)) for weight in weights]


@pytest.mark.parametrize("power", [0, 1, 2, 5])
@pytest.mark.parametrize(("unroll_length", "window_size"), [(1, 1), (5, 5), (9, 2), (20, 13)])
def test_early_rat_bptt_has_the_probabilities_of_its_formula_and_draws_by_them(
    unroll_length: int, window_size: int, power: int
) -> None:
    expected = early_probabilities(unroll_length, window_size, power)
    method = EarlyRandomTruncatedBPTT(unroll_length, window_size, power)
    assert method.probabilities == pytest.approx([float(p) for p in expected], rel=1e-12)
    # Every random number in proportion: the count of each window is known to one.
    n = 5000
    rng = Listed(n)
    counts = Counter(method.next_window(step, rng) for step in range(n))
    assert sum(counts.values()) == n
    for start, probability in enumerate(expected):
        assert abs(counts[Window(start, start + window_size)] - n * probability) <= 1


def test_early_rat_bptt_draws_early_windows_more_often_by_its_formula() -> None:
    expected = early_probabilities(9, 2, 1)
    counts = draw_windows(make_method("early_rat_bptt", 9, 2), 20_000)
    assert_drawn(counts, {(start, start + 2): float(p) for start, p in enumerate(expected)})


def test_early_rat_bptt_of_power_0_has_the_probabilities_of_rat_bptt() -> None:
    assert set(EarlyRandomTruncatedBPTT(250, 80, 0).probabilities) == {1 / 171}


@pytest.mark.parametrize("power", [700.0, 1e300])
def test_no_power_is_too_large(power: float) -> None:
    method = EarlyRandomTruncatedBPTT(300, 100, power)
    assert sum(method.probabilities) == pytest.approx(1)
    assert method.next_window(0, random.Random(0)).start < 5


@pytest.mark.parametrize(
    ("first", "last", "grow_steps"),
    [(10, 180, 2000), (10, 180, 170), (1, 9, 3), (3, 4, 7), (5, 5, 10), (2, 30, 1), (1, 6, 10)],
)
def test_growing_bptt_has_the_length_that_lies_nearest_to_the_line_at_every_outer_step(
    first: int, last: int, grow_steps: int
) -> None:
    options = {"first_length": first, "grow_steps": grow_steps}
    method = make_method("growing_bptt", last, first, options)
    steps = range(grow_steps + 50)
    windows = [method.next_window(step, random.Random(step)) for step in steps]
    assert {window.start for window in windows} == {0}
    lengths = [window.stop for window in windows]
    assert lengths[0] == first
    assert set(lengths[grow_steps:]) == {last}
    assert lengths == sorted(lengths)
    for step, length in enumerate(lengths[:grow_steps]):
        line = first + Fraction((last - first) * step, grow_steps)
        # Of all lengths the nearest; of two that are equally near the longer.
        assert length == min(range(first, last + 1), key=lambda n: (abs(n - line), -n))
    every_length_occurs = set(lengths) == set(range(first, last + 1))
    assert every_length_occurs == (grow_steps >= last - first)


def test_growing_bptt_without_options_begins_at_the_window_size() -> None:
    assert make_method("growing_bptt", 8, 5).next_window(0, random.Random(0)) == Window(0, 5)


@pytest.mark.parametrize("window_size", [1, 40, 180])
def test_the_window_size_has_no_effect_on_growing_bptt_where_its_first_length_is_stated(
    window_size: int,
) -> None:
    options = {"first_length": 10, "grow_steps": 100}
    windows = [
        make_method("growing_bptt", 180, size, options).next_window(step, random.Random(0))
        for size in (10, window_size)
        for step in range(0, 120, 7)
    ]
    assert windows[: len(windows) // 2] == windows[len(windows) // 2 :]


# With these a method changes its window within few outer steps; without, some never would.
IMPATIENT = {"patience": 1, "smoothing": 0.0}
OPTIONS = {
    "forward_window": IMPATIENT,
    "backward_window": IMPATIENT,
    "growing_bptt": {"grow_steps": 40},
}
OF_FIXED_SIZE = ("t_bptt", "rat_bptt", "early_rat_bptt", "forward_window", "backward_window")


@st.composite
def method_settings(draw: st.DrawFn, names: Sequence[str]) -> tuple[str, int, int]:
    unroll_length = draw(st.integers(1, 60))
    return draw(st.sampled_from(names)), unroll_length, draw(st.integers(1, unroll_length))


LOSSES = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40)


def windows_chosen(
    settings: tuple[str, int, int], seed: int, losses: Sequence[float]
) -> list[Window]:
    """The windows of a method over outer steps with these losses."""
    name, unroll_length, window_size = settings
    method = make_method(name, unroll_length, window_size, OPTIONS.get(name))
    windows = []
    for step, loss in enumerate([0.0, *losses]):
        windows.append(method.next_window(step, python_random(seed, "window", step)))
        method.observe(step, loss)
    return windows


@given(settings=method_settings(list(METHODS)), seed=st.integers(0, 2**32), losses=LOSSES)
def test_windows_of_every_method_lie_within_the_trajectory(
    settings: tuple[str, int, int], seed: int, losses: list[float]
) -> None:
    _, unroll_length, _ = settings
    for window in windows_chosen(settings, seed, losses):
        assert 0 <= window.start < window.stop <= unroll_length


@pytest.mark.parametrize(
    ("name", "options", "windows"),
    [
        ("bptt", {}, {(2, 9)}),
        ("t_bptt", {}, {(5, 9)}),
        ("r_bptt", {}, {(2, stop) for stop in range(4, 10)}),
        ("rat_bptt", {}, {(start, start + 4) for start in range(2, 6)}),
        ("early_rat_bptt", {}, {(start, start + 4) for start in range(2, 6)}),
        ("forward_window", {"patience": 1}, {(5, 9), (2, 6)}),
        ("backward_window", {"patience": 1}, {(2, 6), (5, 9)}),
        ("growing_bptt", {"grow_steps": 40}, {(2, stop) for stop in range(4, 10)}),
    ],
)
def test_no_window_contains_an_inner_step_before_the_first(
    name: str, options: dict[str, int], windows: set[tuple[int, int]]
) -> None:
    method = make_method(name, 9, 4, {**options, "first": 2})
    chosen = set()
    for step in range(200):
        window = method.next_window(step, python_random(5, "window", step))
        chosen.add((window.start, window.stop))
        method.observe(step, 1.0)  # without progress
    assert chosen == windows


def test_t_bptt_is_shortened_by_a_first_step_that_lies_in_its_window() -> None:
    method = make_method("t_bptt", 9, 4, {"first": 7})
    assert method.next_window(0, random.Random(0)) == Window(7, 9)


def test_early_rat_bptt_keeps_its_ratios_without_the_first_steps() -> None:
    whole = EarlyRandomTruncatedBPTT(20, 5, power=2)
    later = EarlyRandomTruncatedBPTT(20, 5, power=2, first=3)
    remaining = sum(whole.probabilities[3:])
    assert later.probabilities == pytest.approx([p / remaining for p in whole.probabilities[3:]])


@pytest.mark.parametrize(
    ("name", "last"),
    [
        *[("bptt", 8), ("t_bptt", 8), ("r_bptt", 3), ("rat_bptt", 5), ("early_rat_bptt", 5)],
        *[("forward_window", 5), ("backward_window", 5), ("growing_bptt", 3)],
    ],
)
def test_a_first_step_that_leaves_no_window_is_rejected(name: str, last: int) -> None:
    make_method(name, 9, 4, {"first": last})
    for first in (-1, last + 1):
        with pytest.raises(ValueError, match=f"first={first} must lie between 0 and {last}"):
            make_method(name, 9, 4, {"first": first})


@given(settings=method_settings(OF_FIXED_SIZE), seed=st.integers(0, 2**32), losses=LOSSES)
def test_truncated_and_moving_windows_have_the_window_size(
    settings: tuple[str, int, int], seed: int, losses: list[float]
) -> None:
    *_, window_size = settings
    assert {window.size for window in windows_chosen(settings, seed, losses)} == {window_size}


@pytest.mark.parametrize("name", METHODS)
def test_the_window_depends_on_the_random_numbers_only_through_the_given_generator(
    name: str,
) -> None:
    before = random.getstate()
    first, second = make_method(name, 30, 7), make_method(name, 30, 7)
    for step in range(20):
        window = first.next_window(step, random.Random(step))
        assert window == second.next_window(step, random.Random(step))
    assert random.getstate() == before


@pytest.mark.parametrize("name", METHODS)
def test_a_method_restored_from_json_continues_as_the_uninterrupted_one(name: str) -> None:
    moving = {"patience": 3, "smoothing": 0.8}
    options = {**OPTIONS, "forward_window": moving, "backward_window": moving}.get(name)
    losses = [python_random(3, "loss", step).random() for step in range(60)]

    def windows(method: Method, steps: range) -> list[Window]:
        chosen: list[Window] = []
        for step in steps:
            chosen.append(method.next_window(step, python_random(1, "window", step)))
            method.observe(step, losses[step])
        return chosen

    uninterrupted = windows(make_method(name, 40, 4, options), range(60))
    for interruption in (0, 1, 17, 30):
        stopped = make_method(name, 40, 4, options)
        windows(stopped, range(interruption))
        restored = make_method(name, 40, 4, options)
        restored.load_state(json.loads(json.dumps(stopped.state(), allow_nan=False)))
        assert windows(restored, range(interruption, 60)) == uninterrupted[interruption:]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("unroll_length", "window_size"), [(4, 5), (4, 0), (4, -1), (0, 0)])
def test_window_sizes_that_do_not_fit_the_trajectory_are_rejected(
    name: str, unroll_length: int, window_size: int
) -> None:
    with pytest.raises(ValueError, match="window_size"):
        make_method(name, unroll_length, window_size)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("r_bptt", "min_length", -1),
        ("r_bptt", "min_length", 11),
        ("forward_window", "patience", 0),
        ("backward_window", "patience", -3),
        ("forward_window", "smoothing", 1.0),
        ("backward_window", "smoothing", -0.1),
        ("backward_window", "smoothing", math.nan),
        ("growing_bptt", "first_length", -1),
        ("growing_bptt", "first_length", 11),
        ("growing_bptt", "grow_steps", 0),
        ("early_rat_bptt", "power", -0.5),
        ("early_rat_bptt", "power", math.inf),
        ("early_rat_bptt", "power", math.nan),
    ],
)
def test_options_outside_their_range_are_rejected_by_name(
    name: str, option: str, value: float
) -> None:
    with pytest.raises(ValueError, match=option):
        make_method(name, 10, 3, {option: value})


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 3), (3, 2)])
def test_an_empty_or_negative_window_is_rejected(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="start"):
        Window(start, stop)


def test_the_size_of_a_window_is_the_number_of_its_steps() -> None:
    assert Window(3, 8).size == len(range(3, 8))


def test_backward_moving_is_not_forward_moving() -> None:
    assert make_method("backward_window", 9, 2).next_window(0, random.Random(0)) == Window(0, 2)
    assert make_method("forward_window", 9, 2).next_window(0, random.Random(0)) == Window(7, 9)
    assert METHODS["backward_window"] is BackwardWindow
