"""`python -m bench.status [grid=...]`: the status of runs, at any time, from any terminal."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.command_line import command, only, parse, setting, typed, words
from bench.config.grid import choose_scale, load_grid, requested
from bench.config.run_config import Environment, RunConfig
from bench.runs.run_folder import Store
from bench.sweeps.live_table import watch
from bench.sweeps.status_table import RunStatus, print_table, summary
from bench.system.errors import UserError
from bench.system.files import is_full
from slurm.job_status import is_active, statuses
from slurm.scheduler import Scheduler

USAGE = """
python -m bench.status [grid=NAME] [key=value ...]     a table of runs with their status
"""

WATCH_SECONDS = 2.0


@dataclass(frozen=True)
class StatusOptions:
    """Options of this command."""

    grid: str = setting("", "the runs of one grid; without it, all runs under results_root")
    scale: str = setting("auto", "auto, quick, cpu or paper: the scale of the grid")
    seeds: int = setting(0, "seeds of the grid; 0: as many as it states", minimum=0, maximum=10_000)
    only: str = setting("", "only these methods, comma-separated")
    where: dict[str, Any] = setting(
        {}, "only runs of the grid with these settings, e.g. where.dataset=cifar10"
    )
    watch: bool = setting(False, "refresh until no run is running or in the queue")


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
            where=options.where,
        )
        folders = [store.run(config) for config in configs]
    elif overrides or options.where:
        raise UserError("run settings select runs of a grid: name it with grid=...")
    else:
        folders = store.runs()
        if wanted := words(options.only):
            folders = [folder for folder in folders if folder.name.rpartition("-")[0] in wanted]
    scheduler = Scheduler()
    rows = statuses(folders, scheduler)
    if not rows:
        print(f"no runs under {store.root}; python -m bench.sweep grid=window_ablation starts some")
        return 0
    if options.watch:

        def read_statuses() -> list[RunStatus]:
            nonlocal rows
            rows = statuses(folders, scheduler)
            return rows

        with suppress(KeyboardInterrupt):
            watch(
                read_statuses,
                lambda: any(is_active(progress) for _, progress in rows),
                WATCH_SECONDS,
            )
        read_statuses()
    print_table(rows)
    if scheduler.silent:
        print(f"{scheduler.silent}; the table shows what the runs' files say", file=sys.stderr)
    print(summary([progress for _, progress in rows]))
    if is_full(store.root):
        print(f"warning: no space is left for {store.root}: runs will fail", file=sys.stderr)
    return 0


if __name__ == "__main__":
    command(main, USAGE, StatusOptions, RunConfig, Environment)
