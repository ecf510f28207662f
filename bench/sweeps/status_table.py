"""The status of runs as a table, and the small pieces of text that commands print about runs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from bench.runs.heartbeat import Progress
from bench.runs.run_folder import RunFolder
from bench.system.text import accuracy_text, count, duration

if TYPE_CHECKING:
    from rich.table import Table

RunStatus = tuple[RunFolder, Progress]

STATES = ("done", "running", "waiting", "stopped", "blocked", "lost", "failed", "damaged")
COLORS = {"done": "green", "running": "cyan", "stopped": "yellow"}
COLORS |= dict.fromkeys(("blocked", "lost", "failed", "damaged"), "red")

ANSI = {"red": 31, "green": 32, "yellow": 33, "cyan": 36}
COLUMNS: dict[str, Literal["left", "right"]] = {
    "run": "left",
    "seed": "right",
    "state": "left",
    "outer step": "right",
    "s/step": "right",
    "left": "right",
    "test accuracy": "right",
    "": "left",
}
STATE = 2  # the column of it


def summary(progresses: Sequence[Progress]) -> str:
    """One line: how many runs are in each state."""
    counts: dict[str, int] = {}
    for progress in progresses:
        counts[progress.state] = counts.get(progress.state, 0) + 1
    numbers = [f"{counts[state]:,} {state}" for state in STATES if state in counts]
    return f"{count(len(progresses), 'run')}: {', '.join(numbers)}" if progresses else "no runs"


def live_table(statuses: Sequence[RunStatus]) -> "Table":
    """The table that a terminal shows while runs are running."""
    from rich.table import Table
    from rich.text import Text

    rich_table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, side in COLUMNS.items():
        rich_table.add_column(heading, justify=side, no_wrap=heading != "")
    for folder, progress in statuses:
        texts = [Text(text) for text in cells(folder, progress)]
        texts[STATE].style = COLORS.get(progress.state, "")
        rich_table.add_row(*texts)
    return rich_table


def table(statuses: Sequence[RunStatus], colored: bool = False) -> str:
    """The table that `bench.status` prints, one line per run. (Libraries take seconds for
    thousands of lines.)

    Args:
        colored: whether the states have colors, for a terminal.
    """
    rows = [[*COLUMNS], *(cells(folder, progress) for folder, progress in statuses)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.ljust if side == "left" else str.rjust for side in COLUMNS.values()]
    lines = []
    for row in rows:
        texts = [side(text, width) for side, text, width in zip(sides, row, widths, strict=True)]
        if colored and row[STATE] in COLORS:
            texts[STATE] = f"\x1b[{ANSI[COLORS[row[STATE]]]}m{texts[STATE]}\x1b[0m"
        lines.append("  ".join(texts).rstrip())
    return "\n".join(lines)


def cells(folder: RunFolder, progress: Progress) -> list[str]:
    """A run's row."""
    pace, left = progress.seconds_per_step, progress.seconds_left
    return [
        folder.name,
        "" if progress.seed is None else str(progress.seed),
        progress.state,
        f"{progress.step}/{progress.outer_steps or '?'}",
        f"{pace:.2f}" if progress.state == "running" and pace is not None else "",
        duration(left) if progress.state == "running" and left is not None else "",
        accuracy(progress),
        " ".join(progress.description.split()),
    ]


def print_table(statuses: Sequence[RunStatus]) -> None:
    """Print it, with colors where there is a terminal."""
    print(table(statuses, colored=console().is_terminal))


def accuracy(progress: Progress) -> str:
    """The test accuracy of a finished run with its spread and n, or nothing."""
    if progress.evaluation is None:
        return ""
    return accuracy_text(progress.evaluation) + (" before" if progress.previous else "")


def console():
    """A rich console that does not cut tables to 80 columns where there is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, width=160)
