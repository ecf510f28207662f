"""When a moving window shifted (paper, C.2): read from the recorded starts of the windows."""

from analysis.load import FinishedRun
from analysis.records import collected
from methods import MovingWindow, method_class


def is_moving(run: FinishedRun) -> bool:
    """Whether the run's window shifts when learning stagnates: its method is a moving window, or a
    user's subclass of one."""
    try:
        return issubclass(method_class(run.config.method), MovingWindow)
    except ValueError:  # a user's method whose module is gone
        return False


def shift_steps(run: FinishedRun) -> list[int]:
    """The outer steps at which a moving window first lay at a new place, ascending; empty if it
    never shifted, and for methods whose window shifts for other reasons.

    Raises:
        UserError: the records of the run are missing or damaged.
    """
    if not is_moving(run):
        return []
    table = collected(run.folder, "metrics")
    shifted = table["window_start"].diff().fillna(0) != 0
    return [int(step) for step in table.loc[shifted, "step"]]
