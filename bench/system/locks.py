"""Locks on files that one process at a time writes.

The operating system locks a file for a process, and releases the lock when the process ends,
however it ends. Some file systems have no locks. There filelock creates a file that names process
and host, and removes that of a dead process of this host. One of a process that was lost with
another host stays: nobody here can tell whether it is still at work, so the user is told.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bench.system.errors import Unwritable, UserError


@contextmanager
def locked(path: Path, busy: str, *, wait: bool = False, quiet: bool = False) -> Iterator[None]:
    """Lock `path` for this process.

    Args:
        busy: what another process that has it is doing, for the message.
        wait: for that process, however long it takes, instead of raising an error.
        quiet: say that it waits only where a file stands for the lock, which may stay for ever.

    Raises:
        UserError: another process has it.
        Unwritable: the lock file cannot be created.
    """
    file = FileLock(path)
    try:
        try:
            file.acquire(timeout=1)
        except Timeout:
            owner = owner_of(path)
            said = busy + (_described(path, owner) if owner else "")
            if not wait:
                raise UserError(said) from None
            if owner or not quiet:
                print(f"waiting: {said}", flush=True)
            file.acquire()
    except OSError as error:
        raise Unwritable(path, error) from error
    try:
        yield
    finally:
        file.release()


def owner_of(path: Path) -> list[str]:
    """What a lock file says of its process: id, host, start; nothing where the system locks files,
    which are empty then."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    return lines if len(lines) >= 2 else []


def host_of(owner: list[str]) -> str:
    """Without the namespace that filelock appends."""
    return owner[1].partition("?")[0]


def _described(path: Path, owner: list[str]) -> str:
    return f": process {owner[0]} on {host_of(owner)}; if it has ended, delete {path}"
