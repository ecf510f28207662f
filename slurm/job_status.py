"""How runs stand, from their files and from what the scheduler says of their jobs."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.runs.heartbeat import SILENT_AFTER_SECONDS_ELSEWHERE, Progress, progress_of
from bench.runs.run_folder import RunFolder, SmallFiles
from bench.system.files import is_full, time_there
from bench.system.machine import slurm_is_set_up
from bench.system.peak_memory import RAN_OUT
from slurm.scheduler import WHOLE, Job, Scheduler
from slurm.submission_record import Note, Submission

# So long after it was written down a submission may not have reached the scheduler yet.
SECONDS_TO_SUBMIT = 60.0
SECONDS_TO_BE_LISTED = 10.0  # by squeue, after sbatch has given an id
SECONDS_OF_LIFE = 5.0  # after its last beat, for a run whose job has ended
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
# What a job does that has a node, where it does not just run.
DOING = {
    "COMPLETING": "is ending",
    "CONFIGURING": "waits for its node to be set up",
    "SUSPENDED": "is suspended",
    "STOPPED": "is suspended",
    "STAGE_OUT": "is ending",
}
# What is written into a job's log, mostly by SLURM; the first that is found counts.
WORDS = [
    (re.compile(r"No space left on device|[Qq]uota exceeded"), "disk full"),
    (RAN_OUT, "out of memory"),
    (re.compile(r"DUE TO TIME LIMIT|timed-out too many times"), "time-out"),
    (re.compile(r"DUE TO NODE FAILURE"), "node lost"),
    (re.compile(r"CANCELLED AT"), "cancelled"),
    (re.compile(r"task \d+: Killed"), "killed"),
]


def standings(runs: Sequence[RunFolder], scheduler: Scheduler) -> list[tuple[RunFolder, Progress]]:
    """Every run with its progress, read now; the scheduler is asked once for all."""
    now = time_there(runs[0].path.parent) if runs else 0.0
    looked = [(run, run.small_files()) for run in runs]
    if not slurm_is_set_up():
        return [(run, progress_of(run, files, now)) for run, files in looked]
    notes = [
        Note.read(files.contents["job"]) if "job" in files.contents and not files.done else None
        for _, files in looked
    ]
    names = {note.name for note in notes if note is not None}
    jobs = scheduler.jobs(names) if names else {}
    any_run_of = {note.name: (run, note) for run, note in zip(runs, notes, strict=True) if note}
    damages = {name: Submission.of(*one).damages() for name, one in any_run_of.items()}
    found = []
    for (run, files), note in zip(looked, notes, strict=True):
        if note is None:
            found.append((run, progress_of(run, files, now)))
            continue
        look = Look(files, now, damages[note.name], scheduler.node_state)
        found.append((run, standing(run, note, jobs, scheduler.silent, look)))
    return found


@dataclass(frozen=True)
class Look:
    """What was seen of a run that was submitted.

    Attributes:
        files: of the run.
        now: the time by the clock of the file server, which differs from those of the machines.
        damages: what is wrong with the files of its submission, by name.
        node_state: tells the state of a node of the cluster, in SLURM's words.
    """

    files: SmallFiles
    now: float
    damages: dict[str, str]
    node_state: Callable[[str], str]

    @classmethod
    def at(cls, run: RunFolder, note: Note) -> "Look":
        """At one run, alone."""
        damages = Submission.of(run, note).damages()
        return cls(run.small_files(), time_there(run.path), damages, lambda node: "")

    @property
    def beat(self) -> dict[str, Any]:
        """The last heartbeat of the run."""
        return self.files.contents.get("progress", {})

    @property
    def begun(self) -> bool:
        """Whether the run has given a sign of life since it was submitted."""
        written = self.files.written
        return written.get("progress", 0.0) > written.get("job", 0.0)

    @property
    def damage(self) -> str:
        """All that is wrong with the files of its submission, in a line."""
        return "; ".join(self.damages.values())

    def since(self, name: str) -> float:
        """Seconds since a small file was written."""
        return max(0.0, self.now - self.files.written.get(name, 0.0))

    def of_node(self) -> str:
        """What is wrong with the node that the run was last seen on; empty where nothing is."""
        node = self.beat.get("node", "")
        state = self.node_state(node) if node else ""
        if state.endswith("*"):
            return f"its node {node} does not respond ({state})"
        return f"its node {node} is {state}" if state.startswith(("down", "fail")) else ""


def standing(
    run: RunFolder,
    note: Note,
    jobs: Mapping[tuple[str, int], Job],
    silent: str,
    look: Look | None = None,
) -> Progress:
    """How a run that was submitted stands.

    Its own files come first: they know most, and last longest. Then the scheduler, which forgets a
    job some minutes after its end. Then the log of the job, into which SLURM writes what it did.

    Args:
        note: the latest submission of the run.
        jobs: what the scheduler said.
        silent: why it said nothing; empty where it did answer.
        look: what was seen of the run, where somebody has looked.
    """
    look = look or Look.at(run, note)
    known = progress_of(run, look.files, look.now)
    job = jobs.get((note.name, note.task)) or jobs.get((note.name, WHOLE))
    if known.state == "done":
        return known
    submission = Submission.of(run, note)
    if job is not None and not job.ended:
        if known.state == "damaged":
            return replace(known, job=job.id)
        with_job = _with_job(known, job, lambda: submission.log(note.task), look)
        return _with_damage(with_job, look)
    if known.state == "damaged" or (look.begun and not look.beat.get("job")):
        return known  # where nobody can tell; or somebody went on with it outside of the cluster
    if known.state == "failed" or (known.state == "running" and job is None):
        return known
    if known.state == "running" and look.since("progress") < SECONDS_OF_LIFE:
        return known  # its job is over, but it lives: one of SLURM's own processes was killed
    if job is None and silent:
        return replace(known, cause=silent, job=note.name)
    if job is None and not look.begun:
        if any(name == note.name for name, _ in jobs):
            # SLURM forgets a task at once that is cancelled before it starts.
            gone = f"cancelled: before it started (task {note.task} of {note.name})"
            return replace(known, state="failed", kind="cancelled", cause=gone)
        if note.by_hand:
            missing = f"; {look.damage}" if look.damage else ""
            return replace(known, cause=f"no job yet of {submission.script}{missing}")
        patience = SECONDS_TO_BE_LISTED if submission.accepted() else SECONDS_TO_SUBMIT
        if look.since("job") < patience or submission.is_being_sent():
            return replace(known, state="waiting", cause=BEING_SUBMITTED, job=note.name)
    ended = _ended(run, known, submission, note.task, job)
    return replace(ended, note=look.damage) if look.damage else ended


def _with_damage(known: Progress, look: Look) -> Progress:
    """How a run stands whose job has not ended, where files of the submission are damaged."""
    if not look.damages:
        return known
    at_work = known.state == "running" and not known.activity.startswith("job ")
    if at_work or "submission" not in look.damages:
        note = "; ".join(filter(None, [known.note, look.damage]))
        return replace(known, note=note)
    cause = f"{look.damage}: job {known.job} cannot start; cancel=true ends it, then sweep again"
    return replace(known, state="damaged", cause=cause, activity="", note="")


def _with_job(known: Progress, job: Job, log: Callable[[], Path | None], look: Look) -> Progress:
    """How a run stands whose job has not ended."""
    known = replace(known, job=job.id)
    if known.state == "failed" and job.works:
        return known
    if job.works:
        working = _at_work(known, job, log, look)
        gone = look.of_node() if working.silent_seconds is not None else ""
        return replace(working, note="; ".join(filter(None, [working.note, gone])))
    if known.state == "running" and known.silent_seconds is None:
        return known  # of two copies of the job the other one is at work
    again = " was requeued" if look.begun else ""
    state = "blocked" if job.blocked else "waiting"
    return replace(
        known, state=state, cause=f"job {job.id}{again}: {job.why}", kind="", silent_seconds=None
    )


def _at_work(known: Progress, job: Job, log: Callable[[], Path | None], look: Look) -> Progress:
    """How a run stands whose job has a node."""
    doing = DOING.get(job.state, "")
    if known.state == "running":
        activity = f"{known.activity}; job {job.id} {doing}" if doing else known.activity
        return replace(known, activity=activity)
    stopped = known.state == "stopped"
    known = replace(known, state="running", cause="", kind="")
    if doing:
        return replace(known, activity=f"job {job.id} {doing}")
    log_file = log()  # its job writes into it when it starts, and when it ends
    started = log_file.stat().st_mtime if log_file is not None else None
    last_beat = look.files.written.get("progress", 0.0)
    if look.begun and (started is None or started <= last_beat):
        if stopped:
            return replace(known, activity=f"job {job.id} ends: the run has stopped")
        activity = look.beat.get("activity", "")
        return replace(known, activity=activity, silent_seconds=look.since("progress"))
    activity = f"job {job.id} starts{' again' if look.begun else ''}"
    if started is not None and look.now - started > SILENT_AFTER_SECONDS_ELSEWHERE:
        return replace(known, activity=activity, silent_seconds=look.now - started)
    return replace(known, activity=activity)


def _ended(
    run: RunFolder, known: Progress, submission: Submission, task: int, job: Job | None
) -> Progress:
    """How a run stands whose job ended without a word in the run's own files."""
    said = submission.last_words(task)
    kind, line = next(
        ((kind, line) for words, kind in WORDS for line in said if words.search(line)),
        ("", said[-1] if said else ""),
    )
    if job is not None:
        kind = KINDS.get(job.state, kind)
    name = f"job {job.id}" if job is not None else "its job"
    if not kind and job is not None and job.state == "FAILED":
        kind = "error" if said else "killed"
    if kind in ("", "error", "killed") and is_full(run.path):
        kind = "disk full"  # it could not say so itself
    if kind:
        ended = f" ended as {job.state}" if job is not None else " has ended"
        return replace(
            known,
            state="failed",
            kind=kind,
            cause=f"{kind}: {name}{ended}{f' ({line.strip()})' if line else ''}",
        )
    if known.state == "stopped":
        return known
    gone = "ended without a word" if job is not None or said else "is unknown to the scheduler"
    return replace(known, state="lost", cause=f"{name} {gone}; it can go on from its checkpoint")
