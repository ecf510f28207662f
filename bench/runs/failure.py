"""How a run can fail, and what is recorded about it."""

import traceback
from typing import Any

from bench.distillation.divergence import Diverged
from bench.runs.run_folder import now
from bench.system.errors import UserError, as_unwritable
from bench.system.peak_memory import ran_out


def describe_error(error: Exception) -> dict[str, Any]:
    """The content of error.json: kind of error, message, time and traceback."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Diverged):
        kind = "diverged"
    elif ran_out(error):
        kind = "out of memory"
    elif (unwritable := as_unwritable(error)) is not None and unwritable.full:
        kind, message = "disk full", str(unwritable)
    else:
        kind = "error"
        if not isinstance(error, UserError):
            message = f"{type(error).__name__}: {message}"
    return {
        "kind": kind,
        "message": message[:500],
        "time": now(),
        "traceback": "".join(traceback.format_exception(error)),
    }
