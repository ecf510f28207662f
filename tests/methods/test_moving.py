"""When and how far the moving windows shift, under scripted outer losses."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods import BackwardWindow, ForwardWindow, Window
from methods.moving import MovingWindow


def starts(method: MovingWindow, losses: Iterable[float]) -> list[int]:
    """The window's start before each loss is observed, and after the last one."""
    seen: list[int] = []
    step = 0
    for step, loss in enumerate(losses):
        seen.append(method.next_window(step, random.Random(step)).start)
        method.observe(step, loss)
    return [*seen, method.next_window(step + 1, random.Random(0)).start]


def expected_starts(
    path: list[int], losses: list[float], patience: int, smoothing: float
) -> list[int]:
    """The same by brute force: the smoothed losses since the last shift are computed anew at
    every step, and the window shifts once the best lies `patience` steps back."""
    position, since_shift, seen = 0, list[float](), [path[0]]
    for loss in losses:
        since_shift.append(loss)
        smoothed = [since_shift[0]]
        for value in since_shift[1:]:
            smoothed.append(smoothing * smoothed[-1] + (1 - smoothing) * value)
        if len(smoothed) - 1 - smoothed.index(min(smoothed)) >= patience:
            position, since_shift = min(position + 1, len(path) - 1), []
        seen.append(path[position])
    return seen


def test_the_forward_window_goes_from_the_end_to_the_beginning_in_steps_of_its_size() -> None:
    method = ForwardWindow(10, 3, patience=2, smoothing=0.0)
    # Each block of three: one best loss, then two steps without a new one.
    assert starts(method, [1.0] * 15)[::3] == [7, 4, 1, 0, 0, 0]


def test_the_backward_window_goes_from_the_beginning_to_the_end_in_steps_of_its_size() -> None:
    method = BackwardWindow(10, 3, patience=2, smoothing=0.0)
    assert starts(method, [1.0] * 15)[::3] == [0, 3, 6, 7, 7, 7]


@pytest.mark.parametrize("patience", [1, 2, 7])
def test_the_window_shifts_exactly_after_patience_steps_without_a_new_best(patience: int) -> None:
    improving = [5.0, 4.0, 3.0]
    method = BackwardWindow(100, 10, patience=patience, smoothing=0.0)
    seen = starts(method, [*improving, *[3.0] * patience])
    assert seen == [0] * (len(improving) + patience) + [10]


def test_a_new_best_just_before_the_shift_puts_it_off() -> None:
    method = BackwardWindow(100, 10, patience=3, smoothing=0.0)
    assert set(starts(method, [5.0, 5.0, 5.0, 4.0, 4.0, 4.0])) == {0}


@pytest.mark.parametrize("method_class", [ForwardWindow, BackwardWindow])
@pytest.mark.parametrize("smoothing", [0.0, 0.9])
def test_an_improving_loss_never_shifts_the_window(
    method_class: type[MovingWindow], smoothing: float
) -> None:
    method = method_class(50, 5, patience=1, smoothing=smoothing)
    assert len(set(starts(method, [1 / (1 + step) for step in range(300)]))) == 1


def test_stagnation_is_judged_by_the_smoothed_loss() -> None:
    # The loss itself has its best at step 0; smoothed from 0 it would stagnate at once, but a
    # smoothed loss that still falls after one outlier does not.
    losses = [10.0, 0.0, *[1.0] * 5]
    smoothed = BackwardWindow(100, 10, patience=4, smoothing=0.9)
    assert set(starts(smoothed, losses)) == {0}
    plain = BackwardWindow(100, 10, patience=4, smoothing=0.0)
    assert starts(plain, losses)[-2:] == [10, 10]


def test_best_and_average_are_forgotten_after_a_shift() -> None:
    method = BackwardWindow(100, 10, patience=2, smoothing=0.5)
    # The loss before the shift is far below any after it, which still count as improvements.
    seen = starts(method, [0.0, 0.0, 0.0, 9.0, 8.0, 7.0, 6.0, 5.0])
    assert seen == [0, 0, 0, *[10] * 6]


@pytest.mark.parametrize("method_class", [ForwardWindow, BackwardWindow])
@given(
    losses=st.lists(st.integers(0, 8).map(float), max_size=60),
    patience=st.integers(1, 5),
    smoothing=st.sampled_from([0.0, 0.5, 0.75]),
    window_size=st.integers(1, 12),
)
def test_shifts_equal_brute_force_under_any_losses(
    method_class: type[MovingWindow],
    losses: list[float],
    patience: int,
    smoothing: float,
    window_size: int,
) -> None:
    unroll_length = 12
    last = unroll_length - window_size
    path = [*range(0, last, window_size), last]
    if method_class is ForwardWindow:
        path = [last - start for start in path]
    method = method_class(unroll_length, window_size, patience=patience, smoothing=smoothing)
    assert starts(method, losses) == expected_starts(path, losses, patience, smoothing)


