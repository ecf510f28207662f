"""The options of a sweep, and what follows from them: which launcher, and which of the runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.config.command_line import setting, words
from bench.runs.heartbeat import Progress
from bench.system.errors import UserError
from bench.system.machine import slurm_is_set_up, slurm_job

# The runs that each word of `retry` selects.
RETRIES: dict[str, Callable[[Progress], bool]] = {
    "failed": lambda progress: progress.state == "failed",
    "oom": lambda progress: progress.kind == "out of memory",
    "lost": lambda progress: progress.state == "lost",
}


@dataclass(frozen=True)
class SweepOptions:
    """Options of this command."""

    grid: str = setting("", "name of a grid, or path of your own .yaml")
    scale: str = setting("auto", "auto, quick, cpu or paper")
    seeds: int = setting(
        0, "seeds of each run; 0: as many as the grid states", minimum=0, maximum=10_000
    )
    only: str = setting("", "only these methods, comma-separated")
    where: dict[str, Any] = setting(
        {}, "only runs with these settings, e.g. where.dataset=cifar10 where.ipc=[1,10]"
    )
    workers: int = setting(
        0, "processes at a time; 0: as many as GPUs, else cores", minimum=0, maximum=10_000
    )
    launcher: str = setting(
        "auto",
        "where runs are started; auto: SLURM if it is set up or a profile is given, else local",
        ("auto", "local", "inline", "slurm"),
    )
    profile: str = setting("", "slurm: name of a profile, or path of your own .yaml")
    wait: bool = setting(
        False, "slurm: show the progress until all jobs end; they do not depend on it"
    )
    scripts_only: bool = setting(False, "slurm: write the batch scripts and submit nothing")
    retry: str = setting("", "only runs whose status is failed, oom or lost, comma-separated")
    cancel: bool = setting(False, "slurm: cancel the jobs of the grid, after asking")
    yes: bool = setting(False, "cancel without asking")
    check_memory: bool = setting(True, "reject runs that cannot fit into memory")
    dry_run: bool = setting(
        False, "print the plan and the estimate, for which a few outer steps are measured, and stop"
    )
    force: bool = setting(False, "start all runs from the beginning, finished ones too")


def check_retry(retry: str) -> None:
    """Raises: UserError: `retry` has a word that is not one of `RETRIES`."""
    if unknown := [word for word in words(retry) if word not in RETRIES]:
        raise UserError(f"retry={unknown[0]} is not one of {', '.join(RETRIES)}")


def chosen_launcher(options: SweepOptions, slurm_settings: dict[str, object]) -> str:
    """`local`, `inline` or `slurm`.

    Raises:
        UserError: some setting is for SLURM only, but the launcher is another.
    """
    given = [key for key in ("profile", "wait", "scripts_only", "cancel") if getattr(options, key)]
    given += slurm_settings
    if options.workers and (given or options.launcher == "slurm"):
        raise UserError("workers= is for local runs; with SLURM, use parallel= instead")
    if options.launcher != "auto":
        if given and options.launcher != "slurm":
            raise UserError(
                f"{given[0]}= is for launcher=slurm, not for launcher={options.launcher}"
            )
        return options.launcher
    # Inside a job, on a node of the cluster, runs are meant to be computed there.
    return "slurm" if given or (slurm_is_set_up() and not slurm_job()) else "local"


def is_wanted(progress: Progress, options: SweepOptions) -> bool:
    """Whether a sweep with these options should start a run with this status."""
    if progress.job or (progress.state == "damaged" and not options.force):
        return False
    if options.retry:
        return any(RETRIES[word](progress) for word in words(options.retry))
    return options.force or progress.state != "done"
