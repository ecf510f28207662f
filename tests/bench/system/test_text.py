"""Small pieces of text."""

import pytest

from bench.runs.heartbeat import Progress
from bench.sweeps.status_table import summary
from bench.system.text import count


@pytest.mark.parametrize(
    ("number", "noun", "told"),
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
def test_a_number_of_things_is_said_as_people_say_it(number: int, noun: str, told: str) -> None:
    assert count(number, noun) == told


def test_a_summary_of_one_run_speaks_of_one() -> None:
    assert summary([Progress("running")]) == "1 run: 1 running"
    assert summary([Progress("done"), Progress("waiting")]) == "2 runs: 1 done, 1 waiting"
    assert summary([]) == "no runs"
