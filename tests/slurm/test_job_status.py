"""What is said of a run, from its files, its job and the job's log, where they say different
things; and how the scheduler's answers are read."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.config.grid import single_run
from bench.runs.heartbeat import Progress
from bench.runs.run_folder import RunFolder, Store
from bench.system.errors import UserError
from bench.system.files import time_there, write_json
from slurm import scheduler
from slurm.job_status import BEING_SUBMITTED, Observation, submitted_status
from slurm.scheduler import Job, Scheduler, SchedulerSilent
from slurm.submission_record import START, Note, Submission

NAME = "grid-0123abcd"
Environment = Callable[..., RunFolder]


def write_aged(run: RunFolder, name: str, content: dict[str, Any], seconds: float) -> None:
    """Write a file that is so old by the file server's clock: what stands in it does not count."""
    run.write(name, content)
    then = time.time() - seconds
    os.utime(run.path / f"{name}.json", (then, then))


@pytest.fixture
def submitted(tmp_path: Path) -> Environment:
    """`submitted(beat={...}, error={...}, said="...", seconds_ago=100)`: a run with such files."""

    def make(
        beat: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
        said: str = "",
        seconds_ago: float = 1000,
        by_hand: bool = False,
        log_age: float = 0,
    ) -> RunFolder:
        config = single_run("quick", {})
        run = Store(tmp_path).run(config)
        run.create(config)
        folder = tmp_path / "slurm" / NAME
        folder.mkdir(parents=True)
        record = {"runs": ["other-0", run.name], "processes": 1, "place": [], "profile": {}}
        write_json(folder / "submission.json", record)
        (folder / "7_0_0_log.out").write_text("DUE TO TIME LIMIT: this is another task's log\n")
        if said:
            (folder / "7_1_0_log.out").write_text(said)
            then = time.time() - log_age
            os.utime(folder / "7_1_0_log.out", (then, then))
        write_aged(run, "job", asdict(Note(NAME, 1, 0.0, by_hand)), seconds_ago)
        if beat is not None:
            usual = {"state": "running", "host": "elsewhere", "pid": 1, "process_started": 0}
            usual |= {"job": "7_1", "step": 5, "outer_steps": 9, "activity": "distilling"}
            usual |= {"seconds_per_step": 0.5, "time": 0.0}
            content = {key: value for key, value in beat.items() if key != "seconds_ago"}
            write_aged(run, "progress", {**usual, **content}, beat.get("seconds_ago", 500))
        if error is not None:
            run.write("error", {"message": "so it was", **error})
        return run

    return make


def progress_of(
    run: RunFolder,
    jobs: dict[tuple[str, int], Job],
    silent: str = "",
    node_state: Callable[[str], str] = lambda node: "",
) -> Progress:
    """The status of a run, if the scheduler answers with these jobs."""
    note = Note.read(run.read("job") or {})
    submission = Submission.of(run, note)
    observed = Observation(run.small_files(), time_there(run.path), submission, node_state)
    return submitted_status(run, note, jobs, silent, observed)


def status(run: RunFolder, job: Job | None = None, silent: str = "") -> tuple[str, str, str]:
    """State, kind and job of the status."""
    progress = progress_of(run, {(NAME, 1): job} if job else {}, silent)
    return progress.state, progress.kind, progress.job


ALIVE = {"seconds_ago": 0}
STOPPED = {"state": "stopped"}


