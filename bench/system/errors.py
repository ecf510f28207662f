"""Exceptions that the user can resolve, and the exit statuses of commands.

Status 0: done; 1: a run failed; 2: a `UserError`, printed as one line without traceback.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # the shells' status for Ctrl-C; the same command resumes the work
SUPERSEDED = 3  # another process is running the run, or has taken it over

FULL = (errno.ENOSPC, errno.EDQUOT)
# Errors of any write that come from a disk, a quota, a permission or a name that is too long.
OF_THE_DISK = (
    *(*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
    errno.ENAMETOOLONG,
)


class UserError(Exception):
    """A request that cannot be fulfilled; the message says why and how to resolve it."""


class Damaged(UserError):
    """A file has invalid content; the message names it and says what to do."""


class Unwritable(UserError):
    """A file or folder cannot be written.

    Args:
        what: its path, with its purpose where that helps.
        error: the system's error.
        done: what failed, where it is not known that it was writing.

    Attributes:
        full: whether the disk is full, or the user's quota used up.
    """

    def __init__(self, what: object, error: OSError, done: str = "written") -> None:
        self.full = error.errno in FULL
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = "; free some space, then type the same command again" if self.full else ""
        super().__init__(f"{what} cannot be {done}: {reason}{hint}")


@contextmanager
def resumes_after(what: str) -> Iterator[None]:
    """Ctrl-C inside the `with` block says after what the same command resumes."""
    try:
        yield
    except KeyboardInterrupt:
        text = f"interrupted; the same command resumes after {what}"
        raise KeyboardInterrupt(text) from None


def as_unwritable(error: BaseException) -> Unwritable | None:
    """The error as `Unwritable` if it comes from a disk, a quota, a permission or a name that
    is too long, else None."""
    if isinstance(error, Unwritable):
        return error
    if isinstance(error, OSError) and error.errno in OF_THE_DISK:
        if not error.filename:  # it is this process's output stream
            return Unwritable("the output", error)
        only_of_writes = error.errno in (*FULL, errno.EROFS)
        done = "written" if only_of_writes else "read or written"
        return Unwritable(error.filename, error, done)
    return None
