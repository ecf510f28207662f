"""Submissions: which runs go to the cluster as which task of which job, written down so that
nothing is sent twice.

    results/slurm/<grid>-<token>/
      sbatch.lock          held by sbatch for as long as it lives, if longer than who called it
      submission.json      the runs in order, how they are made, the commit: written before sbatch
      script.sh            the batch script
      accepted.json        the id that SLURM gave: written after sbatch
      uncommitted.diff     what was changed since the commit, if anything
      <job>_<task>_0_log.out   what the job said outside of the run's own log.txt

The token in its name is the job's name too. So a submission is found again in the scheduler's
answer even if its submitter was killed right after sbatch, without any file of ours.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.config.run_config import Environment, RunConfig
from bench.runs.json_files import OF_A_SUBMISSION, read_whole
from bench.runs.run_folder import RunFolder, now
from bench.sweeps.local_launcher import environment_arguments
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
from slurm.batch_script import Array, script_text
from slurm.profile import Profile, for_method, processes

START = "--- start"  # begins the part of a job's log that belongs to its last start


@dataclass(frozen=True)
class Note:
    """What a run's job.json says: which task of which submission is to make it, since when; and
    whether the script was left for somebody to submit by hand."""

    name: str
    task: int
    time: float
    by_hand: bool = False

    @classmethod
    def of(cls, run: RunFolder) -> "Note | None":
        """The note in a run's folder, or None where it was never submitted."""
        content = run.read("job")
        return None if content is None else cls.read(content)

    @classmethod
    def read(cls, content: dict[str, Any]) -> "Note":
        """The note that such a file holds."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})


# What a submission changes in a run's folder.
CHANGED = ("job.json", "error.json", "anew.json")
Files = dict[str, bytes]  # by name


def kept(run: RunFolder) -> Files:
    """What a submission would change in a run's folder, as it is now."""
    paths = [run.path / name for name in CHANGED]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def put_back(run: RunFolder, files: Files) -> None:
    """Let a run stand as it did when `kept` was called, after its submission was refused."""
    for name in CHANGED:
        if name not in files:
            run.remove(name)
            continue
        with atomic_write(run.path / name) as temporary:
            temporary.write_bytes(files[name])


