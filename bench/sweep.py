"""`python -m bench.sweep grid=window_ablation`: run a grid; skip what is finished, resume what was
killed."""

import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import run as one_run
from bench.config import Place, RunConfig
from bench.errors import UserError
from bench.files import make_folder
from bench.grids import Grid, choose_scale, grid_names, load_grid, requested
from bench.launch import Inline, Launcher, LocalPool, place_arguments
from bench.plan import Planned, plan
from bench.progress import Progress, log_path, progress_of
from bench.settings import command, keys_of, only, parse, setting, typed, words
from bench.status import console, duration, rows, summary, table
from bench.store import RunFolder, Store

if TYPE_CHECKING:
    from rich.console import Group

USAGE = f"""
python -m bench.sweep grid=NAME [key=value ...]     run a grid: {", ".join(grid_names())}
  any run setting can be given too and holds for all runs of the grid
"""

POLL_SECONDS = 0.25
PLAIN_LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


@dataclass(frozen=True)
class SweepOptions:
    """What this command is asked to do."""

    grid: str = setting("", "name of a grid, or path of your own .yaml")
    scale: str = setting("auto", "auto, quick, cpu or paper")
    seeds: int = setting(0, "seeds of each run; 0: as many as the grid states", minimum=0)
    only: str = setting("", "only these methods, comma-separated")
    workers: int = setting(0, "processes at a time; 0: as many as GPUs, else cores", minimum=0)
    launcher: str = setting("auto", "where runs are made", ("auto", "local", "inline"))
    check_memory: bool = setting(True, "refuse runs that cannot fit into memory")
    dry_run: bool = setting(False, "print the plan and stop")
    force: bool = setting(False, "make all runs anew, finished ones too")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, SweepOptions, RunConfig, Place)
    options = typed(SweepOptions, only(given, SweepOptions))
    if not options.grid:
        raise UserError(f"name a grid: grid={' or grid='.join(grid_names())}")
    place = typed(Place, only(given, Place))
    place = replace(place, threads=place.threads or 1)
    grid = load_grid(options.grid)
    scale, why = choose_scale(options.scale)
    print(f"grid {grid.name}: {grid.about}\nscale={scale} ({why})")
    store = Store(Path(place.results_root))
    configs = requested(
        grid,
        scale,
        only(given, RunConfig),
        seeds=options.seeds,
        methods=words(options.only),
    )
    planned = [Planned(config, store.run(config)) for config in configs]
    to_do = [run for run in planned if options.force or progress_of(run.folder).state != "done"]
    print_plan(planned, options.force)
    if not options.dry_run:
        make_folder(Path(place.results_root), "results folder")
    if to_do:
        options = replace(options, workers=planned_workers(to_do, place, options))
    figure = figure_command(grid, argv)
    if options.dry_run or not to_do:
        if not to_do:
            print(f"nothing is left to do; next: {figure}")
        return 0
    for each in to_do:
        each.folder.create(each.config)
        if options.force:
            with each.folder.lock():
                each.folder.clear()
    folders = [each.folder for each in to_do]
    launcher = make_launcher(options, place, folders)
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` is as good as Ctrl-C
        watch(launcher, planned)
    except KeyboardInterrupt:
        print("\ninterrupted: waiting for the runs to write their checkpoints", flush=True)
        launcher.stop()
        print("stopped; the same command goes on from there")
        return 130
    return report_end(planned, figure)


def planned_workers(to_do: list[Planned], place: Place, options: SweepOptions) -> int:
    """Print the estimate; how many runs to make at a time."""
    pool = LocalPool([], place, options.workers)
    return plan(
        to_do,
        place,
        1 if options.launcher == "inline" else pool.workers,
        gpus=len(pool.gpus),
        asked=options.workers > 0,
        check_memory=options.check_memory,
    )


def make_launcher(options: SweepOptions, place: Place, folders: list[RunFolder]) -> Launcher:
    """The launcher that the options name."""
    if options.launcher != "inline":
        return LocalPool(folders, place, options.workers)

    def make(folder: RunFolder) -> bool:
        return one_run.main([f"folder={folder.path}", *place_arguments(place)]) != 130

    return Inline(folders, make)


def print_plan(planned: list[Planned], force: bool) -> None:
    """The runs, and what is done already."""
    if force:
        print(f"{len(planned)} runs, all anew (force=true):")
    else:
        print(summary([progress_of(run.folder) for run in planned]))
    for run in planned:
        progress = progress_of(run.folder)
        at = f" at outer step {progress.step}" if progress.state not in ("waiting", "done") else ""
        print(f"  {run.config.method:<16} seed {run.config.seed}  {progress.state}{at}")


def watch(launcher: Launcher, planned: list[Planned]) -> None:
    """Show the progress until the launcher has nothing left to do."""
    from rich.live import Live

    out = console()
    folders = [run.folder for run in planned]
    if out.is_terminal and not isinstance(launcher, Inline):
        with Live(console=out, auto_refresh=False, transient=True) as live:
            while launcher.poll():
                live.update(live_view(rows(folders), out.height), refresh=True)
                time.sleep(POLL_SECONDS)
        return
    told: dict[str, str] = {}
    told_at = time.monotonic()
    while launcher.poll():
        standing = rows(folders)
        for folder, progress in standing:
            if told.setdefault(folder.name, "waiting") != progress.state:
                told[folder.name] = progress.state
                told_at = time.monotonic()
                print(plain_line(folder, progress), flush=True)
        if time.monotonic() - told_at >= PLAIN_LINE_SECONDS:
            told_at = time.monotonic()
            for folder, progress in standing:
                if progress.state == "running":
                    print(plain_line(folder, progress), flush=True)
        time.sleep(POLL_SECONDS)


def live_view(standing: list[tuple[RunFolder, Progress]], height: int) -> "Group":
    """The table and a summary; where the terminal is too low for all runs, those at work only."""
    from rich.console import Group

    told = summary([progress for _, progress in standing])
    if len(standing) + 3 > height:
        standing = [row for row in standing if row[1].state == "running"]
    return Group(table(standing[: max(1, height - 3)]), told)


def plain_line(folder: RunFolder, progress: Progress) -> str:
    """A run's progress in one line, for logs."""
    line = f"{time.strftime('%H:%M:%S')} {folder.name}  {progress.state}"
    if progress.state == "running":
        line += f"  {progress.activity}, outer step {progress.step}/{progress.outer_steps}"
        if progress.seconds_left is not None:
            line += f", {duration(progress.seconds_left)} left"
    return line + (f"  {progress.cause}" if progress.cause else "")


def figure_command(grid: Grid, argv: list[str]) -> str:
    """The command that draws what a sweep with the arguments `argv` has made."""
    own = {"grid", "seeds", "seed", "only", "workers", "launcher", "check_memory"}
    own |= {"dry_run", "force"}
    place = set(keys_of(Place)) - {"results_root"}
    kept = [text for text in argv if text.partition("=")[0] not in own | place]
    figure = grid.figures[0] if grid.figures else "..."
    return " ".join(["python -m analysis.plot", f"figure={figure}", *kept])


def report_end(planned: list[Planned], figure: str) -> int:
    """Print how all runs ended; exit status 1 if any has no result."""
    standing = rows([run.folder for run in planned])
    console().print(table(standing))
    print(summary([progress for _, progress in standing]))
    wrong = [(folder, progress) for folder, progress in standing if progress.state != "done"]
    for folder, progress in wrong:
        cause = progress.cause or "no result"
        print(f"{progress.state}: {folder.name}: {cause} ({log_path(folder)})", file=sys.stderr)
    if not wrong:
        print(f"next: {figure}")
    return 1 if wrong else 0


if __name__ == "__main__":
    command(main, USAGE, SweepOptions, RunConfig, Place)
