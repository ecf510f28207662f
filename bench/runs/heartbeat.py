"""The heartbeat of a run: written by the run, read by `bench.status` and the launchers."""

import math
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

import psutil

from bench.runs.run_folder import RunFolder, SmallFiles
from bench.system.errors import Damaged, Unwritable, UserError
from bench.system.files import overwrite_json, time_there, write_json
from bench.system.machine import slurm_job, slurm_node

HEARTBEAT_SECONDS = 1.0
LOST_AFTER_SECONDS = 120.0  # network file systems and clocks lag; a beat is due every second

# Without a beat: a process that a takeover has told to stop has stopped, wherever it ran.
SILENCE_SECONDS = 15.0
# A running run without a beat is shown as silent. Files of other machines may be seen late: NFS may
# look for changes as rarely as once a minute.
SILENT_AFTER_SECONDS, SILENT_AFTER_SECONDS_ELSEWHERE = 15.0, 60.0

State = Literal["waiting", "running", "done", "failed", "stopped", "lost", "blocked", "damaged"]


@dataclass(frozen=True)
class Progress:
    """The status of a run, from its files (`progress_of`) or from these and the scheduler of a
    cluster (`slurm.job_status`).

    Attributes:
        state: waiting (not started, or its job is queued), running, done, failed (see `cause`),
            stopped (interrupted; it will resume), lost (its process ended without a trace: killed,
            or its machine went down), blocked (the scheduler will never start its job), damaged (a
            small file that the run needs; the cause says what to do).
        kind: the kind of failure of a failed run: error, out of memory, diverged, killed, time-out,
            node lost, cancelled, disk full.
        job: the cluster job of the run, if it has one that has not ended.
        silent_seconds: how long a running run has written no heartbeat, if unusually long.
        note: what else a user should know, such as a damaged file that the run does not need.
        damaged: the damaged small files, without ".json".
        seed, evaluation: from its configuration and its result, if they exist.
        previous: whether `evaluation` is the previous result of a rerun.
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
    silent_seconds: float | None = None
    note: str = ""
    damaged: tuple[str, ...] = ()
    seed: int | None = None
    evaluation: dict[str, Any] | None = None
    previous: bool = False

    @property
    def description(self) -> str:
        """The text that a table shows beside the numbers."""
        text = self.cause
        if self.state == "running":
            text = self.activity
            if self.silent_seconds is not None:
                last_activity = f" ({self.activity})" if self.activity else ""
                text = f"silent for {age(self.silent_seconds)}{last_activity}"
        return "; ".join(filter(None, [text, self.note]))


class Heartbeat:
    """Writes progress.json every second from a thread, until the `with` block ends.

    Attributes:
        superseded: another process has taken the run over; this one has to stop.
        displaced: it did not wait for this one, which had been silent for too long (suspended, for
            example), and is at work: this one must not write anything any more.
    """

    def __init__(self, folder: RunFolder, outer_steps: int) -> None:
        self.superseded = self.displaced = False
        self._looked = time.monotonic()
        self.path = folder.path / "progress.json"
        self._folder = folder
        self._takeover = folder.taken_over_by()
        try:
            before = {} if folder.is_rerun_requested() else folder.read("progress") or {}
        except Damaged:
            before = {}
        started = _started()
        self._content: dict[str, Any] = {
            "state": "running",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": started,
            "started_after_boot": None if started is None else started - psutil.boot_time(),
            "job": slurm_job(),
            "node": slurm_node(),
            "step": before.get("step", 0),  # until the checkpoint is loaded
            "outer_steps": outer_steps,
            "activity": "starting",
            "seconds_per_step": None,
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def update(self, **content: Any) -> None:
        """Change the content of the next beat: `step`, `activity`, `seconds_per_step`, or the
        `error` that ended the run, if error.json cannot be written."""
        self._content.update(content)

    def __enter__(self) -> Self:
        write_json(self.path, {**self._content, "time": time.time()})
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
        self._look()
        self._write()

    def is_displaced(self) -> bool:
        """Whether this process is displaced, known for certain if it was silent for long."""
        if time.monotonic() - self._looked > SILENCE_SECONDS:
            self._look()
        return self.displaced

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self._look()
            self._write()

    def _look(self) -> None:
        """See whether another process has taken the run over."""
        with suppress(UserError):  # it cannot be read just now
            if self._folder.taken_over_by() != self._takeover:
                beat = self._folder.read("progress")
                self.displaced |= beat is not None and not is_own(beat)
                self.superseded = True
        self._looked = time.monotonic()

    def _write(self) -> None:
        """Write a beat. On a full disk it overwrites the previous one in place, or is skipped."""
        if self.displaced:
            return
        content = {**self._content, "time": time.time()}
        try:
            write_json(self.path, content)
        except Unwritable:
            with suppress(OSError):
                overwrite_json(self.path, content)


def _started() -> float | None:
    """When this process started; None if the system has no /proc."""
    try:
        return psutil.Process().create_time()
    except (psutil.Error, OSError):
        return None


def record_failure(folder: RunFolder, described: dict[str, Any]) -> bool:
    """Record why a run failed: in error.json or, if the disk is full, in the last heartbeat. Never
    raises, so that the failure itself is reported. Returns whether error.json was written."""
    try:
        folder.write("error", described)
    except Unwritable:
        short = {"kind": described["kind"], "message": described["message"]}
        with suppress(OSError, UserError):
            beat = folder.read("progress")
            if beat is not None:
                beat |= {"state": "failed", "error": short}
                overwrite_json(folder.path / "progress.json", beat)
        return False
    return True


def progress_of(
    folder: RunFolder, files: SmallFiles | None = None, now: float | None = None
) -> Progress:
    """The status of a run according to its files. Never raises, whatever they contain.

    Args:
        files: from `folder.small_files`, if they were read already.
        now: the time by the clock of the file server, if it is known (`time_there`).
    """
    files = files or folder.small_files()
    now = time_there(folder.path) if now is None and "progress" in files.contents else now
    result = files.contents.get("result", files.previous)
    progress = replace(
        _from_files(files, now or 0.0),
        damaged=tuple(files.damages),
        seed=files.contents.get("config", {}).get("seed"),
        evaluation=result.get("evaluation"),
        previous=result is files.previous,
    )
    if not files.damages:
        return progress
    damages = "; ".join(files.damages.values())
    if progress.state == "running" or (progress.state == "done" and "config" not in files.damages):
        return replace(progress, note=damages)
    return replace(progress, state="damaged", cause=damages, kind="")


def _from_files(files: SmallFiles, now: float) -> Progress:
    """The status according to the intact files."""
    beat = files.contents.get("progress", {})
    config = files.contents.get("config", {})
    steps = config.get("outer_steps") or beat.get("outer_steps", 0)
    progress = Progress("waiting", beat.get("step", 0), steps)
    if files.done:
        return replace(progress, state="done", step=progress.outer_steps)
    silence = max(0.0, now - files.written["progress"]) if beat else 0.0
    here = beat.get("host") == socket.gethostname()
    if beat.get("state") == "running" and is_alive(beat, here, silence):
        pace = beat["seconds_per_step"]
        left = pace * (progress.outer_steps - progress.step) if pace is not None else None
        progress = replace(progress, state="running", activity=beat["activity"])
        if silence > (SILENT_AFTER_SECONDS if here else SILENT_AFTER_SECONDS_ELSEWHERE):
            return replace(progress, silent_seconds=silence)
        return replace(progress, seconds_per_step=pace, seconds_left=left)
    error = files.contents.get("error")
    if error is None and files.written.get("job", 0.0) <= files.written.get("progress", 0.0):
        error = beat.get("error")  # unless the run was submitted again since
    if error is not None:
        cause = f"{error['kind']}: {error['message']}"
        return replace(progress, state="failed", cause=cause, kind=error["kind"])
    if "anew" in files.contents:
        return replace(
            progress, step=0, cause="rerun requested; the previous result stays until then"
        )
    if beat.get("state") == "running":
        where = f"process {beat['pid']} on {beat['host']}"
        lost = f"{where} has ended" if here else f"no heartbeat from {where} for {age(silence)}"
        return replace(progress, state="lost", cause=f"{lost}; it will resume from its checkpoint")
    return replace(progress, state="stopped") if beat else progress


def is_own(beat: dict[str, Any]) -> bool:
    """Whether it is a heartbeat of this process."""
    return (beat["host"], beat["pid"]) == (socket.gethostname(), os.getpid()) and (
        beat["process_started"] == _started()
    )


def is_alive(beat: dict[str, Any], here: bool, silence: float) -> bool:
    """Whether the process of a heartbeat is alive, as far as this machine can tell.

    Args:
        here: it is a process of this machine.
        silence: seconds since the heartbeat.
    """
    if not here or beat["process_started"] is None:
        return silence < LOST_AFTER_SECONDS
    try:
        process = psutil.Process(beat["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # The system reuses process ids; the start time shows whether it is the same process. Where
        # the clock was set since, that time is another, but not that since the machine started.
        started = process.create_time()
        since_boot = started - psutil.boot_time() - (beat.get("started_after_boot") or math.inf)
        return min(abs(started - beat["process_started"]), abs(since_boot)) < 2
    except (psutil.Error, ValueError, OverflowError):  # no such process, or no process id at all
        return False


def age(seconds: float) -> str:
    """A duration: 45 s, 2 min 40 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