@pytest.mark.parametrize(
    ("files", "state", "reason", "expected"),
    [
        ({}, "PENDING", "Priority", ("waiting", "", "7_1")),
        ({"beat": STOPPED}, "PENDING", "BeginTime", ("waiting", "", "7_1")),
        ({}, "PENDING", "PartitionTimeLimit", ("blocked", "", "7_1")),
        ({}, "PENDING", "QOSMaxWallDurationPerJobLimit", ("blocked", "", "7_1")),
        ({}, "PENDING", "launch failed requeued held", ("blocked", "", "7_1")),
        ({}, "PENDING", "JobArrayTaskLimit", ("waiting", "", "7_1")),
        ({}, "PENDING", "AssocGrpGRES", ("waiting", "", "7_1")),
        ({}, "REQUEUE_HOLD", "None", ("blocked", "", "7_1")),
        ({}, "RUNNING", "None", ("running", "", "7_1")),
        ({"beat": ALIVE}, "RUNNING", "None", ("running", "", "7_1")),
        ({"beat": {}}, "RUNNING", "None", ("running", "", "7_1")),
        ({"beat": STOPPED}, "COMPLETING", "None", ("running", "", "7_1")),
        ({"error": {"kind": "diverged"}}, "RUNNING", "None", ("failed", "diverged", "7_1")),
        # Two copies: the one that the scheduler does not know of is at work.
        ({"beat": ALIVE}, "PENDING", "Resources", ("running", "", "7_1")),
    ],
)
def test_while_the_job_lives_the_scheduler_says_whether_it_waits_or_works(
    submitted: Environment,
    files: dict[str, Any],
    state: str,
    reason: str,
    expected: tuple[str, ...],
) -> None:
    assert status(submitted(**files), Job("7_1", state, reason)) == expected


@pytest.mark.parametrize(
    ("files", "state", "told"),
    [
        ({}, "RUNNING", "job 7_1 starts"),
        (
            {"said": f"{START} now", "log_age": 200},
            "RUNNING",
            "silent for 3 min 20 s (job 7_1 starts)",
        ),
        ({"said": f"{START} now", "log_age": 2}, "RUNNING", "job 7_1 starts"),
        ({"beat": ALIVE}, "RUNNING", "distilling"),
        ({"beat": {"seconds_ago": 160}}, "RUNNING", "silent for 2 min 40 s (distilling)"),
        ({"beat": {"seconds_ago": 100}}, "RUNNING", "silent for 1 min 40 s (distilling)"),
        # It was started a second time: the silence before is no news.
        (
            {"beat": {"seconds_ago": 160}, "said": f"{START} now", "log_age": 3},
            "RUNNING",
            "job 7_1 starts again",
        ),
        ({"beat": STOPPED}, "RUNNING", "job 7_1 ends: the run has stopped"),
        ({"beat": STOPPED}, "COMPLETING", "job 7_1 is ending"),
        ({"beat": ALIVE}, "COMPLETING", "distilling; job 7_1 is ending"),
        ({"beat": {}}, "SUSPENDED", "job 7_1 is suspended"),
        ({}, "CONFIGURING", "job 7_1 waits for its node to be set up"),
        ({"beat": STOPPED}, "PENDING", "job 7_1 was requeued: BeginTime"),
        ({"beat": {"seconds_ago": 100}}, "PENDING", "job 7_1 was requeued: BeginTime"),
        ({}, "PENDING", "job 7_1: BeginTime"),
    ],
)
def test_what_a_job_does_and_how_long_its_run_is_silent_is_told(
    submitted: Environment, files: dict[str, Any], state: str, told: str
) -> None:
    run = submitted(**files)
    found = progress_of(run, {(NAME, 1): Job("7_1", state, "BeginTime")})
    assert found.description == told
    assert found.seconds_left is None or found.silent_seconds is None


@pytest.mark.parametrize(
    ("node_state", "told"),
    [
        ("down*", "its node n2 does not respond (down*)"),
        ("allocated*", "its node n2 does not respond (allocated*)"),
        ("down", "its node n2 is down"),
        ("allocated", ""),
    ],
)
def test_a_silent_run_on_a_node_that_is_gone_says_so(
    submitted: Environment, node_state: str, told: str
) -> None:
    run = submitted(beat={"seconds_ago": 160, "node": "n2"})
    jobs = {(NAME, 1): Job("7_1", "RUNNING", "None")}
    found = progress_of(run, jobs, node_state={"n2": node_state}.__getitem__)
    assert found.description.startswith("silent for 2 min 4")
    assert found.note == told


