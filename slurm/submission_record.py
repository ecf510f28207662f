"""Records of submissions: which run is which task of which job, so that no run is submitted twice.

    results/slurm/<grid>-<token>/
      sbatch.lock          held by sbatch while it runs, even if its caller has been killed
      submission.json      the runs in order, their settings, the commit: written before sbatch
      script.sh            the batch script
      accepted.json        the job id that SLURM gave: written after sbatch
      uncommitted.diff     changes since the commit, if any
      <job>_<task>_0_log.out   the output of the job, except what is in the run's own log.txt

The folder's name is also the job's name. So the scheduler's answer identifies a submission even if
its submitter was killed right after sbatch and could write nothing more.
"""

import fcntl
import getpass
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.config.run_config import Environment
from bench.runs.json_files import OF_A_SUBMISSION, read_whole
from bench.runs.run_folder import RunFolder, now
from bench.sweeps.child_process import environment_arguments
from bench.system import git
from bench.system.errors import Damaged
from bench.system.files import (
    atomic_write,
    end_of_log,
    make_folder,
    write_json,
    write_text,
    writing,
)
from bench.system.locks import locked
from slurm.batch_script import script_text
from slurm.job_arrays import JobArray

LOG = re.compile(r"[^_]+(?:_(\d+))?_0_log\.out")  # a job with one task has no number of the task
START = "--- start"  # begins the part of a job's log that belongs to its last start


@dataclass(frozen=True)
class Note:
    """A run's job.json: the name of the submission, the task in it, the time, and whether the
    script is left to be submitted by hand."""

    name: str
    task: int
    time: float
    by_hand: bool = False

    @classmethod
    def read(cls, content: dict[str, Any]) -> "Note":
        """The note with the content of such a file."""
        names = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in names})


# The files of a run's folder that a submission changes.
CHANGED = ("job.json", "error.json", "anew.json")
Files = dict[str, bytes]  # by name


def changed_files(run: RunFolder) -> Files:
    """The present content of the files that a submission would change in a run's folder."""
    paths = [run.path / name for name in CHANGED]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def restore_files(run: RunFolder, files: Files) -> None:
    """Write back what `changed_files` returned, after the submission was rejected."""
    for name in CHANGED:
        if name not in files:
            run.remove(name)
            continue
        with atomic_write(run.path / name) as temporary:
            temporary.write_bytes(files[name])


@dataclass(frozen=True)
class Submission:
    """A folder as described above. Its logs and damages are listed once: take a new one to look
    again."""

    folder: Path

    @classmethod
    def of(cls, run: RunFolder, note: Note) -> "Submission":
        """The submission that a run's note names."""
        return cls(run.path.parent.parent / "slurm" / note.name)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def script(self) -> Path:
        return self.folder / "script.sh"

    def record(self) -> dict[str, Any]:
        """The content of submission.json.

        Raises:
            Damaged: it is missing or damaged.
        """
        content = self._read("submission")
        if content is None:
            raise Damaged(f"{self.folder / 'submission.json'} is missing")
        return content

    @cached_property
    def damages(self) -> dict[str, str]:
        """The damage of its small files, one line each, by name without ".json". Read once."""
        damages = {}
        for name, read in (
            ("submission", self.record),
            ("accepted", lambda: self._read("accepted")),
        ):
            try:
                read()
            except Damaged as error:
                damages[name] = str(error)
        return damages

    def _read(self, name: str) -> dict[str, Any] | None:
        return read_whole(self.folder / f"{name}.json", OF_A_SUBMISSION[name])

    def run(self, task: int) -> RunFolder:
        """The run of a task."""
        return RunFolder(self.folder.parent.parent / "runs" / self.record()["runs"][task])

    def accepted(self) -> str:
        """The id that SLURM gave; empty while it is not known."""
        with suppress(Damaged):
            return (self._read("accepted") or {}).get("job", "")
        return ""

    def accept(self, job: str) -> None:
        """Note the id that SLURM gave."""
        write_json(self.folder / "accepted.json", {"job": job, "time": now()})

    def withdraw(self) -> None:
        """Remove a submission that was rejected; the caller restores the files of its runs."""
        shutil.rmtree(self.folder)

    @contextmanager
    def being_sent(self) -> Iterator[list[int]]:
        """Lock the submission while sbatch runs, which inherits these file descriptors: it keeps
        the lock even if its caller is killed."""
        with open(self.folder / "sbatch.lock", "w") as lock:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield [lock.fileno()]

    def is_being_sent(self) -> bool:
        """Whether an sbatch of it is still running."""
        try:
            with open(self.folder / "sbatch.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def last_lines(self, task: int) -> list[str]:
        """The lines of a task's log since its last start."""
        path = self.log(task)
        if path is None:
            return []
        return "\n".join(end_of_log(path)).rpartition(START)[2].strip().splitlines()

    def log(self, task: int) -> Path | None:
        """The latest log of a task, of whatever job id; None where it never started."""
        return self._logs.get(task)

    @cached_property
    def _logs(self) -> dict[int, Path]:
        """The latest log of each task. An array may have thousands: they are listed once."""
        logs: list[tuple[float, int, Path]] = []
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if match := LOG.fullmatch(entry.name):
                    with suppress(OSError):
                        written = entry.stat().st_mtime
                        logs.append((written, int(match[1] or 0), Path(entry.path)))
        return {task: path for _, task, path in sorted(logs)}


@contextmanager
def submitting(results_root: Path) -> Iterator[None]:
    """A lock: one process at a time looks what is submitted already and submits the rest."""
    root = make_folder(results_root / "slurm", "folder of submissions")
    busy = "another process is submitting runs of this results folder"
    with locked(root / "lock", busy, wait=True):
        yield


def write(
    array: JobArray,
    grid: str,
    environment: Environment,
    results_root: Path,
    by_hand: bool = False,
) -> Submission:
    """Write the record and the script of a submission, and a note into the folders of its runs: the
    last step before sbatch, or before the user calls sbatch (`by_hand`). Where it fails or is
    interrupted, the folder is removed again; the caller restores the files of the runs.

    Raises:
        Unwritable: the disk is full, say.
    """
    name = f"{re.sub(r'[^A-Za-z0-9.-]', '_', grid)}-{secrets.token_hex(4)}"
    folder = (results_root / "slurm" / name).resolve()
    text = script_text(array, name, folder)
    with writing(folder):
        folder.mkdir()
    try:
        _describe(array, grid, folder, environment, text)
        for task, run in enumerate(array.runs):
            folder_of_run = RunFolder(results_root / "runs" / run)
            folder_of_run.remove("error.json")  # of an earlier start
            folder_of_run.write("job", asdict(Note(name, task, time.time(), by_hand)))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Submission(folder)


def _describe(
    array: JobArray, grid: str, folder: Path, environment: Environment, script: str
) -> None:
    """Write the files of a submission into its folder."""
    # Better no run than one that takes days on a CPU because its node's GPU was not found.
    on_gpu = environment.device == "auto" and array.profile.gpus
    environment = replace(
        environment,
        threads=environment.threads or array.profile.cpus,
        device="cuda" if on_gpu else environment.device,
    )
    write_json(
        folder / "submission.json",
        {
            "name": folder.name,
            "grid": grid,
            "time": now(),
            "user": getpass.getuser(),
            "host": socket.gethostname(),
            "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
            "runs": array.runs,
            "processes": array.processes,
            "place": environment_arguments(environment),
            "profile": asdict(array.profile),
            **git.commit(),
        },
    )
    git.record_uncommitted_diff(folder)
    write_text(Submission(folder).script, script, sys.getfilesystemencoding())  # it names paths
