"""Shows runs while they are running: a live table on a terminal, elsewhere a line now and then."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench.runs.heartbeat import Progress
from bench.runs.run_folder import RunFolder
from bench.sweeps.status_table import RunStatus, console, live_table, summary
from bench.system.text import duration

if TYPE_CHECKING:
    from rich.console import Group

PLAIN_LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


def watch(
    read_statuses: Callable[[], Sequence[RunStatus]],
    poll: Callable[[], bool],
    pause_seconds: float,
    *,
    redraw: bool = True,
) -> None:
    """Show the status of runs until `poll` returns False.

    Args:
        poll: called before each look; False once no run is active any more.
        redraw: whether a terminal may be drawn over.
    """
    from rich.live import Live

    out = console()
    if out.is_terminal and redraw:
        with Live(console=out, auto_refresh=False, transient=True) as live:
            while poll():
                live.update(live_view(read_statuses(), out.height), refresh=True)
                time.sleep(pause_seconds)
        return
    printed: dict[str, str] = {}  # the state that was printed last, by run
    printed_at = time.monotonic()
    while poll():
        statuses = read_statuses()
        for folder, progress in statuses:
            if printed.setdefault(folder.name, "waiting") != progress.state:
                printed[folder.name] = progress.state
                printed_at = time.monotonic()
                print(plain_line(folder, progress), flush=True)
        if time.monotonic() - printed_at >= PLAIN_LINE_SECONDS:
            printed_at = time.monotonic()
            for folder, progress in statuses:
                if progress.state == "running":
                    print(plain_line(folder, progress), flush=True)
        time.sleep(pause_seconds)


def live_view(statuses: Sequence[RunStatus], height: int) -> "Group":
    """The table and a summary; only the running runs where the terminal is too low for all."""
    from rich.console import Group

    last_line = summary([progress for _, progress in statuses])
    if len(statuses) + 3 > height:
        statuses = [row for row in statuses if row[1].state == "running"]
    return Group(live_table(statuses[: max(1, height - 3)]), last_line)


def plain_line(folder: RunFolder, progress: Progress) -> str:
    """A run's progress in one line, for logs."""
    line = f"{time.strftime('%H:%M:%S')} {folder.name}  {progress.state}"
    if progress.state == "running":
        line += f"  outer step {progress.step}/{progress.outer_steps}"
        if progress.seconds_left is not None:
            line += f", {duration(progress.seconds_left)} left"
    return line + (f"  {progress.description}" if progress.description else "")
