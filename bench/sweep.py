"""`python -m bench.sweep grid=window_ablation`: run a grid; skip what is finished, resume what was
killed."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench import run as one_run
from bench.config.command_line import command, keys_of, only, parse, typed, words
from bench.config.grid import (
    Grid,
    choose_scale,
    grid_names,
    grid_overview,
    load_grid,
    requested,
    where_instead,
)
from bench.config.run_config import Environment, RunConfig
from bench.config.without_effect import refuse_without_effect
from bench.runs.log_file import log_path
from bench.runs.run_folder import Store
from bench.runs.run_lock import RunIsTaken, is_being_run
from bench.status import StatusOptions
from bench.sweeps.launcher import Launcher, PlannedRun
from bench.sweeps.live_table import watch
from bench.sweeps.local_launcher import Inline, LocalPool
from bench.sweeps.options import SweepOptions, check_retry, chosen_launcher, is_wanted
from bench.sweeps.overview import print_runs, restore
from bench.sweeps.status_table import RunStatus, print_table, summary
from bench.system.errors import INTERRUPTED, UserError
from bench.system.files import make_folder
from bench.system.stop_signals import ignore_hangup, interrupt_on_stop_signals
from bench.system.text import count
from slurm.cancel import cancel
from slurm.job_status import is_active, statuses
from slurm.launcher import SlurmLauncher
from slurm.profile import Profile, load_profile
from slurm.scheduler import Scheduler
from slurm.submit import settled

USAGE = f"""
python -m bench.sweep grid=NAME [key=value ...]     run a grid, one of these or a .yaml file:
{grid_overview()}
  run settings can be given too; they apply to all runs of the grid
