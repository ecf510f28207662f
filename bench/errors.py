"""The one exception that is the user's to mend: shown as one line, exit status 2, no traceback."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what and how to mend it."""