def test_clocks_that_differ_make_no_silence(submitted: Environment) -> None:
    run = submitted(beat={**ALIVE, "time": time.time() - 5000})  # its node is far behind
    jobs = {(NAME, 1): Job("7_1", "RUNNING", "None")}
    assert progress_of(run, jobs).description == "distilling"


@pytest.mark.parametrize(
    ("files", "state", "expected"),
    [
        ({"beat": {}}, "TIMEOUT", ("failed", "time-out", "")),
        ({"beat": {}}, "NODE_FAIL", ("failed", "node lost", "")),
        ({"beat": {}}, "OUT_OF_MEMORY", ("failed", "out of memory", "")),
        ({"beat": STOPPED}, "CANCELLED", ("failed", "cancelled", "")),
        ({}, "CANCELLED", ("failed", "cancelled", "")),
        ({"error": {"kind": "diverged"}}, "FAILED", ("failed", "diverged", "")),
        ({"beat": {}, "said": "exceeded memory limit"}, "FAILED", ("failed", "out of memory", "")),
        ({"beat": {}, "said": "task 0: Killed"}, "FAILED", ("failed", "killed", "")),
        ({"said": "No module named bench"}, "FAILED", ("failed", "error", "")),
        ({"beat": {}}, "COMPLETED", ("lost", "", "")),
        ({"beat": {"seconds_ago": 30}}, "NODE_FAIL", ("failed", "node lost", "")),
        ({"beat": ALIVE}, "COMPLETED", ("running", "", "")),
        # Somebody went on with it outside of the cluster.
        ({"beat": {"job": "", "state": "stopped"}}, "FAILED", ("stopped", "", "")),
    ],
)
def test_after_its_end_the_cause_is_named(
    submitted: Environment, files: dict[str, Any], state: str, expected: tuple[str, ...]
) -> None:
    assert status(submitted(**files), Job("7_1", state, "None")) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"beat": {}, "said": "*** JOB 7 ON n1 CANCELLED AT 9:00 ***"}, ("failed", "cancelled")),
        ({"beat": {}, "said": "CANCELLED AT 9:00 DUE TO TIME LIMIT"}, ("failed", "time-out")),
        ({"beat": {}, "said": "CANCELLED AT 9:00 DUE TO NODE FAILURE"}, ("failed", "node lost")),
        ({"beat": {}, "said": "Detected 1 oom_kill event"}, ("failed", "out of memory")),
        # What was said before the last start is no news.
        ({"beat": {}, "said": f"DUE TO TIME LIMIT\n{START} again\nfine"}, ("lost", "")),
        ({"beat": {}}, ("lost", "")),
        ({}, ("lost", "")),
        ({"beat": STOPPED}, ("stopped", "")),
        ({"beat": {"seconds_ago": 30}}, ("running", "")),
    ],
)
def test_a_job_that_the_scheduler_has_forgotten_is_judged_by_its_log_or_lost(
    submitted: Environment, files: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert status(submitted(**files))[:2] == expected


def test_a_line_for_a_whole_job_speaks_for_the_tasks_without_one(submitted: Environment) -> None:
    run = submitted()
    whole = {(NAME, scheduler.WHOLE): Job("7", "CANCELLED", "None")}
    assert progress_of(run, whole).kind == "cancelled"
    assert progress_of(run, {**whole, (NAME, 1): Job("7_1", "RUNNING", "")}).job == "7_1"


def test_right_after_a_submission_an_empty_answer_means_to_wait(submitted: Environment) -> None:
    run = submitted(seconds_ago=5)
    assert status(run) == ("waiting", "", NAME)
    assert progress_of(run, {}).cause == BEING_SUBMITTED


def test_a_task_that_its_array_has_no_more_was_cancelled_before_it_started(
    submitted: Environment,
) -> None:
    run = submitted(seconds_ago=5)
    others = {(NAME, 0): Job("7_0", "RUNNING", "None")}
    assert progress_of(run, others).kind == "cancelled"


def test_an_accepted_submission_is_soon_expected_in_the_answer(submitted: Environment) -> None:
    run = submitted(seconds_ago=30)
    assert status(run)[0] == "waiting"
    Submission(run.path.parent.parent / "slurm" / NAME).accept("7")
    assert status(run)[0] == "lost"


def test_a_script_that_nobody_has_submitted_waits_without_a_job(submitted: Environment) -> None:
    assert status(submitted(by_hand=True, seconds_ago=5)) == ("waiting", "", "")


def test_while_the_scheduler_is_silent_nothing_is_called_lost(submitted: Environment) -> None:
    assert status(submitted(), silent="no answer") == ("waiting", "", NAME)


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`squeue(script)`: puts a squeue of this shell script on the path; returns where its calls are
    counted."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def make(script: str) -> Path:
        command = tmp_path / "bin/squeue"
        command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{script}\n')
        command.chmod(0o755)
        return tmp_path / "calls"

    return make


def test_one_query_serves_all_jobs_for_half_a_minute(squeue: Callable[[str], Path]) -> None:
    calls = squeue(
        "echo 'a-1|12|0|RUNNING|None'; echo 'a-1|12|10|PENDING|a | b'; echo 'b-2|13|N/A|FAILED|x'"
    )
    queried = Scheduler()
    found = queried.jobs(["b-2", "a-1"])
    assert found == {
        ("a-1", 0): Job("12_0", "RUNNING", "None"),
        ("a-1", 10): Job("12_10", "PENDING", "a | b"),
        ("b-2", scheduler.WHOLE): Job("13", "FAILED", "x"),
    }
    assert queried.jobs(["a-1"]) is found
    (call,) = calls.read_text().splitlines()
    assert "--name=a-1,b-2 " in call
    queried.jobs(["c-3"])
    assert len(calls.read_text().splitlines()) == 2
    assert Scheduler().jobs([]) == {}


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        ("N/A", []),
        ("4", [4]),
        ("0-2", [0, 1, 2]),
        ("1,3-4,9%2", [1, 3, 4, 9]),
        ("0-8:4", [0, 4, 8]),
        ("7,10-...", [7, 10]),
    ],
)
def test_tasks_that_squeue_writes_as_one_are_told_apart(text: str, tasks: list[int]) -> None:
    assert scheduler.listed_tasks(text) == tasks


