"""What a sweep is asked to do, and what follows from it: which launcher, which of the runs."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.config.command_line import setting, words
from bench.runs.heartbeat import Progress
from bench.system.errors import UserError
from bench.system.machine import slurm_is_set_up, slurm_job

# What `retry` can name, and the runs that it means.
RETRIES: dict[str, Callable[[Progress], bool]] = {
    "failed": lambda progress: progress.state == "failed",
    "oom": lambda progress: progress.kind == "out of memory",
    "lost": lambda progress: progress.state == "lost",
}


@dataclass(frozen=True)
class SweepOptions:
    """What this command is asked to do."""

    grid: str = setting("", "name of a grid, or path of your own .yaml")
    scale: str = setting("auto", "auto, quick, cpu or paper")
    seeds: int = setting(
        0, "seeds of each run; 0: as many as the grid states", minimum=0, maximum=10_000
    )
    only: str = setting("", "only these methods, comma-separated")
    workers: int = setting(
        0, "processes at a time; 0: as many as GPUs, else cores", minimum=0, maximum=10_000
    )
    launcher: str = setting(
        "auto",
        "where runs are made; auto: on SLURM where it is set up or a profile is given, else here",
        ("auto", "local", "inline", "slurm"),
    )
    profile: str = setting("", "slurm: name of a profile, or path of your own .yaml")
    wait: bool = setting(False, "slurm: stay and show the progress; the jobs do not need it")
    scripts_only: bool = setting(False, "slurm: write the batch scripts, for you to submit")
    retry: str = setting("", "only runs that are failed, oom or lost, comma-separated")
    cancel: bool = setting(False, "slurm: cancel the jobs of the grid, after asking")
    yes: bool = setting(False, "cancel without asking")
    check_memory: bool = setting(True, "refuse runs that cannot fit into memory")
    dry_run: bool = setting(False, "print the plan and stop")
    force: bool = setting(False, "make all runs anew, finished ones too")


def check_retry(retry: str) -> None:
    """Raises: UserError: it names something else than `RETRIES`."""
    if unknown := [word for word in words(retry) if word not in RETRIES]:
        raise UserError(f"retry={unknown[0]} is not one of {', '.join(RETRIES)}")


def chosen_launcher(options: SweepOptions, asked_of_slurm: dict[str, object]) -> str:
    """`local`, `inline` or `slurm`.

    Raises:
        UserError: something is asked that only SLURM can do, but the launcher is another.
    """
    own = [key for key in ("profile", "wait", "scripts_only", "cancel") if getattr(options, key)]
    own += list(asked_of_slurm)
    if options.workers and (own or options.launcher == "slurm"):
        raise UserError("workers= is for this machine; SLURM has parallel= for it")
    if options.launcher != "auto":
        if own and options.launcher != "slurm":
            raise UserError(f"{own[0]}= is for launcher=slurm, not for launcher={options.launcher}")
        return options.launcher
    # On a node of the cluster, in a job, one wants to compute there.
    return "slurm" if own or (slurm_is_set_up() and not slurm_job()) else "local"


def is_wanted(progress: Progress, options: SweepOptions) -> bool:
    """Whether a run that stands so is to be made now."""
    if progress.job or (progress.state == "damaged" and not options.force):
        return False
    if options.retry:
        return any(RETRIES[word](progress) for word in words(options.retry))
    return options.force or progress.state != "done"
