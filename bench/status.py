"""`python -m bench.status [grid=...]`: how runs stand, at any time, from any terminal."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.config.command_line import command, only, parse, setting, typed, words
from bench.config.grid import choose_scale, load_grid, requested
from bench.config.run_config import Environment, RunConfig
from bench.runs.run_folder import Store
from bench.sweeps.live_table import watch
from bench.sweeps.status_table import print_table, summary
from bench.system.errors import UserError
from bench.system.files import is_full
from slurm.job_status import standings
from slurm.scheduler import Scheduler
from slurm.submit import OnCluster

USAGE = """
python -m bench.status [grid=NAME] [key=value ...]     a table of runs and how they stand
"""

WATCH_SECONDS = 2.0


@dataclass(frozen=True)
class StatusOptions:
    """Options of this command."""

    grid: str = setting("", "the runs of one grid; without it, all runs under results_root")
    scale: str = setting("auto", "auto, quick, cpu or paper: the scale of the grid")
    seeds: int = setting(0, "seeds of the grid; 0: as many as it states", minimum=0, maximum=10_000)
    only: str = setting("", "only these methods, comma-separated")
    watch: bool = setting(False, "refresh until no run is at work or in the queue any more")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, StatusOptions, RunConfig, Environment)
    options = typed(StatusOptions, only(given, StatusOptions))
    environment = typed(Environment, only(given, Environment))
    overrides = {key: value for key, value in only(given, RunConfig).items() if key != "scale"}
    store = Store(Path(environment.results_root))
    if options.grid:
        scale, why = choose_scale(options.scale)
        print(f"grid {options.grid}, scale={scale} ({why})")
        configs = requested(
            load_grid(options.grid),
            scale,
            overrides,
            seeds=options.seeds,
            methods=words(options.only),
        )
        folders = [store.run(config) for config in configs]
    elif overrides:
        raise UserError("run settings select runs of a grid: name it with grid=...")
    else:
        folders = store.runs()
        if wanted := words(options.only):
            folders = [folder for folder in folders if folder.name.rpartition("-")[0] in wanted]
    scheduler = Scheduler()
    standing = standings(folders, scheduler)
    if not standing:
        print(f"no runs under {store.root}; python -m bench.sweep grid=window_ablation makes some")
        return 0
    if options.watch:
        with suppress(KeyboardInterrupt):
            watch(
                lambda: standings(folders, scheduler),
                OnCluster(folders, scheduler).poll,
                WATCH_SECONDS,
            )
        standing = standings(folders, scheduler)
    print_table(standing)
    if scheduler.silent:
        print(f"{scheduler.silent}; this is what the runs' files say", file=sys.stderr)
    print(summary([progress for _, progress in standing]))
    if is_full(store.root):
        print(f"warning: no space is left for {store.root}: runs will fail", file=sys.stderr)
    return 0


if __name__ == "__main__":
    command(main, USAGE, StatusOptions, RunConfig, Environment)