def test_the_papers_patience_is_the_default() -> None:
    method = BackwardWindow(100, 10)
    seen = starts(method, [1.0] * 2001)
    assert seen[2000] == 0
    assert seen[2001] == 10


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_ignored(bad: float) -> None:
    method = BackwardWindow(12, 3, patience=5, smoothing=0.5)
    for step in range(40):
        method.observe(step, bad if step == 2 else 40.0 - step)
    assert method.next_window(40, random.Random(0)) == Window(0, 3)


# --- rule=evaluation_loss, as in the paper's code


def watching(patience: int, unroll_length: int = 100) -> BackwardWindow:
    return BackwardWindow(unroll_length, 10, patience=patience, rule="evaluation_loss")


def starts_at_evaluations(method: MovingWindow, losses: list[float], every: int) -> list[int]:
    """The window's start after each evaluation, which are `every` outer steps apart. The outer loss
    rises all the time, which this rule must not see."""
    seen = []
    for step in range(every * len(losses)):
        if step % every == 0:
            method.observe_evaluation(step, losses[step // every])
            seen.append(method.next_window(step, random.Random(step)).start)
        method.observe(step, float(step))
    return seen


@pytest.mark.parametrize("every", [1, 5])
def test_the_window_shifts_after_patience_outer_steps_without_a_better_evaluation(
    every: int,
) -> None:
    losses = [5.0, 4.0, 4.0, 4.5, 4.2, 4.1]
    # The best is at evaluation 1; three evaluations later nothing was better.
    seen = starts_at_evaluations(watching(3 * every), losses, every)
    assert seen == [0, 0, 0, 0, 10, 10]


def test_patience_between_two_evaluations_ends_at_the_second() -> None:
    assert starts_at_evaluations(watching(7), [1.0, 1.0, 1.0], every=5) == [0, 0, 10]


def test_the_best_of_before_a_shift_stays_the_best() -> None:
    losses = [1.0, 2.0, 2.0, 1.9, 1.8, 1.7, 1.6]  # falls after the shift, but never below 1
    assert starts_at_evaluations(watching(2), losses, every=1) == [0, 0, 10, 10, 20, 20, 30]
    # The other rule forgets it: the same course of the outer loss shifts once.
    ours = BackwardWindow(100, 10, patience=2, smoothing=0.0)
    assert set(starts(ours, losses)[3:]) == {10}


def test_a_new_best_gives_the_window_its_whole_patience_again() -> None:
    losses = [3.0, 3.0, 2.0, 2.0, 2.0, 2.0]
    assert starts_at_evaluations(watching(2), losses, every=1) == [0, 0, 0, 0, 10, 10]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_evaluation_that_is_not_finite_is_no_best(bad: float) -> None:
    assert starts_at_evaluations(watching(3), [bad, 2.0, bad, 1.0], every=1) == [0] * 4
    assert starts_at_evaluations(watching(2), [2.0, bad, bad, bad], every=1) == [0, 0, 10, 10]


def test_both_directions_stop_at_the_limit_of_the_trajectory() -> None:
    forward = ForwardWindow(25, 10, patience=1, rule="evaluation_loss")
    assert starts_at_evaluations(forward, [1.0] * 5, every=1) == [15, 5, 0, 0, 0]
    assert starts_at_evaluations(watching(1, 25), [1.0] * 5, every=1) == [0, 10, 15, 15, 15]


@given(losses=st.lists(st.integers(0, 8).map(float), min_size=2, max_size=40), cut=st.integers(0))
def test_a_state_carries_everything_that_the_rule_knows(losses: list[float], cut: int) -> None:
    cut %= len(losses)
    whole, first, second = (watching(2) for _ in range(3))
    expected = starts_at_evaluations(whole, losses, every=1)
    for step, loss in enumerate(losses[:cut]):
        first.observe_evaluation(step, loss)
    second.load_state(first.state())
    for step, loss in enumerate(losses[cut:], start=cut):
        second.observe_evaluation(step, loss)
        assert second.start == expected[step]


def test_a_state_of_before_there_were_rules_is_read() -> None:
    method = BackwardWindow(100, 10, patience=3)
    method.load_state({"start": 20, "average": 1.0, "best": 0.5, "steps_without_best": 2})
    method.observe(7, 1.0)
    assert method.next_window(8, random.Random(0)) == Window(30, 40)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="rule=loss is not one of evaluation_loss, outer_loss"):
        BackwardWindow(100, 10, rule="loss")
