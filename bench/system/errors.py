"""How commands end: the exceptions that are the user's to mend, and what exit statuses mean.

Status 0: done; 1: a run failed; 2: a `UserError`, shown as one line without traceback.
"""

import errno
import os

INTERRUPTED = 130  # as shells say it of Ctrl-C; the same command goes on from there
SUPERSEDED = 3  # another process has claimed the run and goes on with it

FULL = (errno.ENOSPC, errno.EDQUOT)
# What a disk, a quota or a permission can do to any write.
OF_THE_DISK = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what and how to mend it."""


class Damaged(UserError):
    """A file does not hold what it must; the message names it and says what to do."""


class Unwritable(UserError):
    """A file or folder cannot be written.

    Args:
        what: its path, and what it is for where that helps.
        error: what the system says.

    Attributes:
        full: whether the disk, or somebody's share of it, is full.
    """

    def __init__(self, what: object, error: OSError) -> None:
        self.full = error.errno in FULL
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = "; free some space, then type the same command again" if self.full else ""
        super().__init__(f"{what} cannot be written: {reason}{hint}")


def as_unwritable(error: BaseException) -> Unwritable | None:
    """What an error says of a disk, a quota or a permission; None where it is another one."""
    if isinstance(error, Unwritable):
        return error
    if isinstance(error, OSError) and error.errno in OF_THE_DISK:
        # Without a name it is a stream: what this process prints.
        return Unwritable(error.filename or "the output", error)
    return None
