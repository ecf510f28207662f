"""Watching runs: a table that refreshes where there is a terminal, else a line now and then."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench.runs.heartbeat import Progress
from bench.runs.run_folder import RunFolder
from bench.sweeps.status_table import Standing, console, live_table, summary
from bench.system.text import duration

if TYPE_CHECKING:
    from rich.console import Group

PLAIN_LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


def watch(
    look: Callable[[], Sequence[Standing]],
    goes_on: Callable[[], bool],
    pause_seconds: float,
    *,
    in_place: bool = True,
) -> None:
    """Show how runs stand until nothing goes on any more.

    Args:
        look: how they stand now.
        goes_on: called before each look; what has to be done in the meantime it can do.
        in_place: whether a terminal may be drawn over: not where the runs write to it themselves.
    """
    from rich.live import Live

    out = console()
    if out.is_terminal and in_place:
        with Live(console=out, auto_refresh=False, transient=True) as live:
            while goes_on():
                live.update(live_view(look(), out.height), refresh=True)
                time.sleep(pause_seconds)
        return
    told: dict[str, str] = {}
    told_at = time.monotonic()
    while goes_on():
        standing = look()
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
        time.sleep(pause_seconds)


def live_view(standing: Sequence[Standing], height: int) -> "Group":
    """The table and a summary; where the terminal is too low for all runs, those at work only."""
    from rich.console import Group

    told = summary([progress for _, progress in standing])
    if len(standing) + 3 > height:
        standing = [row for row in standing if row[1].state == "running"]
    return Group(live_table(standing[: max(1, height - 3)]), told)


def plain_line(folder: RunFolder, progress: Progress) -> str:
    """A run's progress in one line, for logs."""
    line = f"{time.strftime('%H:%M:%S')} {folder.name}  {progress.state}"
    if progress.state == "running":
        line += f"  outer step {progress.step}/{progress.outer_steps}"
        if progress.seconds_left is not None:
            line += f", {duration(progress.seconds_left)} left"
    return line + (f"  {progress.told}" if progress.told else "")
