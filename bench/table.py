"""Runs as a table, and the small pieces of text that commands print of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.progress import Progress
from bench.store import RunFolder
from bench.text import count

if TYPE_CHECKING:
    from rich.table import Table

Standing = tuple[RunFolder, Progress]

STATES = ("done", "running", "waiting", "stopped", "blocked", "lost", "failed")
COLOURS = {"done": "green", "running": "cyan", "stopped": "yellow"}
COLOURS |= dict.fromkeys(("blocked", "lost", "failed"), "red")


def summary(progresses: Sequence[Progress]) -> str:
    """One line: how many runs are in each state."""
    counts: dict[str, int] = {}
    for progress in progresses:
        counts[progress.state] = counts.get(progress.state, 0) + 1
    told = [f"{counts[state]} {state}" for state in STATES if state in counts]
    return f"{count(len(progresses), 'run')}: {', '.join(told)}" if progresses else "no runs"


def table(standing: Sequence[Standing]) -> "Table":
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
    shown = folder.shown
    result = shown.read("result")
    if result is None:
        return ""
    before = " before" if shown is not folder else ""  # it is being made anew
    return accuracy_text(result["evaluation"]) + before


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
