"""Whatever is typed, a command does what it can do, or ends with one line and exit status 2."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.every_setting import commands
from tests.reliability.conftest import Try
from tests.reliability.strategies import BOMB, arguments
from tests.up_to_computing import START

COMMANDS = {command.name: command for command in commands()}


BEGIN = ["grid=window_ablation", "scale=quick"]


def write_files(here: Path) -> None:
    np.savez(here / "set.npz", images=np.random.rand(10, 1, 8, 8), labels=np.arange(10))
    (here / "results").mkdir()


@pytest.mark.parametrize("name", START)
def test_whatever_is_typed_is_done_or_refused_in_one_line(
    name: str, attempt: Try, figure: Callable[[str, object], None]
) -> None:
    ended: Counter[int] = Counter()

    @attempt.settings(some=12, all_of_them=450)
    @given(st.lists(arguments(COMMANDS[name]), max_size=4), st.integers(0, 3))
    def every_case(typed: list[str], beginning: int) -> None:
        begin = START[name] if beginning else []
        outcome = attempt.run(name, *begin, *typed, prepare=write_files)
        ended[outcome.status] += 1

    every_case()
    figure(f"bad command lines of `{name}`", f"{ended[0]} done, {ended[2]} refused in one line")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["bench.run", "ipc=\x1b[31m\x07"], r"ipc=\x1b[31m\x07 is not a whole number"),
        (["bench.run", f"method_options={BOMB}"], "it holds more than 100,000 values"),
        (["bench.run", "method_options={a: &a [*a]}"], "nested too deeply"),
        (["bench.run", f"evaluation_steps={'[' * 60}{']' * 60}"], "nested too deeply"),
        # There is no network: nothing is left of the folder that was to hold the data.
        (["bench.prepare", "dataset=cifar10"], "cifar10 could not be downloaded"),
    ],
)
def test_what_was_once_no_single_line_is_one(typed: list[str], message: str, attempt: Try) -> None:
    outcome = attempt.run(*typed)
    assert outcome.status == 2
    assert message in outcome.err


def test_a_profile_of_endless_nodes_is_planned_at_once(attempt: Try) -> None:
    many = ["nodes=1000000000", "tasks_per_node=1000000000", "replicas=6"]
    outcome = attempt.run("bench.sweep", "launcher=slurm", "scripts_only=true", *BEGIN, *many)
    assert outcome.status == 0
    assert "sbatch" in outcome.out


def test_every_command_is_here() -> None:
    assert set(START) == set(COMMANDS)