"""

CURVES = 5  # the figure that shows any grid: accuracy during distillation


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, SweepOptions, RunConfig, Environment, Profile)
    options = typed(SweepOptions, only(given, SweepOptions))
    if not options.grid:
        raise UserError(f"name a grid: grid={' or grid='.join(grid_names())}")
    check_retry(options.retry)
    launcher_name = chosen_launcher(options, only(given, Profile))
    profile = load_profile(options.profile, only(given, Profile))
    environment = typed(Environment, only(given, Environment))
    grid = load_grid(options.grid)
    scale, reason = choose_scale(options.scale)
    print(f"grid {grid.name}: {grid.about}\nscale={scale} ({reason})")
    overrides = only(given, RunConfig)
    try:
        configs = requested(
            grid,
            scale,
            overrides,
            seeds=options.seeds,
            methods=words(options.only),
            where=options.where,
        )
    except UserError as error:
        raise UserError(f"{error}{where_instead(grid, scale, overrides)}") from error
    refuse_without_effect(configs, overrides)
    store = Store(Path(environment.results_root))
    folders = [store.run(config) for config in configs]
    starts_runs = not (options.dry_run or options.cancel)
    scheduler = Scheduler()
    if launcher_name == "slurm" and starts_runs:
        # An interrupted submission must be settled before it is known which runs remain.
        before = settled(folders, must_answer=not options.scripts_only)
    else:
        before = statuses(folders, scheduler)
    resume_command = sweep_command(argv, scale)
    if starts_runs and restore(configs, before, resume_command):
        before = statuses(folders, scheduler)
    runs = [
        PlannedRun(config, folder, step=0 if options.force else progress.step)
        for config, (folder, progress) in zip(configs, before, strict=True)
    ]
    print_runs(runs, before, options.force)
    if options.cancel:
        return cancel(folders, grid.name, sure=options.yes)
    if not options.dry_run:
        make_folder(Path(environment.results_root), "results folder")
    launcher: Launcher
    if launcher_name == "slurm":
        launcher = SlurmLauncher(
            grid.name,
            folders,
            profile,
            environment,
            options,
            scheduler,
            resume_command,
            status_command(argv),
        )
    elif launcher_name == "inline":
        launcher = Inline(environment, options, resume_command, one_run.main)
    else:
        launcher = LocalPool(environment, options, resume_command)
    to_do = [
        run for run, (_, progress) in zip(runs, before, strict=True) if is_wanted(progress, options)
    ]
    return Sweep(runs, to_do, options, launcher, scheduler, next_command(grid, argv)).run()


@dataclass(frozen=True)
class Sweep:
    """A grid, and the launcher of those of its runs that are to do.

    Attributes:
        next_command: shows the results.
    """

    runs: list[PlannedRun]
    to_do: list[PlannedRun]
    options: SweepOptions
    launcher: Launcher
    scheduler: Scheduler
    next_command: str

    def read_statuses(self) -> list[RunStatus]:
        """The status of all runs of the grid, read now."""
        return statuses([run.folder for run in self.runs], self.scheduler)

    def run(self) -> int:
        """Start the runs and wait for them; returns the exit status."""
        interrupt_on_stop_signals()
        try:
            self.launcher.prepare(self.to_do)
        except KeyboardInterrupt:
            print("\ninterrupted; no run was started", flush=True)
            return INTERRUPTED
        if not self.to_do:
            self.print_why_nothing_is_started()
        elif self.options.dry_run:
            print(f"dry run: {count(len(self.to_do), 'run')} would be started; none was")
        if self.options.dry_run:
            return 0
        if self.options.force:
            check_not_running(self.to_do)
        if not self.launcher.start(self.to_do):
            return 0
        seconds, redraw = self.launcher.poll_seconds, self.launcher.redraws
        try:
            watch(self.read_statuses, self.launcher.poll, seconds, redraw=redraw)
        except KeyboardInterrupt:
            ignore_hangup()
            with suppress(OSError):  # the terminal may be gone
                print("\ninterrupted", flush=True)
            print(self.launcher.stop())
            return INTERRUPTED
        except BaseException:  # whatever it is, no run may be left behind
            ignore_hangup()
            self.launcher.stop()
            raise
        return self.report_end()

    def print_why_nothing_is_started(self) -> None:
        """All runs are done, or running, or in the queue; or none has the status to retry."""
        progresses = [progress for _, progress in self.read_statuses()]
        states = {progress.state for progress in progresses}
        active = sum(is_active(progress) for progress in progresses)
        busy = f"{count(active, 'run')} running or in the queue"
        if self.options.retry:
            retried = " or ".join(words(self.options.retry))
            print(f"no run is {retried}{f'; {busy}' if active else ''}")
        elif active:
            print(f"nothing is left to submit: {busy}")
        elif states == {"done"}:
            print(f"nothing is left to do; next: {self.next_command}")
        elif "blocked" in states:
            print("nothing can be started: the blocked runs need cancel=true and another profile")
        else:
            print("nothing can be started until the damaged files are repaired")

    def report_end(self) -> int:
        """Print how all runs ended; exit status 1 if any has no result."""
        ended = self.read_statuses()
        print_table(ended)
        print(summary([progress for _, progress in ended]))
        without_result = [row for row in ended if row[1].state != "done"]
        for folder, progress in without_result:
            cause = progress.cause or "no result"
            print(f"{progress.state}: {folder.name}: {cause} ({log_path(folder)})", file=sys.stderr)
        if not without_result:
            print(f"next: {self.next_command}")
        return 1 if without_result else 0


def check_not_running(runs: Sequence[PlannedRun]) -> None:
    """Before any is changed: that no process is running one of these.

    Raises:
        RunIsTaken: a process is running one.
    """
    for run in runs:
        if run.folder.path.exists() and is_being_run(run.folder):
            raise RunIsTaken(f"force=true: {run.folder.name} is being run by another process")


# --- commands for the user to paste


def next_command(grid: Grid, argv: Sequence[str]) -> str:
    """The command that shows the results of a sweep with the arguments `argv`: its figure, or the
    report if the grid feeds only tables and claims. A user's own grid is drawn as curves."""
    grid_arguments = [text for text in argv if text.startswith("grid=")]
    built_in = all(text.removeprefix("grid=") in grid_names() for text in grid_arguments)
    settings = [text for text in run_arguments(argv, "scale") if not text.startswith("seed=")]
    if built_in and not grid.figures:
        return module_command("analysis.report", *settings)
    figure = grid.figures[0] if grid.figures else CURVES
    grid_arguments = [] if built_in else grid_arguments
    return module_command("analysis.plot", f"figure={figure}", *grid_arguments, *settings)


def status_command(argv: Sequence[str]) -> str:
    """The command that prints the status of a sweep with the arguments `argv`."""
    return module_command("bench.status", *run_arguments(argv, *keys_of(StatusOptions)))


def sweep_command(argv: Sequence[str], scale: str) -> str:
    """The command that resumes a sweep with the arguments `argv`."""
    arguments = run_arguments(argv, "grid", "seeds", "only", "where", "profile")
    return module_command("bench.sweep", *arguments, f"scale={scale}")


def module_command(module: str, *arguments: str) -> str:
    """A command of this project, to be pasted into a shell."""
    return shlex.join(["python", "-m", module, *arguments])


def run_arguments(argv: Sequence[str], *options: str) -> list[str]:
    """The arguments that say which runs are meant, and those of the sweep's `options`."""
    left_out = set(keys_of(SweepOptions, Environment, Profile)) - {"results_root", *options}
    return [text for text in argv if text.partition("=")[0].partition(".")[0] not in left_out]


if __name__ == "__main__":
    command(main, USAGE, SweepOptions, RunConfig, Environment, Profile)
