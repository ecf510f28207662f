"""Small pieces of text."""

import pytest

from bench.runs.heartbeat import Progress
from bench.sweeps.status_table import summary
from bench.system.text import accuracy_text, count, duration, mean_std


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "run", "1 run"),
        (0, "run", "0 runs"),
        (2, "run", "2 runs"),
        (3000, "run", "3,000 runs"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (2, "batch", "2 batches"),
    ],
)
def test_a_number_of_things_is_said_as_people_say_it(number: int, noun: str, text: str) -> None:
    assert count(number, noun) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (45.4, "45 s"),
        (90, "2 min"),
        (3600, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("std", [None, float("nan")])
def test_a_standard_deviation_that_is_not_there_is_left_out(std: float | None) -> None:
    assert mean_std(52.96, std) == "53.0"
    assert mean_std(52.96, 0.812) == "53.0 ± 0.8"
    assert mean_std(0.0123, 0.00456, ".2g") == "0.012 ± 0.0046"


def test_an_accuracy_has_its_n_and_says_if_the_test_set_selected_it() -> None:
    summary = {"test_accuracy_mean": 0.53, "test_accuracy_std": 0.008, "n": 10}
    assert accuracy_text({**summary, "selection": "validation"}) == "53.0 ± 0.8 (n=10)"
    assert accuracy_text({**summary, "selection": "test"}) == "53.0 ± 0.8 (n=10, selected by TEST)"
    assert (
        accuracy_text({**summary, "selection": "train"}) == "53.0 ± 0.8 (n=10, selected by train)"
    )
    alone = {"test_accuracy_mean": 0.53, "test_accuracy_std": None, "n": 1, "selection": "test"}
    assert accuracy_text(alone) == "53.0 (n=1, selected by TEST)"


def test_a_summary_of_one_run_speaks_of_one() -> None:
    assert summary([Progress("running")]) == "1 run: 1 running"
    assert summary([Progress("done"), Progress("waiting")]) == "2 runs: 1 done, 1 waiting"
    assert summary([]) == "no runs"
