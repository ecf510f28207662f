"""The status of runs, from their files and from what the scheduler says about their jobs."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.runs.heartbeat import SILENT_AFTER_SECONDS_ELSEWHERE, Progress, progress_of
from bench.runs.run_folder import RunFolder, SmallFiles
from bench.sweeps.status_table import RunStatus
from bench.system.files import is_full, time_there
from bench.system.machine import slurm_is_set_up
from bench.system.peak_memory import RAN_OUT
from slurm.scheduler import WHOLE, Job, Scheduler
from slurm.submission_record import Note, Submission

# A submission may take so long to reach the scheduler after its record was written.
SECONDS_TO_SUBMIT = 60.0
SECONDS_TO_BE_LISTED = 10.0  # by squeue, after sbatch has given an id
SECONDS_AFTER_LAST_BEAT = 5.0  # after its last beat, for a run whose job has ended
BEING_SUBMITTED = "being submitted"

KINDS = {
    "TIMEOUT": "time-out",
    "DEADLINE": "time-out",
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node lost",
    "BOOT_FAIL": "node lost",
    "CANCELLED": "cancelled",
    "PREEMPTED": "cancelled",
    "REVOKED": "cancelled",
}
# What a job with a node does, if it is not simply running.
ACTIVITIES = {
    "COMPLETING": "is ending",
    "CONFIGURING": "waits for its node to be set up",
    "SUSPENDED": "is suspended",
    "STOPPED": "is suspended",
    "STAGE_OUT": "is ending",
}
# Patterns in the log of a job, mostly written by SLURM, and what they mean; the first match counts.
LOG_PATTERNS = [
    (re.compile(r"No space left on device|[Qq]uota exceeded"), "disk full"),
    (RAN_OUT, "out of memory"),
    (re.compile(r"DUE TO TIME LIMIT|timed-out too many times"), "time-out"),
    (re.compile(r"DUE TO NODE FAILURE"), "node lost"),
    (re.compile(r"CANCELLED AT"), "cancelled"),
    (re.compile(r"task \d+: Killed"), "killed"),
]


def statuses(runs: Sequence[RunFolder], scheduler: Scheduler) -> list[RunStatus]:
    """Every run with its progress, read now; the scheduler is asked once for all."""
    now = time_there(runs[0].path.parent) if runs else 0.0
    run_files = [(run, run.small_files()) for run in runs]
    if not slurm_is_set_up():
        return [(run, progress_of(run, files, now)) for run, files in run_files]
    notes = [
        Note.read(files.contents["job"]) if "job" in files.contents and not files.done else None
        for _, files in run_files
    ]
    names = {note.name for note in notes if note is not None}
    jobs = scheduler.jobs(names) if names else {}
    # One for all runs of a job array, so that its files are read once.
    submissions = {
        note.name: Submission.of(run, note) for run, note in zip(runs, notes, strict=True) if note
    }
    result = []
    for (run, files), note in zip(run_files, notes, strict=True):
        if note is None:
            result.append((run, progress_of(run, files, now)))
            continue
        observed = Observation(files, now, submissions[note.name], scheduler.node_state)
        result.append((run, submitted_status(run, note, jobs, scheduler.silent, observed)))
    return result


def is_active(progress: Progress) -> bool:
    """Whether a run is running, or will run without anybody's help."""
    stuck = progress.state in ("blocked", "damaged")
    return progress.state == "running" or (bool(progress.job) and not stuck)


@dataclass(frozen=True)
class Observation:
    """What was read about a submitted run.

    Attributes:
        files: of the run.
        now: the time by the clock of the file server, which differs from those of the machines.
        submission: the latest one of the run.
        node_state: returns the state of a node of the cluster, in SLURM's words.
    """

    files: SmallFiles
    now: float
    submission: Submission
    node_state: Callable[[str], str]

    @property
    def beat(self) -> dict[str, Any]:
        """The last heartbeat of the run."""
        return self.files.contents.get("progress", {})

    @property
    def started(self) -> bool:
        """Whether the run has given a sign of life since it was submitted."""
        written = self.files.written
        return written.get("progress", 0.0) > written.get("job", 0.0)

    @property
    def damage(self) -> str:
        """The damage of the files of its submission, in one line."""
        return "; ".join(self.submission.damages.values())

    def since(self, name: str) -> float:
        """Seconds since a small file was written."""
        return max(0.0, self.now - self.files.written.get(name, 0.0))

    def node_problem(self) -> str:
        """What is wrong with the node of the run's last heartbeat; empty if nothing is."""
        node = self.beat.get("node", "")
        state = self.node_state(node) if node else ""
        if state.endswith("*"):
            return f"its node {node} does not respond ({state})"
        return f"its node {node} is {state}" if state.startswith(("down", "fail")) else ""


