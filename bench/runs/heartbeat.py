"""The heartbeat of a run: written by the run, read by `bench.status` and the launchers."""

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psutil

from bench.runs.run_folder import RunFolder, SmallFiles
from bench.system.errors import Damaged, Unwritable, UserError
from bench.system.files import overwrite_json, time_there, write_json
from bench.system.machine import slurm_job, slurm_node

HEARTBEAT_SECONDS = 1.0
LOST_AFTER_SECONDS = 120.0  # network file systems and clocks lag; a beat is due every second

SILENCE_SECONDS = 15.0  # without a beat: nobody on another machine is at work any more
# Without a beat a run is called silent. Other machines' files may be seen late: NFS asks for some
# as seldom as once a minute.
SILENT_AFTER_SECONDS, SILENT_AFTER_SECONDS_ELSEWHERE = 15.0, 60.0

State = Literal["waiting", "running", "done", "failed", "stopped", "lost", "blocked", "damaged"]


@dataclass(frozen=True)
class Progress:
    """How a run stands: from its files alone (`progress_of`), or with what a cluster's scheduler
    says of its job too (`slurm.job_status`).

    Attributes:
        state: waiting (not begun, or for its job's turn), running, done, failed (it says why),
            stopped (interrupted, will go on), lost (its process is gone without a word: killed, or
            its machine went down), blocked (the scheduler will never start its job), damaged (a
            small file of it is, so that nobody can tell, or go on with it; the cause says what to
            do).
        kind: of a failed run, the class of its cause: error, out of memory, diverged, killed,
            time-out, node lost, cancelled, disk full.
        job: the job on a cluster that is to make the run, where there is one that has not ended.
        silent_seconds: of a running run that has given no sign of life for so long, else None.
        note: what else there is to know of it, such as a damaged file that it can do without.
        damaged: the small files that are, without ".json".
        seed, evaluation: of its configuration and of its result, as far as they are there.
        previous: whether that is the result before, of a run that is being made anew.
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
    def told(self) -> str:
        """What a table says of it beside its numbers."""
        said = self.cause
        if self.state == "running":
            said = self.activity
            if self.silent_seconds is not None:
                was = f" ({self.activity})" if self.activity else ""
                said = f"silent for {age(self.silent_seconds)}{was}"
        return "; ".join(filter(None, [said, self.note]))


class Heartbeat:
    """Writes progress.json every second from a thread, until the `with` block ends.

    Attributes:
        superseded: another process has claimed the run since; this one has to leave it.
    """

    def __init__(self, folder: RunFolder, outer_steps: int) -> None:
        self.superseded = False
        self.path = folder.path / "progress.json"
        self._folder = folder
        self._claim = folder.taken_over_by()
        try:
            before = {} if folder.is_asked_anew() else folder.read("progress") or {}
        except Damaged:
            before = {}
        self._content: dict[str, Any] = {
            "state": "running",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": _started(),
            "job": slurm_job(),
            "node": slurm_node(),
            "step": before.get("step", 0),  # until it is known where the run goes on
            "outer_steps": outer_steps,
            "activity": "starting",
            "seconds_per_step": None,
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def update(self, **content: Any) -> None:
        """Change what the next beat says: `step`, `activity`, `seconds_per_step`, or the `error`
        that ended the run, where nothing else can be written."""
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
        self._write()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with suppress(UserError):  # it cannot be read just now
                self.superseded = self.superseded or self._folder.taken_over_by() != self._claim
            self._write()

    def _write(self) -> None:
        """A beat. Where the disk is full it is written over the one before, or left out."""
        content = {**self._content, "time": time.time()}
        try:
            write_json(self.path, content)
        except Unwritable:
            with suppress(OSError):
                overwrite_json(self.path, content)


def _started() -> float | None:
    """When this process was; None where the system does not tell (no /proc)."""
    try:
        return psutil.Process().create_time()
    except (psutil.Error, OSError):
        return None


def record_failure(folder: RunFolder, described: dict[str, Any]) -> bool:
    """Write down why a run failed: as error.json, or into the last heartbeat where the disk takes
    nothing new. Never raises: the failure itself is worse. Whether error.json was written."""
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
    """What a run's files say of it. Never raises, whatever stands in them.

    Args:
        files: as `folder.small_files` gives them, where they were read before.
        now: the time by the clock of the file server, where that is known (`time_there`).
    """
    files = files or folder.small_files()
    now = time_there(folder.path) if now is None and "progress" in files.contents else now
    shown = files.contents.get("result", files.previous)
    known = replace(
        _from_files(files, now or 0.0),
        damaged=tuple(files.damages),
        seed=files.contents.get("config", {}).get("seed"),
        evaluation=shown.get("evaluation"),
        previous=shown is files.previous,
    )
    if not files.damages:
        return known
    told = "; ".join(files.damages.values())
    if known.state == "running" or (known.state == "done" and "config" not in files.damages):
        return replace(known, note=told)
    return replace(known, state="damaged", cause=told, kind="")


def _from_files(files: SmallFiles, now: float) -> Progress:
    """What those of them say that are whole."""
    beat = files.contents.get("progress", {})
    config = files.contents.get("config", {})
    steps = config.get("outer_steps") or beat.get("outer_steps", 0)
    known = Progress("waiting", beat.get("step", 0), steps)
    if files.done:
        return replace(known, state="done", step=known.outer_steps)
    silence = max(0.0, now - files.written["progress"]) if beat else 0.0
    here = beat.get("host") == socket.gethostname()
    if beat.get("state") == "running" and _is_alive(beat, here, silence):
        pace = beat["seconds_per_step"]
        left = pace * (known.outer_steps - known.step) if pace is not None else None
        known = replace(known, state="running", activity=beat["activity"])
        if silence > (SILENT_AFTER_SECONDS if here else SILENT_AFTER_SECONDS_ELSEWHERE):
            return replace(known, silent_seconds=silence)
        return replace(known, seconds_per_step=pace, seconds_left=left)
    error = files.contents.get("error")
    if error is None and files.written.get("job", 0.0) <= files.written.get("progress", 0.0):
        error = beat.get("error")  # not one from before it was submitted again
    if error is not None:
        cause = f"{error['kind']}: {error['message']}"
        return replace(known, state="failed", cause=cause, kind=error["kind"])
    if "anew" in files.contents:
        return replace(known, step=0, cause="to be made anew; until then its old result is kept")
    if beat.get("state") == "running":
        where = f"process {beat['pid']} on {beat['host']}"
        gone = f"{where} is gone" if here else f"no sign of life from {where} for {age(silence)}"
        return replace(known, state="lost", cause=f"{gone}; it will go on from its checkpoint")
    return replace(known, state="stopped") if beat else known


def _is_alive(beat: dict[str, Any], here: bool, silence: float) -> bool:
    if not here or beat["process_started"] is None:
        return silence < LOST_AFTER_SECONDS
    try:
        process = psutil.Process(beat["pid"])
        # A process id is used again after a while; the start time tells the two apart.
        same = abs(process.create_time() - beat["process_started"]) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):  # no such process, or no process id at all
        return False


def age(seconds: float) -> str:
    """How long ago something was: 45 s, 2 min 40 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def await_silence(folder: RunFolder) -> None:
    """Wait until no other machine shows signs of work on the run.

    The lock of a run reaches other machines on most network file systems, not on all. Where it does
    not, a copy of the run there sees within a second or so that it was claimed, and leaves it.
    """
    seen, since = None, time.monotonic()
    while time.monotonic() - since < SILENCE_SECONDS:
        try:
            beat = folder.read("progress") or {}
        except Damaged:  # whoever is at work writes the next one whole
            beat = {"state": "running", "host": "", "time": seen}
        if beat.get("state") != "running" or beat["host"] == socket.gethostname():
            return
        if beat["time"] != seen:
            seen, since = beat["time"], time.monotonic()
        time.sleep(HEARTBEAT_SECONDS)


def log_path(folder: RunFolder) -> Path:
    """Where a launcher sends what the run prints."""
    return folder.path / "log.txt"
