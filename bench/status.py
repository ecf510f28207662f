"""`python -m bench.status [grid=...]`: how runs stand, from their files alone, at any time."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import Place, RunConfig
from bench.errors import UserError
from bench.grids import choose_scale, load_grid, requested
from bench.progress import Progress, progress_of
from bench.settings import command, only, parse, setting, typed, words
from bench.store import RunFolder, Store

if TYPE_CHECKING:
    from rich.table import Table

USAGE = """
python -m bench.status [grid=NAME] [key=value ...]     a table of runs and how they stand
"""

COLOURS = {"done": "green", "running": "cyan", "failed": "red", "lost": "red", "stopped": "yellow"}


@dataclass(frozen=True)
class StatusOptions:
    """What this command is asked to do."""

    grid: str = setting("", "the runs of one grid; without it, all runs under results_root")
    scale: str = setting("auto", "auto, quick, cpu or paper: the scale of the grid")
    seeds: int = setting(0, "seeds of the grid; 0: as many as it states", minimum=0)
    only: str = setting("", "only these methods, comma-separated")


def rows(folders: list[RunFolder]) -> list[tuple[RunFolder, Progress]]:
    """Every run with its progress, read now."""
    return [(folder, progress_of(folder)) for folder in folders]


def summary(progresses: list[Progress]) -> str:
    """One line: how many runs are in each state."""
    counts: dict[str, int] = {}
    for progress in progresses:
        counts[progress.state] = counts.get(progress.state, 0) + 1
    order = ("done", "running", "waiting", "stopped", "lost", "failed")
    told = [f"{counts[state]} {state}" for state in order if state in counts]
    return f"{len(progresses)} runs: {', '.join(told)}" if progresses else "no runs"


def table(standing: list[tuple[RunFolder, Progress]]) -> "Table":
    """The table that `bench.status` prints and a sweep shows while it runs."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("run", "seed", "state", "outer step", "s/step", "left", "test accuracy", ""):
        right = heading in ("seed", "outer step", "s/step", "left", "test accuracy")
        shown.add_column(heading, justify="right" if right else "left", no_wrap=heading != "")
    for folder, progress in standing:
        config = folder.read("config") or {}
        running = progress.state == "running"
        pace, left = progress.seconds_per_step, progress.seconds_left
        shown.add_row(
            folder.name,
            str(config.get("seed", "")),
            Text(progress.state, style=COLOURS.get(progress.state, "")),
            f"{progress.step}/{config.get('outer_steps', '?')}",
            f"{pace:.2f}" if running and pace is not None else "",
            duration(left) if running and left is not None else "",
            accuracy(folder),
            progress.activity if running else progress.cause,
        )
    return shown


def accuracy(folder: RunFolder) -> str:
    """The test accuracy of a finished run with its spread and n, or nothing."""
    result = folder.read("result")
    if result is None:
        return ""
    return accuracy_text(result["evaluation"])


def accuracy_text(evaluation: dict[str, Any]) -> str:
    """Mean, standard deviation and n of an evaluation's test accuracy, in per cent."""
    mean, spread = evaluation["test_accuracy_mean"], evaluation["test_accuracy_std"]
    spread_text = f" ± {100 * spread:.1f}" if spread is not None else ""
    label = ", selected by TEST" if evaluation["selection"] == "test" else ""
    return f"{100 * mean:.1f}{spread_text} (n={evaluation['n']}{label})"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def console():
    """A rich console that does not cut tables to 80 columns where there is no terminal."""
    from rich.console import Console

    found = Console(highlight=False, soft_wrap=True)
    return found if found.is_terminal else Console(highlight=False, width=160)


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, StatusOptions, RunConfig, Place)
    options = typed(StatusOptions, only(given, StatusOptions))
    place = typed(Place, only(given, Place))
    overrides = {key: value for key, value in only(given, RunConfig).items() if key != "scale"}
    store = Store(Path(place.results_root))
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
    standing = rows(folders)
    if not standing:
        print(f"no runs under {store.root}; python -m bench.sweep grid=window_ablation makes some")
        return 0
    console().print(table(standing))
    print(summary([progress for _, progress in standing]))
    return 0


if __name__ == "__main__":
    command(main, USAGE, StatusOptions, RunConfig, Place)
