"""`python -m bench.sweep grid=window_ablation`: run a grid; skip what is finished, resume what was
killed."""

import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import run as one_run
from bench.config.command_line import command, keys_of, only, parse, typed, words
from bench.config.grid import Grid, choose_scale, grid_names, load_grid, requested
from bench.config.run_config import Environment, RunConfig
from bench.runs.heartbeat import log_path
from bench.runs.run_folder import RunFolder, RunIsTaken, Store
from bench.status import StatusOptions
from bench.sweeps.live_table import watch
from bench.sweeps.local_launcher import Inline, Launcher, LocalPool, environment_arguments
from bench.sweeps.options import SweepOptions, check_retry, chosen_launcher, is_wanted
from bench.sweeps.plan import Planned, plan, settings_of
from bench.sweeps.status_table import Standing, print_table, summary
from bench.system.errors import INTERRUPTED, Unwritable, UserError
from bench.system.files import make_folder
from bench.system.text import count
from slurm.job_status import standings
from slurm.profile import Profile, load_profile
from slurm.scheduler import Scheduler
from slurm.submit import OnCluster, cancel_jobs, goes_on, preview, settled, submit

USAGE = f"""
python -m bench.sweep grid=NAME [key=value ...]     run a grid: {", ".join(grid_names())}
  any run setting can be given too and holds for all runs of the grid
"""

POLL_SECONDS = 0.25
CURVES = 5  # the figure that shows any grid: accuracy during distillation
CLUSTER_POLL_SECONDS = 2.0


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, SweepOptions, RunConfig, Environment, Profile)
    options = typed(SweepOptions, only(given, SweepOptions))
    if not options.grid:
        raise UserError(f"name a grid: grid={' or grid='.join(grid_names())}")
    check_retry(options.retry)
    asked = only(given, Profile)
    launcher = chosen_launcher(options, asked)
    profile = load_profile(options.profile, asked)
    environment = typed(Environment, only(given, Environment))
    grid = load_grid(options.grid)
    scale, why = choose_scale(options.scale)
    print(f"grid {grid.name}: {grid.about}\nscale={scale} ({why})")
    store = Store(Path(environment.results_root))
    configs = requested(
        grid,
        scale,
        only(given, RunConfig),
        seeds=options.seeds,
        methods=words(options.only),
    )
    planned = [Planned(config, store.run(config)) for config in configs]
    folders, scheduler = [run.folder for run in planned], Scheduler()
    if launcher == "slurm" and not (options.dry_run or options.cancel):
        # What an interrupted submission has sent must be known before it is said what is left.
        standing = settled(folders, asks=not options.scripts_only)
    else:
        standing = standings(folders, scheduler)
    command_again = sweep_command(argv, scale)
    if not (options.dry_run or options.cancel) and restore(planned, standing, command_again):
        standing = standings(folders, scheduler)
    print_plan(standing, planned, options.force)
    if options.cancel:
        return cancel(grid, planned, options.yes)
    to_do = [
        replace(run, step=0 if options.force else progress.step)
        for run, (_, progress) in zip(planned, standing, strict=True)
        if is_wanted(progress, options)
    ]
    if not options.dry_run:
        make_folder(Path(environment.results_root), "results folder")
    commands = (next_command(grid, argv), status_command(argv))
    sweep = Sweep(grid, planned, to_do, options, environment, scheduler, *commands, command_again)
    return sweep.on_slurm(profile) if launcher == "slurm" else sweep.here(launcher)


