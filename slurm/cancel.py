"""Cancels the jobs of a grid, after asking."""

import sys
from collections.abc import Sequence

from bench.runs.run_folder import RunFolder
from bench.system.errors import UserError
from bench.system.text import count
from slurm import scheduler
from slurm.submit import settled


def cancel(runs: Sequence[RunFolder], grid: str, sure: bool) -> int:
    """Cancel the jobs of these runs that have not ended; returns the exit status.

    Args:
        sure: do not ask.

    Raises:
        UserError: SLURM does not answer, or refuses; or there is no terminal to ask at.
    """
    jobs = [progress.job for _, progress in settled(runs, must_answer=True) if progress.job]
    if jobs and (sure or is_confirmed(jobs, grid)):
        scheduler.cancel(jobs)
        print(f"cancelled {count(len(jobs), 'job')}")
    else:
        print("no job was cancelled")
    return 0


def is_confirmed(jobs: Sequence[str], grid: str) -> bool:
    """Whether the user says at the terminal that these jobs are to be cancelled.

    Raises:
        UserError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise UserError("cancel=true asks for confirmation at a terminal; elsewhere add yes=true")
    examples = ", ".join(jobs[:5]) + (", ..." if len(jobs) > 5 else "")
    answer = input(f"cancel {count(len(jobs), 'job')} of the grid {grid} ({examples})? [y/N] ")
    return answer.strip().lower() in ("y", "yes")