@dataclass(frozen=True)
class Submission:
    """A folder as described above."""

    folder: Path

    @classmethod
    def of(cls, run: RunFolder, note: Note) -> "Submission":
        """The submission that a run's note speaks of."""
        return cls(run.path.parent.parent / "slurm" / note.name)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def script(self) -> Path:
        return self.folder / "script.sh"

    def record(self) -> dict[str, Any]:
        """What submission.json says.

        Raises:
            Damaged: it is missing or damaged.
        """
        content = self._read("submission")
        if content is None:
            raise Damaged(f"{self.folder / 'submission.json'} is missing")
        return content

    def damages(self) -> dict[str, str]:
        """What is wrong with its small files, a line each, by name without ".json"."""
        found = {}
        for name, read in (
            ("submission", self.record),
            ("accepted", lambda: self._read("accepted")),
        ):
            try:
                read()
            except Damaged as error:
                found[name] = str(error)
        return found

    def _read(self, name: str) -> dict[str, Any] | None:
        return read_whole(self.folder / f"{name}.json", OF_A_SUBMISSION[name])

    def run(self, task: int) -> RunFolder:
        """The run that a task of it makes."""
        return RunFolder(self.folder.parent.parent / "runs" / self.record()["runs"][task])

    def accepted(self) -> str:
        """The id that SLURM gave; empty where it is not (yet) known."""
        with suppress(Damaged):
            return (self._read("accepted") or {}).get("job", "")
        return ""

    def accept(self, job: str) -> None:
        """Note the id that SLURM gave."""
        write_json(self.folder / "accepted.json", {"job": job, "time": now()})

    def withdraw(self) -> None:
        """Forget a submission that was refused; its runs are the caller's to put back."""
        shutil.rmtree(self.folder)

    @contextmanager
    def being_sent(self) -> Iterator[list[int]]:
        """Hold the submission while sbatch works, which is to inherit these file descriptors: when
        its caller is killed, it holds the submission on."""
        with open(self.folder / "sbatch.lock", "w") as lock:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield [lock.fileno()]

    def is_being_sent(self) -> bool:
        """Whether an sbatch is at work on it."""
        try:
            with open(self.folder / "sbatch.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def last_words(self, task: int) -> list[str]:
        """The lines of a task's log since its last start."""
        path = self.log(task)
        if path is None:
            return []
        return "\n".join(end_of_log(path)).rpartition(START)[2].strip().splitlines()

    def log(self, task: int) -> Path | None:
        """What the job of a task said last, of whatever id; None where it never started."""
        with suppress(OSError, Damaged):
            several = len(self.record()["runs"]) > 1
            found = self.folder.glob(f"*_{task}_0_log.out" if several else "*_0_log.out")
            return max(found, key=lambda path: path.stat().st_mtime, default=None)
        return None


@contextmanager
def submitting(results_root: Path) -> Iterator[None]:
    """Held by whoever looks at what is submitted and submits the rest: one at a time."""
    root = make_folder(results_root / "slurm", "folder of submissions")
    lock = FileLock(root / "lock")
    with writing(root / "lock"):
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            told = "another process is submitting from this results folder: waiting for it"
            print(told, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def arrays(
    runs: Sequence[tuple[RunConfig, RunFolder]], profile: Profile, largest: int
) -> list[Array]:
    """The job arrays that make these runs: alike in what they ask for, none larger than `largest`,
    all together with at most `profile.parallel` runs at a time."""
    alike: list[tuple[tuple[Profile, int, int], list[str]]] = []
    of_methods = {method: for_method(profile, method) for method in {c.method for c, _ in runs}}
    for config, folder in runs:
        own = of_methods[config.method]
        shape = (own, *processes(own, config))
        members = next((names for known, names in alike if known == shape), None)
        if members is None:
            alike.append((shape, members := []))
        members.append(folder.name)
    largest = min(largest, profile.max_array or largest)
    pieces = [
        Array(*shape, runs=tuple(names[first : first + largest]))
        for shape, names in alike
        for first in range(0, len(names), largest)
    ]
    shares = share(profile.parallel, [len(piece.runs) for piece in pieces])
    return [replace(piece, parallel=n) for piece, n in zip(pieces, shares, strict=True)]


def share(parallel: int, sizes: Sequence[int]) -> list[int]:
    """Parts of `parallel` for arrays of these sizes, in proportion, none less than 1 and none more
    than its array has use for; no bound (0) stays none."""
    if parallel == 0:
        return [0] * len(sizes)
    parts = [1] * len(sizes)
    for _ in range(parallel - len(sizes)):
        hungry = [k for k in range(len(sizes)) if parts[k] < sizes[k]]
        if not hungry:
            break
        parts[max(hungry, key=lambda k: sizes[k] / parts[k])] += 1
    return parts


def in_turn(pieces: Sequence[Array]) -> bool:
    """Whether the arrays have to wait for each other: there are more of them than runs allowed at
    a time."""
    bound = pieces[0].profile.parallel if pieces else 0
    return 0 < bound < len(pieces)


def write(
    array: Array,
    grid: str,
    environment: Environment,
    results_root: Path,
    by_hand: bool = False,
) -> Submission:
    """Write down a submission and its script, and note it in the folders of its runs: the last
    thing before sbatch, which is left to somebody else where `by_hand`. Where that fails or is
    interrupted, its folder is removed again; the runs are the caller's to put back.

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


def _describe(array: Array, grid: str, folder: Path, environment: Environment, script: str) -> None:
    """Write the files of a submission into its folder."""
    own = replace(
        environment,
        threads=environment.threads or array.profile.cpus,
        # Rather no run than one that takes days on a CPU because its node's GPU is not found.
        device="cuda"
        if environment.device == "auto" and array.profile.gpus
        else environment.device,
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
            "place": environment_arguments(own),
            "profile": asdict(array.profile),
            **git.commit(),
        },
    )
    if diff := git.uncommitted_diff():
        write_text(folder / "uncommitted.diff", diff)
    write_text(Submission(folder).script, script)
