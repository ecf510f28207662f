"""The process inside a job: `srun python -m slurm.job FOLDER-OF-A-SUBMISSION`.

submitit catches SLURM's signal before the time limit or a preemption, calls `checkpoint` and
requeues the job. The run itself is a child process, `bench.run`, as in the local pool: if it is
killed (out of memory, a crash of CUDA), this process is left to record it.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from submitit.core.submission import process_job
from submitit.core.utils import DelayedSubmission, JobPaths

from bench.runs.heartbeat import record_failure
from bench.runs.log_file import log_path, open_log
from bench.runs.run_folder import RunFolder, now
from bench.sweeps.child_process import child_environment, record_death
from bench.system import git
from bench.system.errors import INTERRUPTED, SUPERSEDED, Unwritable, UserError, as_unwritable
from bench.system.machine import out_of_memory_kills, slurm_job
from slurm import scheduler
from slurm.submission_record import START, Submission

POLL_SECONDS = 0.1
# SLURM kills what ignores SIGTERM after its KillWait (30 s by default) or a partition's grace time.
SECONDS_TO_BE_KILLED = 600.0
SECONDS_TO_REQUEUE = 20.0  # of those between the signal and the time limit

# What the pickle of a job consists of.
IN_A_PICKLE = {
    ("submitit.core.utils", "DelayedSubmission"),
    ("slurm.job", "RunJob"),
    ("pathlib", "PosixPath"),
    ("pathlib._local", "PosixPath"),  # Python 3.13
}

# SLURM sends its signals to all processes of a step; this one is for the parent alone.
IGNORING_USR2 = 'trap "" USR2; exec "$@"'


def main(argv: list[str]) -> None:
    """Make the run of this task; submitit handles signals."""
    folder = Path(argv[0]).resolve()
    task = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    path = JobPaths(folder, job_id=slurm_job()).submitted_pickle
    if path.exists():
        refuse_foreign(path)
    if _rank() == 0:
        # Left behind if submitit was killed while it wrote its pickle; it would fail because of it.
        path.with_suffix(".save_tmp").unlink(missing_ok=True)
        if not path.exists():  # after a requeue it is there, and holds how many requeues are left
            profile = Submission(folder).record()["profile"]
            delayed = DelayedSubmission(RunJob(folder, task))
            delayed.set_timeout(profile["time_min"], profile["max_requeues"])
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            delayed.dump(temporary)
            temporary.rename(path)
    process_job(folder)


class _OfAJob(pickle.Unpickler):
    """Reads the pickle of a job, and nothing that could run other code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in IN_A_PICKLE:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def refuse_foreign(path: Path) -> None:
    """Refuse a pickle that a job has not written: submitit would run the code in it.

    Raises:
        UserError: it is another one, or damaged.
    """
    try:
        with open(path, "rb") as file:
            _OfAJob(file).load()
    except Exception as error:  # damaged pickles raise many kinds
        raise UserError(f"{path} is damaged, or not of this job ({error}); delete it") from error


class RunJob:
    """The function that submitit calls, pickled as the folder of a submission and a number.

    Args:
        folder: of the submission.
        task: which of its runs.
    """

    def __init__(self, folder: Path, task: int) -> None:
        self.folder = folder
        self.task = task
        self.child: subprocess.Popen[bytes] | None = None
        self.stopping = False

    def __call__(self) -> None:
        """Run to completion, or until another job takes the run over.

        Raises:
            SystemExit: it failed, or has to stop; the job counts as failed.
        """
        submission = Submission(self.folder)
        run = submission.run(self.task)
        self._log_start(submission, run)
        signal.signal(signal.SIGTERM, self._note_stop)
        kills_before = out_of_memory_kills()
        try:
            status = self._make(submission, run)
        except Unwritable as error:
            record_failure(
                run, {"kind": "disk full" if error.full else "error", "message": str(error)}
            )
            sys.exit(f"error: {error}")
        if status in (0, SUPERSEDED):
            return
        if self.stopping and status in (INTERRUPTED, -signal.SIGTERM):
            # It was cancelled, or is preempted: then SLURM requeues it only if it is still there
            # at the end of its grace time.
            time.sleep(SECONDS_TO_BE_KILLED)
        elif _rank() == 0:
            record_death(run, status, out_of_memory=out_of_memory_kills() > kills_before)
        sys.exit(f"{run.name} ended with exit status {status}; see {log_path(run)}")

    def checkpoint(self) -> DelayedSubmission:
        """Stop the run, which writes its checkpoint. Called by submitit in a signal handler, so
        between any two lines of `__call__`; must not raise, or the job is not requeued."""
        seconds = Submission(self.folder).record()["profile"]["signal_s"] - SECONDS_TO_REQUEUE
        deadline = time.monotonic() + seconds
        if self.child is not None:
            if not self.stopping and not _has_ended(self.child.pid):
                with suppress(ProcessLookupError):
                    os.kill(self.child.pid, signal.SIGTERM)
            while not _has_ended(self.child.pid) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        while not scheduler.answers() and time.monotonic() < deadline:
            time.sleep(1.0)
        return DelayedSubmission(RunJob(self.folder, self.task))

    def _make(self, submission: Submission, run: RunFolder) -> int:
        """Start the child that makes the run, or this process's part of it; its exit status."""
        record = submission.record()
        command = [sys.executable, "-m", "bench.run", f"folder={run.path}", *record["place"]]
        # Unique, also among other starts of this job.
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        command.append(f"takeover={slurm_job()}-{restarts}-{os.urandom(4).hex()}")
        with ExitStack() as stack:
            log = None
            if _rank() == 0:
                log = stack.enter_context(open_log(run, f" job {slurm_job()} start {restarts}"))
            self.child = subprocess.Popen(
                ["sh", "-c", IGNORING_USR2, "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT if log is not None else None,
                env=child_environment(record["processes"]),
            )
            while (status := self.child.poll()) is None:
                time.sleep(POLL_SECONDS)
        return status

    def _log_start(self, submission: Submission, run: RunFolder) -> None:
        """Write into the job's own log what starts here, and whether the code has changed."""
        print(f"{START} {now()} {run.name}", flush=True)
        submitted = {key: submission.record().get(key) for key in git.commit()}
        if submitted != git.commit():
            print(f"the code has changed since the submission: {submitted}, now {git.commit()}")

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True  # SLURM signals the child too


def _rank() -> int:
    return int(os.environ.get("SLURM_PROCID", "0"))


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; its exit status is left for `Popen.poll` to read."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


if __name__ == "__main__":
    # The pickled class must be that of the module, not of __main__.
    from slurm import job

    try:
        job.main(sys.argv[1:])
    except (UserError, OSError) as error:
        known = as_unwritable(error) or error
        if not isinstance(known, UserError):
            raise
        sys.exit(f"error: {known}")