def submitted_status(
    run: RunFolder,
    note: Note,
    jobs: Mapping[tuple[str, int], Job],
    silent: str,
    observed: Observation,
) -> Progress:
    """The status of a run that was submitted.

    Its own files come first: they know most, and last longest. Then the scheduler, which forgets a
    job some minutes after its end. Then the log of the job, to which SLURM writes too.

    Args:
        note: the latest submission of the run.
        jobs: the answer of the scheduler.
        silent: why the scheduler did not answer; empty if it did.
        observed: what was read about the run.
    """
    progress = progress_of(run, observed.files, observed.now)
    job = jobs.get((note.name, note.task)) or jobs.get((note.name, WHOLE))
    if progress.state == "done":
        return progress
    submission = observed.submission
    if job is not None and not job.ended:
        if progress.state == "damaged":
            return replace(progress, job=job.id)
        with_job = _with_job(progress, job, lambda: submission.log(note.task), observed)
        return _with_damage(with_job, observed)
    if progress.state == "damaged" or (observed.started and not observed.beat.get("job")):
        return progress  # its status is unknown; or somebody resumed it outside of the cluster
    if progress.state == "failed" or (progress.state == "running" and job is None):
        return progress
    if progress.state == "running" and observed.since("progress") < SECONDS_AFTER_LAST_BEAT:
        return progress  # its job is over, but it is alive: a process of SLURM was killed
    if job is None and silent:
        return replace(progress, cause=silent, job=note.name)
    if job is None and not observed.started:
        if any(name == note.name for name, _ in jobs):
            # SLURM forgets a task at once that is cancelled before it starts.
            cause = f"cancelled: before it started (task {note.task} of {note.name})"
            return replace(progress, state="failed", kind="cancelled", cause=cause)
        if note.by_hand:
            missing = f"; {observed.damage}" if observed.damage else ""
            return replace(progress, cause=f"no job yet of {submission.script}{missing}")
        limit = SECONDS_TO_BE_LISTED if submission.accepted() else SECONDS_TO_SUBMIT
        if observed.since("job") < limit or submission.is_being_sent():
            return replace(progress, state="waiting", cause=BEING_SUBMITTED, job=note.name)
    ended = _ended(run, progress, submission, note.task, job)
    return replace(ended, note=observed.damage) if observed.damage else ended


def _with_damage(progress: Progress, observed: Observation) -> Progress:
    """The status of a run whose job has not ended, if files of its submission are damaged."""
    if not observed.submission.damages:
        return progress
    running = progress.state == "running" and not progress.activity.startswith("job ")
    if running or "submission" not in observed.submission.damages:
        note = "; ".join(filter(None, [progress.note, observed.damage]))
        return replace(progress, note=note)
    remedy = "end it with cancel=true, then sweep again"
    cause = f"{observed.damage}: job {progress.job} cannot start; {remedy}"
    return replace(progress, state="damaged", cause=cause, activity="", note="")


def _with_job(
    progress: Progress, job: Job, log: Callable[[], Path | None], observed: Observation
) -> Progress:
    """The status of a run whose job has not ended."""
    progress = replace(progress, job=job.id)
    if progress.state == "failed" and job.works:
        return progress
    if job.works:
        running = _with_node(progress, job, log, observed)
        problem = observed.node_problem() if running.silent_seconds is not None else ""
        return replace(running, note="; ".join(filter(None, [running.note, problem])))
    if progress.state == "running" and progress.silent_seconds is None:
        return progress  # of two copies of the job the other one is running
    again = " was requeued" if observed.started else ""
    state = "blocked" if job.blocked else "waiting"
    return replace(
        progress, state=state, cause=f"job {job.id}{again}: {job.why}", kind="", silent_seconds=None
    )


def _with_node(
    progress: Progress, job: Job, log: Callable[[], Path | None], observed: Observation
) -> Progress:
    """The status of a run whose job has a node."""
    doing = ACTIVITIES.get(job.state, "")
    if progress.state == "running":
        activity = f"{progress.activity}; job {job.id} {doing}" if doing else progress.activity
        return replace(progress, activity=activity)
    stopped = progress.state == "stopped"
    progress = replace(progress, state="running", cause="", kind="")
    if doing:
        return replace(progress, activity=f"job {job.id} {doing}")
    log_file = log()  # the job writes to it when it starts and when it ends
    started = log_file.stat().st_mtime if log_file is not None else None
    last_beat = observed.files.written.get("progress", 0.0)
    if observed.started and (started is None or started <= last_beat):
        if stopped:
            return replace(progress, activity=f"job {job.id} ends: the run has stopped")
        activity = observed.beat.get("activity", "")
        return replace(progress, activity=activity, silent_seconds=observed.since("progress"))
    activity = f"job {job.id} starts{' again' if observed.started else ''}"
    if started is not None and observed.now - started > SILENT_AFTER_SECONDS_ELSEWHERE:
        return replace(progress, activity=activity, silent_seconds=observed.now - started)
    return replace(progress, activity=activity)


def _ended(
    run: RunFolder, progress: Progress, submission: Submission, task: int, job: Job | None
) -> Progress:
    """The status of a run whose job ended without a trace in the run's own files."""
    lines = submission.last_lines(task)
    kind, line = next(
        ((kind, line) for pattern, kind in LOG_PATTERNS for line in lines if pattern.search(line)),
        ("", lines[-1] if lines else ""),
    )
    if job is not None:
        kind = KINDS.get(job.state, kind)
    name = f"job {job.id}" if job is not None else "its job"
    if not kind and job is not None and job.state == "FAILED":
        kind = "error" if lines else "killed"
    if kind in ("", "error", "killed") and is_full(run.path):
        kind = "disk full"  # it could not write so itself
    if kind:
        ended = f" ended as {job.state}" if job is not None else " has ended"
        return replace(
            progress,
            state="failed",
            kind=kind,
            cause=f"{kind}: {name}{ended}{f' ({line.strip()})' if line else ''}",
        )
    if progress.state == "stopped":
        return progress
    end = "ended without a message" if job is not None or lines else "is unknown to the scheduler"
    return replace(progress, state="lost", cause=f"{name} {end}; the run can resume")
