"""One process at a time makes a run.

The operating system locks a run for a process, and releases the lock when the process ends, however
it ends. What the lock cannot tell, the heartbeat does:

- Not every network file system locks across machines, and a user may delete a lock file. So a
  process that has the lock checks that no other one writes heartbeats. One on another machine that
  is silent for `LOST_AFTER_SECONDS` counts as dead; if it was only suspended, it stops as soon as
  it continues (`Heartbeat.displaced`).
- Some file systems have no locks. There filelock creates a file that names process and host, and
  removes that of a dead process of this host. One of a lost process of another host is removed
  here.

Not covered: two machines that do not see each other's locks and start one run in the same second.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, SoftFileLock, Timeout

from bench.runs.heartbeat import (
    HEARTBEAT_SECONDS,
    LOST_AFTER_SECONDS,
    SILENCE_SECONDS,
    is_alive,
    is_own,
    progress_of,
)
from bench.runs.run_folder import RunFolder, now
from bench.system.errors import Damaged, Unwritable, UserError
from bench.system.files import time_there
from bench.system.locks import host_of, owner_of


class RunIsTaken(UserError):
    """Another process is running the run."""


@contextmanager
def lock(folder: RunFolder, takeover: str = "") -> Iterator[None]:
    """Lock the run for this process.

    Args:
        takeover: unique token; takes the run over from the process that is running it: that process
            sees the token at its next heartbeat and stops, and this one waits for it.

    Raises:
        RunIsTaken: another process has the lock, or took the run over after this one.
    """
    file = FileLock(folder.path / "lock")
    if takeover:
        folder.write("takeover", {"by": takeover, "time": now()})
    try:
        while True:
            try:
                file.acquire(timeout=1)
                break
            except Timeout:
                if not _removed_of_a_lost_process(folder) and (
                    not takeover or folder.taken_over_by() != takeover
                ):
                    raise RunIsTaken(f"{folder.name} is being run by another process") from None
    except OSError as error:
        raise Unwritable(folder.path / "lock", error) from error
    try:
        yield
    finally:
        file.release()


def is_being_run(folder: RunFolder) -> bool:
    """Whether another process is at work on the run, as lock and heartbeat tell. For launchers
    only: the check takes the lock for an instant, which is why `lock` tries for a second.

    Raises:
        Unwritable: the lock file cannot be opened or removed.
    """
    file = FileLock(folder.path / "lock")
    try:
        try:
            file.acquire(timeout=0)
        except Timeout:
            return not _removed_of_a_lost_process(folder)
    except OSError as error:
        raise Unwritable(folder.path / "lock", error) from error
    file.release()
    return _beat_of_another(folder) is not None and progress_of(folder).state == "running"


def await_silence(folder: RunFolder, takeover: str = "") -> None:
    """Wait until no other process writes heartbeats of the run, whose lock this process has.

    Args:
        takeover: the token with which this process takes the run over.

    Raises:
        RunIsTaken: another process is alive, and this one does not take the run over.
    """
    beat = _beat_of_another(folder)
    if beat is None:
        return
    limit, since = SILENCE_SECONDS, time.monotonic()
    if not takeover:
        limit, since = LOST_AFTER_SECONDS, since - _age(folder.path / "progress.json")
    while beat is not None:
        if _is_here(beat):
            if not is_alive(beat, here=True, silence=0.0):
                return
            if not takeover:
                raise _taken_by(folder, beat)
        elif time.monotonic() - since >= limit:
            break
        time.sleep(HEARTBEAT_SECONDS)
        before, beat = beat, _beat_of_another(folder)
        if beat is not None and beat["time"] != before["time"]:
            if not takeover:
                raise _taken_by(folder, beat)
            since = time.monotonic()
    if beat is not None and not takeover:  # it stops when it continues, if it is only suspended
        token = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        folder.write("takeover", {"by": token, "time": now()})


def _taken_by(folder: RunFolder, beat: dict[str, Any]) -> RunIsTaken:
    return RunIsTaken(f"{folder.name} is being run by process {beat['pid']} on {beat['host']}")


def _is_here(beat: dict[str, Any]) -> bool:
    """Whether this machine can tell if the process is alive."""
    return beat["host"] == socket.gethostname() and beat["process_started"] is not None


def _beat_of_another(folder: RunFolder) -> dict[str, Any] | None:
    """The heartbeat of another process that has not said that it ended, if there is one."""
    beat = None
    try:
        beat = folder.read("progress")
    except Damaged:
        time.sleep(2 * HEARTBEAT_SECONDS)  # a process at work has written it again by then
        with suppress(Damaged):
            beat = folder.read("progress")
    return beat if beat and beat["state"] == "running" and not is_own(beat) else None


def _age(path: Path) -> float:
    """Seconds since the file was written, by the clock of the file server; 0 if it is gone."""
    try:
        return time_there(path.parent) - path.stat().st_mtime
    except OSError:
        return 0.0


def _removed_of_a_lost_process(folder: RunFolder) -> bool:
    """Remove the lock file if it names a lost process of another host; whether it was removed."""
    path = folder.path / "lock"
    owner = owner_of(path)
    if not owner:
        return False
    pid, host = owner[0], host_of(owner)
    if host == socket.gethostname() and pid.isdecimal() and psutil.pid_exists(int(pid)):
        return False
    try:
        beat = folder.read("progress") or {}
    except Damaged:
        beat = {}
    is_beating = beat.get("state") == "running" and (str(beat["pid"]), beat["host"]) == (pid, host)
    if _age(folder.path / "progress.json" if is_beating else path) < LOST_AFTER_SECONDS:
        return False
    with suppress(Timeout), SoftFileLock(f"{path}.break", timeout=0):
        if owner_of(path) == owner:  # nobody else has removed it and has the lock now
            path.unlink(missing_ok=True)
            return True
    return False
