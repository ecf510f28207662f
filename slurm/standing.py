"""How runs stand, from their files and from what the scheduler says of their jobs."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.machine import slurm_is_set_up
from bench.memory import RAN_OUT
from bench.progress import Progress, progress_of
from bench.store import RunFolder
from slurm.scheduler import WHOLE, Job, Scheduler
from slurm.submission import Note, Submission

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
# What SLURM writes into a job's log; the first that is found counts.
WORDS = [
    (RAN_OUT, "out of memory"),
    (re.compile(r"DUE TO TIME LIMIT|timed-out too many times"), "time-out"),
    (re.compile(r"DUE TO NODE FAILURE"), "node lost"),
    (re.compile(r"CANCELLED AT"), "cancelled"),
    (re.compile(r"task \d+: Killed"), "killed"),
]


def standings(runs: Sequence[RunFolder], scheduler: Scheduler) -> list[tuple[RunFolder, Progress]]:
    """Every run with its progress, read now; the scheduler is asked once for all."""
    if not slurm_is_set_up():
        return [(run, progress_of(run)) for run in runs]
    notes = [None if run.is_done() else Note.of(run) for run in runs]
    names = {note.name for note in notes if note is not None}
    jobs = scheduler.jobs(names) if names else {}
    return [
        (run, progress_of(run) if note is None else standing(run, note, jobs, scheduler.silent))
        for run, note in zip(runs, notes, strict=True)
    ]


def standing(
    run: RunFolder, note: Note, jobs: Mapping[tuple[str, int], Job], silent: str
) -> Progress:
    """How a run that was submitted stands.

    Its own files come first: they know most, and last longest. Then the scheduler, which forgets a
    job some minutes after its end. Then the log of the job, into which SLURM writes what it did.

    Args:
        note: the latest submission of the run.
        jobs: what the scheduler said.
        silent: why it said nothing; empty where it did answer.
    """
    known = progress_of(run)
    job = jobs.get((note.name, note.task)) or jobs.get((note.name, WHOLE))
    if known.state == "done":
        return known
    if job is not None and not job.ended:
        return _with_job(known, job)
    beat = run.read("progress") or {}
    begun = beat.get("time", 0.0) > note.time
    if begun and not beat.get("job"):
        return known  # somebody went on with it outside of the cluster
    if known.state == "failed" or (known.state == "running" and job is None):
        return known
    if known.state == "running" and time.time() - beat["time"] < SECONDS_OF_LIFE:
        return known  # its job is over, but it lives: one of SLURM's own processes was killed
    if job is None and silent:
        return replace(known, cause=silent, job=note.name)
    submission = Submission.of(run, note)
    if job is None and not begun:
        if any(name == note.name for name, _ in jobs):
            # SLURM forgets a task at once that is cancelled before it starts.
            gone = f"cancelled: before it started (task {note.task} of {note.name})"
            return replace(known, state="failed", kind="cancelled", cause=gone)
        if note.by_hand:
            return replace(known, cause=f"no job yet of {submission.script}")
        patience = SECONDS_TO_BE_LISTED if submission.accepted() else SECONDS_TO_SUBMIT
        if time.time() - note.time < patience or submission.is_being_sent():
            return replace(known, state="waiting", cause=BEING_SUBMITTED, job=note.name)
    return _ended(known, submission, note.task, job)


def _with_job(known: Progress, job: Job) -> Progress:
    """How a run stands whose job has not ended."""
    known = replace(known, job=job.id)
    if known.state == "running" or (known.state == "failed" and job.works):
        return known
    if job.works:
        return replace(known, state="running", activity=f"job {job.id} starts", cause="", kind="")
    state = "blocked" if job.blocked else "waiting"
    return replace(known, state=state, cause=f"job {job.id}: {job.why}", kind="")


def _ended(known: Progress, submission: Submission, task: int, job: Job | None) -> Progress:
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
