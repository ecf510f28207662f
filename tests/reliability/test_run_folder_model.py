"""The folder of a run against a model of it: whatever is done to its processes, in any order, at
each moment its files are whole and its records are the beginning of the undisturbed run's."""

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bench.runs.run_folder import Store
from tests.reliability.life import GO, NOTICE, Life, Undisturbed
from tests.reliability.whole import check_whole
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

Outcomes = Callable[[Path], dict[str, Any]]
REPORTS = strategies.integers(0, 12)  # a run makes some more than that
MANY = 100  # all of them
MOST_CHANGES = 40  # between two reports; more come only at the beginning and at the end


class RunFolderMachine(RuleBasedStateMachine):
    """Processes that come and go at one run.

    Attributes:
        life: the process that makes the run now, if there is one.
        checkpoint: the run resumes at this outer step, or at a later one.
        finished: whether the run has a result.
        rerun: whether it was requested to be made again, and has not begun.
        starts: of the run since it was last requested, as its manifest must list them.
    """

    def __init__(self, undisturbed: Undisturbed, seen: Counter[str]) -> None:
        super().__init__()
        self.undisturbed, self.seen = undisturbed, seen
        self.root = Path(tempfile.mkdtemp())
        self.folder = Store(self.root).run(undisturbed.config)
        self.folder.create(undisturbed.config)
        self.life: Life | None = None
        self.checkpoint, self.starts = 0, 0
        self.finished = self.rerun = self.had_result = False

    # --- what is done to it, after so many reports of the process that makes it

    @rule(reports=REPORTS)
    def goes_on(self, reports: int) -> None:
        self.life = self.life or self.process()
        while self.life is not None and reports:
            self.proceed(self.life)
            reports -= 1

    @rule(reports=REPORTS, change=strategies.integers(1, MOST_CHANGES))
    def dies_before_a_change_of_a_file(self, reports: int, change: int) -> None:
        self.goes_on(reports)
        while self.life is not None:
            self.proceed(self.life, change)

    @rule(reports=REPORTS)
    def is_killed(self, reports: int) -> None:
        self.goes_on(reports)
        if self.life is not None:
            self.life.kill()
            self.life = None
            self.seen["kills at a report"] += 1
            self.settle()

    @rule(reports=REPORTS.filter(bool))
    def is_asked_to_stop(self, reports: int) -> None:
        self.goes_on(reports)
        if self.life is not None and self.life.at[0] != "begun":
            assert self.life.process.pid is not None
            os.kill(self.life.process.pid, signal.SIGTERM)
            self.goes_on(MANY)
            self.seen["requests to stop"] += 1

    @rule(reports=REPORTS.filter(bool))
    def is_started_twice(self, reports: int) -> None:
        self.goes_on(reports)
        if self.life is not None and self.life.at[0] != "begun":
            assert self.process().go_on()[0] == "taken"
            self.seen["second starters"] += 1

    @rule(reports=REPORTS.filter(bool))
    def is_taken_over(self, reports: int) -> None:
        self.goes_on(reports)
        if self.life is None or self.life.at[0] == "begun":
            return
        token = f"{self.folder.taken_over_by()}+"
        second = self.process(token)
        second.pipe.send(GO)
        wait_until(lambda: self.folder.taken_over_by() == token, "the takeover")
        self.proceed(self.life, NOTICE)
        self.goes_on(MANY)
        self.life = second
        self.arrived(second, second.arrive())
        self.seen["takeovers"] += 1

    @precondition(lambda self: self.life is None and not self.rerun)
    @rule()
    def is_requested_again(self) -> None:
        self.folder.request_rerun()
        self.rerun = True

    # --- the model

    def process(self, takeover: str = "") -> Life:
        life = Life(self.folder.path, self.undisturbed.cache_root, takeover)
        assert life.arrive() == ("begun", 0)
        return life

    def proceed(self, life: Life, order: int = GO) -> None:
        at = life.go_on(order)
        assert at[0] != "dead" or order > 0, "it died of itself"
        self.arrived(life, at)

    def arrived(self, life: Life, at: tuple[str, int]) -> None:
        """Bring the model to where the process has come."""
        what, number = at
        if what == "started":
            if self.rerun:
                self.rerun, self.finished = False, False
                self.checkpoint, self.starts = 0, 0
            assert not self.finished, "a finished run was started again"
            assert number >= self.checkpoint
            self.checkpoint, self.starts = number, self.starts + 1
        elif what == "stepped":
            assert number >= self.checkpoint + 1
            self.checkpoint = number - 1  # that of this step is not yet written
        elif what == "evaluating":
            self.checkpoint = self.undisturbed.config.outer_steps
        elif what == "done":
            self.rerun, self.finished, self.had_result = False, True, True
        elif what == "dead":
            self.seen["kills before a change of a file"] += 1
            self.settle()
        assert what != "taken"
        if life.ended:
            self.life = None

    def settle(self) -> None:
        """Where a process died before it could say so, the files tell how far it came."""
        if self.rerun and not self.folder.is_rerun_requested():
            self.rerun, self.finished = False, False
            self.checkpoint, self.starts = 0, 0
        manifest = self.folder.read("manifest") if not self.rerun else None
        listed = len((manifest or {}).get("starts", []))
        assert listed in (self.starts, self.starts + 1) or self.rerun
        self.starts = listed if not self.rerun else self.starts
        if self.folder.is_done():
            self.finished = self.had_result = True

    # --- what must hold at any moment

    @invariant()
    def every_file_is_whole(self) -> None:
        check_whole(self.folder.path)

    @invariant()
    def the_records_are_a_beginning_of_the_undisturbed_ones(self) -> None:
        untimed = {"seconds": 0, "probe_seconds": 0}
        metrics = [{**line, **untimed} for line in self.folder.records("metrics")]
        assert metrics == self.undisturbed.metrics[: len(metrics)]
        measurements = self.folder.records("measurements")
        assert measurements == self.undisturbed.measurements[: len(measurements)]

    @invariant()
    def a_result_stays_until_there_is_another(self) -> None:
        if self.had_result:
            assert self.folder.has_result()
            result = self.folder.with_result.read("result")
            assert result is not None
            ((_, _, expected, *_),) = self.undisturbed.outcome.values()
            assert result["evaluation"] == expected["evaluation"]

    def teardown(self) -> None:
        """In the end, the run is the undisturbed one."""
        try:
            self.goes_on(MANY)
            if not self.finished or self.rerun:  # a process had been asked to stop
                self.goes_on(MANY)
            assert self.finished
            assert self.undisturbed.outcomes(self.root) == self.undisturbed.outcome
            manifest = self.folder.read("manifest")
            assert manifest is not None
            assert len(manifest["starts"]) == self.starts
            self.seen["runs"] += 1
        finally:
            if self.life is not None:
                self.life.kill()
            shutil.rmtree(self.root)


def test_a_run_s_folder_behaves_as_its_model(
    tiny: list[str],
    tmp_path: Path,
    cache_root: Path,
    outcomes: Outcomes,
    cases: Callable[[int, int], int],
    figure: Callable[[str, object], None],
) -> None:
    undisturbed = Undisturbed(tiny, tmp_path, cache_root, outcomes)
    seen: Counter[str] = Counter()

    class Machine(RunFolderMachine):
        def __init__(self) -> None:
            super().__init__(undisturbed, seen)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=cases(5, 60),
            stateful_step_count=cases(5, 12),
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    figure(
        f"state machine: {', '.join(seen)}; results that differ",
        f"{', '.join(map(str, seen.values()))}; 0",
    )