@dataclass(frozen=True)
class Sweep:
    """A grid, and what of it is to be made.

    Attributes:
        figure, status: commands that draw what was made, and tell how it stands.
        again: the command that goes on with it.
    """

    grid: Grid
    planned: list[Planned]
    to_do: list[Planned]
    options: SweepOptions
    environment: Environment
    scheduler: Scheduler
    figure: str
    status: str
    again: str

    def look(self) -> list[Standing]:
        """How all its runs stand now."""
        return standings([run.folder for run in self.planned], self.scheduler)

    def here(self, launcher: str) -> int:
        """Make the runs on this machine; returns the exit status."""
        environment = replace(self.environment, threads=self.environment.threads or 1)
        options = self.options
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` is as good as Ctrl-C
        if not self.to_do:
            self.tell_that_nothing_is_left()
            return 0
        try:
            options = replace(options, workers=self.planned_workers(environment, launcher))
        except KeyboardInterrupt:
            print("\ninterrupted while measuring; no run was started", flush=True)
            return INTERRUPTED
        if self.options.dry_run:
            print(f"dry run: {count(len(self.to_do), 'run')} would be made; none was started")
            return 0
        self.create_folders()
        folders = [each.folder for each in self.to_do]
        made_by = make_launcher(launcher, environment, options.workers, folders)
        try:
            watch(self.look, made_by.poll, POLL_SECONDS, in_place=launcher != "inline")
        except KeyboardInterrupt:
            print("\ninterrupted: waiting for the runs to write their checkpoints", flush=True)
            made_by.stop()
            print("stopped; the same command goes on from there")
            return INTERRUPTED
        except Unwritable:
            made_by.stop()
            raise
        return self.report_end()

    def planned_workers(self, environment: Environment, launcher: str) -> int:
        """Print the estimate; how many runs to make at a time."""
        pool = LocalPool([], environment, self.options.workers)
        return plan(
            self.to_do,
            environment,
            1 if launcher == "inline" else pool.workers,
            gpus=len(pool.gpus),
            asked=self.options.workers > 0,
            check_memory=self.options.check_memory,
            needs_data=not self.options.dry_run,
        )

    def create_folders(self) -> None:
        """Make the runs' folders; where all is made anew, note it in them."""
        for each in self.to_do:
            each.folder.create(each.config, self.again)
        if self.options.force:
            refuse_taken(self.to_do)
            for each in self.to_do:
                with each.folder.lock():
                    each.folder.ask_anew()

    def on_slurm(self, profile: Profile) -> int:
        """Send the runs to the cluster; returns the exit status."""
        if self.scheduler.silent and not self.options.scripts_only:
            raise UserError(self.scheduler.silent)
        if self.options.dry_run:
            print(preview([(run.config, run.folder) for run in self.to_do], profile))
            return 0
        if self.options.force and any(
            progress.job and not folder.is_asked_anew() for folder, progress in self.look()
        ):
            raise UserError("force=true: some of the runs have jobs; cancel=true ends them first")
        if self.to_do:
            if self.options.force:
                refuse_taken(self.to_do)
            told = submit(
                [(run.config, run.folder) for run in self.to_do],
                lambda progress: is_wanted(progress, self.options),
                self.grid.name,
                profile,
                self.environment,
                self.again,
                anew=self.options.force,
                script_only=self.options.scripts_only,
            )
            print("\n".join(told) or "another process has just submitted them")
        else:
            self.tell_that_nothing_is_left()
        if self.options.scripts_only or not self.options.wait:
            print(f"how they stand: {self.status}")
            return 0
        return self.wait()

    def wait(self) -> int:
        """Show the progress of the jobs until all have ended; returns the exit status."""
        scheduler = Scheduler()
        launcher = OnCluster([run.folder for run in self.planned], scheduler)
        watched = replace(self, scheduler=scheduler)
        try:
            watch(watched.look, launcher.poll, CLUSTER_POLL_SECONDS)
        except KeyboardInterrupt:
            print("\nthe jobs go on without this command; cancel=true ends them")
            return INTERRUPTED
        return watched.report_end()

    def tell_that_nothing_is_left(self) -> None:
        """Say why nothing is done: all is, or all has jobs, or `retry` finds none."""
        standing = self.look()
        at_work = sum(goes_on(progress) for _, progress in standing)
        busy = f"{count(at_work, 'run')} at work or in the queue"
        if self.options.retry:
            named = " or ".join(words(self.options.retry))
            print(f"no run is {named}{f'; {busy}' if at_work else ''}")
        elif at_work:
            print(f"nothing is left to submit: {busy}")
        elif all(progress.state == "done" for _, progress in standing):
            print(f"nothing is left to do; next: {self.figure}")
        elif any(progress.state == "blocked" for _, progress in standing):
            print("nothing can be done: the blocked runs need cancel=true and another profile")
        else:
            print("nothing can be done before the damaged files are mended")

    def report_end(self) -> int:
        """Print how all runs ended; exit status 1 if any has no result."""
        standing = self.look()
        print_table(standing)
        print(summary([progress for _, progress in standing]))
        wrong = [(folder, progress) for folder, progress in standing if progress.state != "done"]
        for folder, progress in wrong:
            cause = progress.cause or "no result"
            print(f"{progress.state}: {folder.name}: {cause} ({log_path(folder)})", file=sys.stderr)
        if not wrong:
            print(f"next: {self.figure}")
        return 1 if wrong else 0


def restore(planned: Sequence[Planned], standing: Sequence[Standing], command_again: str) -> bool:
    """Write configurations that were damaged as they were; whether there were any."""
    damaged = [
        run
        for run, (_, progress) in zip(planned, standing, strict=True)
        if "config" in progress.damaged
    ]
    for run in damaged:
        run.folder.create(run.config, command_again)
        print(f"restored {run.folder.path / 'config.json'}", flush=True)
    return bool(damaged)


def refuse_taken(runs: Sequence[Planned]) -> None:
    """Before any is touched: whether one of the runs cannot be made anew.

    Raises:
        RunIsTaken: a process is at work on it.
    """
    for run in runs:
        if run.folder.path.exists() and run.folder.is_taken():
            raise RunIsTaken(f"force=true: {run.folder.name} is being run by another process")


def make_launcher(
    name: str, environment: Environment, workers: int, folders: list[RunFolder]
) -> Launcher:
    """The launcher of this machine that is called so."""
    if name != "inline":
        return LocalPool(folders, environment, workers)

    def make(folder: RunFolder) -> bool:
        return (
            one_run.main([f"folder={folder.path}", *environment_arguments(environment)])
            != INTERRUPTED
        )

    return Inline(folders, make)


def print_plan(standing: Sequence[Standing], planned: Sequence[Planned], force: bool) -> None:
    """The runs with their settings, and what is done already."""
    common, own = settings_of([run.config for run in planned])
    print(f"settings of all, where they are no defaults: {common or 'none'}")
    if force:
        print(f"{count(len(planned), 'run')}, all anew (force=true):")
    else:
        print(summary([progress for _, progress in standing]))
    for run, settings, (_, progress) in zip(planned, own, standing, strict=True):
        at = f" at outer step {progress.step}" if progress.state not in ("waiting", "done") else ""
        why = f"  {progress.told}" if progress.told else ""
        told = f"{run.config.method:<16} seed {run.config.seed}  {progress.state}{at}{why}"
        print(f"  {told}  {settings}".rstrip())
    sys.stdout.flush()  # what follows may take long


def cancel(grid: Grid, planned: Sequence[Planned], sure: bool) -> int:
    """Cancel the jobs of these runs, after asking; returns the exit status."""
    jobs = cancel_jobs([run.folder for run in planned], lambda jobs: agreed(grid, jobs, sure))
    print(f"cancelled {count(len(jobs), 'job')}" if jobs else "no job was cancelled")
    return 0


def agreed(grid: Grid, jobs: Sequence[str], sure: bool) -> bool:
    """Whether the user wants to cancel these jobs.

    Raises:
        UserError: there is nobody to ask.
    """
    if sure:
        return True
    if not sys.stdin.isatty():
        raise UserError("cancel=true asks at a terminal; without one give yes=true too")
    asked = f"cancel {count(len(jobs), 'job')} of the grid {grid.name} ({', '.join(jobs[:5])}"
    answer = input(f"{asked}{', ...' if len(jobs) > 5 else ''})? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


def next_command(grid: Grid, argv: Sequence[str]) -> str:
    """The command that shows what a sweep with the arguments `argv` has made: its figure, or the
    report where it feeds tables and claims alone. A grid of somebody's own is drawn as curves."""
    named = [text for text in argv if text.startswith("grid=")]
    of_ours = all(text.removeprefix("grid=") in grid_names() for text in named)
    kept = [text for text in what_is_run(argv, "scale") if not text.startswith("seed=")]
    if of_ours and not grid.figures:
        return module_command("analysis.report", *kept)
    figure = grid.figures[0] if grid.figures else CURVES
    return module_command("analysis.plot", f"figure={figure}", *([] if of_ours else named), *kept)


def status_command(argv: Sequence[str]) -> str:
    """The command that tells how the runs of a sweep with the arguments `argv` stand."""
    return module_command("bench.status", *what_is_run(argv, *keys_of(StatusOptions)))


def sweep_command(argv: Sequence[str], scale: str) -> str:
    """The command that goes on with a sweep that was given the arguments `argv`."""
    kept = what_is_run(argv, "grid", "seeds", "only", "profile")
    return module_command("bench.sweep", *kept, f"scale={scale}")


def module_command(module: str, *arguments: str) -> str:
    """A command of this project, to be pasted into a shell."""
    return shlex.join(["python", "-m", module, *arguments])


def what_is_run(argv: Sequence[str], *options: str) -> list[str]:
    """Those of the arguments that say which runs are meant, and some of the sweep's options."""
    left_out = set(keys_of(SweepOptions, Environment, Profile)) - {"results_root", *options}
    return [text for text in argv if text.partition("=")[0].partition(".")[0] not in left_out]


if __name__ == "__main__":
    command(main, USAGE, SweepOptions, RunConfig, Environment, Profile)
