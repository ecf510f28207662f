"""The interface between a sweep and what starts its runs: a local pool, this process, or SLURM."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.config.run_config import RunConfig
from bench.runs.run_folder import RunFolder


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep, its folder, and how many of its outer steps are done."""

    config: RunConfig
    folder: RunFolder
    step: int = 0


class Launcher(Protocol):
    """Starts runs. Their status is read from the run folders.

    A sweep calls `prepare`, `start`, and then `poll` until it returns False.

    Attributes:
        poll_seconds: pause between two calls of `poll`.
        redraws: whether progress may be drawn over what the terminal shows; not where the runs
            themselves print to it.
    """

    poll_seconds: float
    redraws: bool

    def prepare(self, runs: Sequence[PlannedRun]) -> None:
        """Print what the runs will take, or what a dry run would submit.

        Raises:
            UserError: they cannot be started.
        """
        ...

    def start(self, runs: Sequence[PlannedRun]) -> bool:
        """Start runs, at once or with the next `poll`; whether the sweep should wait for them."""
        ...

    def poll(self) -> bool:
        """Do what is due; False once nothing is left to wait for."""
        ...

    def stop(self) -> str:
        """Called when the sweep is interrupted or fails: local runs write a checkpoint
        and end, the jobs of a cluster continue. Returns a sentence that says so."""
        ...
