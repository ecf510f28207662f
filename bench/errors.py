"""How commands end: the exception that is the user's to mend, and what exit statuses mean.

Status 0: done; 1: a run failed; 2: a `UserError`, shown as one line without traceback.
"""

INTERRUPTED = 130  # as shells say it of Ctrl-C; the same command goes on from there
SUPERSEDED = 3  # another process has claimed the run and goes on with it


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what and how to mend it."""