def test_a_controller_that_is_away_is_told_from_a_refusal(squeue: Callable[[str], Path]) -> None:
    squeue("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    queried = Scheduler()
    assert queried.jobs(["a-1"]) == {}
    assert "does not answer" in queried.silent
    squeue("echo 'squeue: error: Invalid user: nobody' >&2; exit 1")
    with pytest.raises(UserError, match="Invalid user") as refused:
        scheduler.query(["a-1"])
    assert not isinstance(refused.value, SchedulerSilent)


def test_a_silent_scheduler_does_not_take_back_what_it_said(
    squeue: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "SECONDS_BETWEEN_QUERIES", 0.0)
    squeue("echo 'a-1|12|0|RUNNING|None'")
    queried = Scheduler()
    before = queried.jobs(["a-1"])
    squeue("echo 'Socket timed out on send/recv operation' >&2; exit 1")
    assert queried.jobs(["a-1"]) == before
    assert queried.silent


def test_a_job_inside_a_job_asks_for_what_it_says_alone(
    squeue: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")
    monkeypatch.setenv("SLURM_CONF", "kept")
    squeue("env | grep ^SLURM_ | sed 's/=.*/|12|3|RUNNING|x/'")
    assert list(scheduler.query(["a"])) == [("SLURM_CONF", 3)]
