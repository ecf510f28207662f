"""Shared by the tests of reliability: how many cases to try, and the table of what was seen."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.reliability.sandbox import Outcome, Sandbox

FULL = os.environ.get("BENCH_RELIABILITY") == "full"

_FIGURE = "reliability figure"


@pytest.fixture(scope="session")
def cases() -> Callable[[int, int], int]:
    """``cases(some, all)``: ``some`` in the test suite, ``all`` in ``make reliability``."""
    return lambda some, all_of_them: all_of_them if FULL else some


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """``figure(what, value)`` adds a line to the table that ``make reliability`` prints."""
    return lambda what, value: record_property(_FIGURE, f"{what} | {value}")


class Try:
    """Commands with bad input: `run` fails where one does not end as it should.

    Args:
        cases: the fixture of this name.
    """

    def __init__(self, sandbox: Sandbox, cases: Callable[[int, int], int]) -> None:
        self.sandbox, self.cases = sandbox, cases

    def settings(self, some: int, all_of_them: int) -> hypothesis.settings:
        """Of Hypothesis. The suite tries the same cases each time: what `make reliability` finds
        must not fail the work of somebody else."""
        return hypothesis.settings(
            max_examples=self.cases(some, all_of_them),
            derandomize=not FULL,
            # A failure prints all that there is to see: to make it smaller would take minutes.
            phases=[hypothesis.Phase.reuse, hypothesis.Phase.generate],
            suppress_health_check=[
                hypothesis.HealthCheck.too_slow,
                hypothesis.HealthCheck.filter_too_much,
                hypothesis.HealthCheck.data_too_large,
                hypothesis.HealthCheck.large_base_example,
            ],
        )

    def run(
        self, module: str, *arguments: str, allowed: Iterable[int] = (0, 2), **given: Any
    ) -> Outcome:
        """As `Sandbox.run`; `allowed` are the valid exit statuses."""
        outcome = self.sandbox.run(module, *arguments, **given)
        if faults := outcome.faults(allowed):
            pytest.fail(f"{module}: {faults}\n{outcome}", pytrace=False)
        return outcome


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory, cache_root: Path) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path_factory.mktemp("cases"), cache_root)
    yield made
    made.close()


@pytest.fixture
def attempt(sandbox: Sandbox, cases: Callable[[int, int], int]) -> Try:
    return Try(sandbox, cases)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All cases may take hours on a busy machine."""
    if FULL:
        for item in items:
            item.add_marker(pytest.mark.timeout(0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table that ``tests/reliability/README.md`` holds."""
    lines = [
        f"| {value} | {report.nodeid.rpartition('/')[2]} |"
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == _FIGURE
    ]
    if FULL and lines:
        terminalreporter.section("figures")
        terminalreporter.write_line("| what | seen | test |\n|---|---|---|")
        for line in sorted(lines):
            terminalreporter.write_line(line)
