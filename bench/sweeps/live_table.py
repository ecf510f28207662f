"""Shows runs while they are running: a live table on a terminal, elsewhere a line now and then."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench.config.command_line import say
from bench.runs.heartbeat import Progress
from bench.runs.run_folder import RunFolder
from bench.sweeps.status_table import RunStatus, console, live_table, summary
from bench.system.text import duration

if TYPE_CHECKING:
    from rich.console import Group

# Where there is no terminal, progress is printed every ten seconds at first, then more and more
# rarely, so that the log of a sweep of weeks stays readable; in one line if many runs are running.
PLAIN_LINE_SECONDS, LONGEST_PLAIN_LINE_SECONDS = 10.0, 600.0
SHARE_BETWEEN_LINES = 0.02  # of the time since the beginning
MOST_PLAIN_LINES = 20

# To read ten thousand runs takes seconds of a processor, which the runs need themselves.
LARGEST_SHARE = 0.1  # of the time that is spent with looking


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
    if out.is_terminal and not out.is_dumb_terminal and redraw:
        with Live(console=out, auto_refresh=False, transient=True) as live:
            _look_again_and_again(
                lambda: live.update(live_view(read_statuses(), out.height), refresh=True),
                poll,
                pause_seconds,
            )
        return
    lines = PlainLines()
    _look_again_and_again(lambda: lines.show(read_statuses()), poll, pause_seconds)


def _look_again_and_again(
    look: Callable[[], None], poll: Callable[[], bool], pause_seconds: float
) -> None:
    next_look = began = time.monotonic()
    while poll():
        polled = time.monotonic()
        if polled >= next_look:
            look()
            next_look = polled + (time.monotonic() - polled) / LARGEST_SHARE
        time.sleep(max(pause_seconds, (polled - began) / LARGEST_SHARE))
        began = time.monotonic()


class PlainLines:
    """Prints each change of a run's state and, now and then, how far the running ones are."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}  # the state that was printed last, by run
        self.began = self.printed_at = time.monotonic()

    def show(self, statuses: Sequence[RunStatus]) -> None:
        now = time.monotonic()
        pause = max(PLAIN_LINE_SECONDS, SHARE_BETWEEN_LINES * (now - self.began))
        lines = []
        for folder, progress in statuses:
            if self.states.setdefault(folder.name, "waiting") != progress.state:
                self.states[folder.name] = progress.state
                lines.append(plain_line(folder, progress))
        if not lines and now - self.printed_at >= min(pause, LONGEST_PLAIN_LINE_SECONDS):
            running = [(folder, one) for folder, one in statuses if one.state == "running"]
            lines = [plain_line(folder, progress) for folder, progress in running]
            if len(lines) > MOST_PLAIN_LINES:
                every = [progress for _, progress in statuses]
                lines = [f"{time.strftime('%H:%M:%S')} {summary(every)}"]
        if lines:
            self.printed_at = now
            say("\n".join(lines))


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
