"""The heartbeat of a run: written by the run, read by `bench.status` and the launchers."""

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psutil

from bench.errors import UserError
from bench.files import write_json
from bench.machine import slurm_job
from bench.store import RunFolder

HEARTBEAT_SECONDS = 1.0
LOST_AFTER_SECONDS = 120.0  # network file systems and clocks lag; a beat is due every second

SILENCE_SECONDS = 15.0  # without a beat: nobody on another machine is at work any more

State = Literal["waiting", "running", "done", "failed", "stopped", "lost", "blocked"]


@dataclass(frozen=True)
class Progress:
    """How a run stands: from its files alone (`progress_of`), or with what a cluster's scheduler
    says of its job too (`slurm.standing`).

    Attributes:
        state: waiting (not begun, or for its job's turn), running, done, failed (it says why),
            stopped (interrupted, will go on), lost (its process is gone without a word: killed, or
            its machine went down), blocked (the scheduler will never start its job).
        kind: of a failed run, the class of its cause: error, out of memory, diverged, killed,
            time-out, node lost, cancelled.
        job: the job on a cluster that is to make the run, where there is one that has not ended.
    """

    state: State
    step: int = 0
    outer_steps: int = 0
    activity: str = ""
    seconds_per_step: float | None = None
    seconds_left: float | None = None
    cause: str = ""
    kind: str = ""
    job: str = ""


class Heartbeat:
    """Writes progress.json every second from a thread, until the `with` block ends.

    Attributes:
        superseded: another process has claimed the run since; this one has to leave it.
    """

    def __init__(self, folder: RunFolder, outer_steps: int) -> None:
        self.superseded = False
        self.path = folder.path / "progress.json"
        self._folder = folder
        self._claim = folder.claimed_by()
        self._content: dict[str, Any] = {
            "state": "running",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": _started(),
            "job": slurm_job(),
            "step": 0,
            "outer_steps": outer_steps,
            "activity": "starting",
            "seconds_per_step": None,
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def update(self, **content: Any) -> None:
        """Change what the next beat says: `step`, `activity`, `seconds_per_step`."""
        self._content.update(content)

    def __enter__(self) -> Self:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.update(state="ended" if kind is None else "stopped")
        self._write()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with suppress(UserError):  # it cannot be read just now
                self.superseded = self.superseded or self._folder.claimed_by() != self._claim
            self._write()

    def _write(self) -> None:
        write_json(self.path, {**self._content, "time": time.time()})


def progress_of(folder: RunFolder) -> Progress:
    """What a run's files say of it. Never raises for a run that is being written."""
    beat = folder.read("progress") or {}
    step, steps = beat.get("step", 0), beat.get("outer_steps", 0)
    if (folder.path / "result.json").exists():
        return Progress("done", steps, steps)
    if beat.get("state") == "running" and _is_alive(beat):
        pace = beat.get("seconds_per_step")
        return Progress(
            "running",
            step,
            steps,
            beat.get("activity", ""),
            pace,
            pace * (steps - step) if pace is not None else None,
        )
    if (error := folder.read("error")) is not None:
        cause = f"{error['kind']}: {error['message']}"
        return Progress("failed", step, steps, cause=cause, kind=error["kind"])
    if beat.get("state") == "running":
        cause = (
            f"process {beat['pid']} on {beat['host']} is gone; it will go on from its checkpoint"
        )
        return Progress("lost", step, steps, cause=cause)
    if beat:
        return Progress("stopped", step, steps)
    return Progress("waiting")


def _started() -> float | None:
    """When this process was; None where the system does not tell (no /proc)."""
    try:
        return psutil.Process().create_time()
    except (psutil.Error, OSError):
        return None


def _is_alive(beat: dict[str, Any]) -> bool:
    if beat["host"] == socket.gethostname() and beat["process_started"] is not None:
        try:
            process = psutil.Process(beat["pid"])
            # A process id is used again after a while; the start time tells the two apart.
            same = abs(process.create_time() - beat["process_started"]) < 2
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
    return time.time() - beat["time"] < LOST_AFTER_SECONDS


def await_silence(folder: RunFolder) -> None:
    """Wait until no other machine shows signs of work on the run.

    The lock of a run reaches other machines on most network file systems, not on all. Where it does
    not, a copy of the run there sees within a second or so that it was claimed, and leaves it.
    """
    seen, since = None, time.monotonic()
    while time.monotonic() - since < SILENCE_SECONDS:
        beat = folder.read("progress") or {}
        if beat.get("state") != "running" or beat["host"] == socket.gethostname():
            return
        if beat["time"] != seen:
            seen, since = beat["time"], time.monotonic()
        time.sleep(HEARTBEAT_SECONDS)


def log_path(folder: RunFolder) -> Path:
    """Where a launcher sends what the run prints."""
    return folder.path / "log.txt"
