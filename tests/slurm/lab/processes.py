"""Daemons that outlive the command that starts them, and that end exactly when asked to.

A daemon exists only where its record does: the shell that becomes the daemon first writes its own
line of /proc, with pid and start time, into the folder of records, and gives up where that folder
is gone. So whatever happens to the starter, nothing is lost; and as a process is what its record
says only if the start time agrees, nobody else's process is ever signalled.
"""

import contextlib
import subprocess
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import psutil

from bench.system.errors import UserError
from tests.waiting import LIMIT_SECONDS, NotReached, wait_until

RECORD_THEN_BECOME = 'read -r line < "/proc/$$/stat" && echo "$line" > "$0" && exec "$@"'
SECONDS_TO_WRITE_A_RECORD = 40.0


class LabFailed(UserError):
    """The lab did not do what it should; the message names the log that tells why."""


def identity(stat: str) -> tuple[int, int] | None:
    """Pid and start time, in clock ticks since boot, from a line of /proc/PID/stat; None if it is
    not whole."""
    # The second field is the program's name in parentheses, and may hold spaces.
    head, separator, tail = stat.rpartition(")")
    fields = tail.split()
    if not separator or len(fields) < 20:
        return None
    return int(head.partition(" ")[0]), int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether this very process still runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return identity(stat) == (pid, started) and stat.rpartition(")")[2].split()[0] not in "ZX"


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL, in this order, to what still runs of these."""
    for process in processes:
        # psutil compares start times first: a recycled pid is no such process.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


class Daemons:
    """The daemons whose records lie in `folder`, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def names(self) -> list[str]:
        """Every name that has a record, alive or not."""
        return sorted(path.name for path in self.folder.glob("*"))

    def pid(self, name: str) -> int | None:
        """The daemon's pid; None where it does not run."""
        try:
            found = identity((self.folder / name).read_text())
        except OSError:
            return None
        return found[0] if found and is_alive(*found) else None

    def launch(
        self, name: str, arguments: list[str], environment: dict[str, str], log: Path
    ) -> None:
        """Start a daemon that stays in the foreground of a session of its own.

        Raises:
            LabFailed: it did not leave its record.
        """
        self._reap(name)
        record = self.folder / name
        record.unlink(missing_ok=True)
        with open(log, "ab") as output:
            self.children[name] = subprocess.Popen(
                ["/bin/sh", "-c", RECORD_THEN_BECOME, str(record), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
        child = self.children[name]

        def recorded() -> bool:
            ended = child.poll() is not None  # looked at first: it may write, then end
            if not self._is_whole(record) and ended:
                raise LabFailed(f"{name} to start: it ended at once, see {log}")
            return self._is_whole(record)

        what = f"{name} to start, see {log}"
        wait_until(recorded, what, seconds=SECONDS_TO_WRITE_A_RECORD)

    def kill(self, name: str) -> None:
        """SIGKILL a daemon, if it has a record, wait until it is gone, and forget it."""
        record = self.folder / name
        if not record.exists():
            return
        with contextlib.suppress(NotReached):  # its shell died with a part of the line written
            is_whole = partial(self._is_whole, record)
            wait_until(is_whole, "the record", seconds=SECONDS_TO_WRITE_A_RECORD)
        pid = self.pid(name)
        if pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                kill([psutil.Process(pid)])
            wait_until(lambda: self.pid(name) is None, f"{name} to end")
        self._reap(name)
        record.unlink(missing_ok=True)

    def close(self) -> None:
        """Kill all, and let no daemon come to life afterwards that was on its way."""
        while self.folder.exists():
            for name in self.names():
                self.kill(name)
            # A record that was written meanwhile keeps the folder from being removed.
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        for name in list(self.children):
            self._reap(name)

    @staticmethod
    def _is_whole(record: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return identity(record.read_text()) is not None
        return False

    def _reap(self, name: str) -> None:
        if child := self.children.pop(name, None):
            child.wait(LIMIT_SECONDS)
