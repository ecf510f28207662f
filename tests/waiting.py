"""Waiting in tests: as long as it takes. A slow machine must fail no test, so nothing here counts
seconds; what hangs is ended, as a failure, by the one time limit of all tests (pyproject.toml)."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PAUSE_SECONDS = 0.01

# Two methods whose runs wait before the outer step that a file names. (What only plans or measures
# a run does not wait.)
GATED = """
import os, sys, time
from pathlib import Path
from methods import METHODS

IN_A_RUN = "bench.run" in sys.orig_argv
GATE = Path(os.environ["GATE"])

def gated(name):
    class Gated(METHODS[name]):
        def next_window(self, step, rng):
            here = GATE.parent / "waiting" / str(os.getpid())
            while IN_A_RUN and step >= int(GATE.read_text()):
                here.touch()
                time.sleep(0.01)
            here.unlink(missing_ok=True)
            return super().next_window(step, rng)
    return Gated

Random, Backward = gated("rat_bptt"), gated("backward_window")
"""


class Gate:
    """What the runs of `method=gated:Random` and `method=gated:Backward` wait at, so that a test
    can do something to them at a known outer step, however slow or fast the machine is.

    Args:
        folder: an empty one.
        environment: of the commands that make the runs.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.path = folder / "gate"
        (folder / "gated.py").write_text(GATED)
        (folder / "waiting").mkdir()
        environment["GATE"] = str(self.path)
        environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(folder)])
        self.open()

    def open(self, steps: int = 1 << 30) -> None:
        """Let runs make so many outer steps, counted from their beginning."""
        new = self.path.with_suffix(".new")
        new.write_text(str(steps))
        new.replace(self.path)

    def waiting(self) -> list[int]:
        """The processes that wait at it."""
        pids = [int(path.name) for path in (self.path.parent / "waiting").iterdir()]
        return [pid for pid in pids if psutil.pid_exists(pid)]

    def await_at(self, processes: int, leader: subprocess.Popen[str]) -> None:
        """Wait until so many wait at it; `leader` is the process that is to bring it about."""
        wait_until(lambda: len(self.waiting()) == processes, "runs to be at the gate", leader)


def wait_until(
    condition: Callable[[], object], what: str, process: subprocess.Popen[str] | None = None
) -> None:
    """Look again and again until `condition` holds.

    Args:
        what: what is waited for, in the words of a failure.
        process: the one that is to bring it about: once it has ended it no longer can.

    Raises:
        AssertionError: the process ended before.
    """
    while True:
        ended = process is not None and process.poll() is not None
        if condition():
            return
        if ended:
            assert process is not None
            told = process.communicate()
            raise AssertionError(f"{what}: the process ended with {process.returncode}: {told}")
        time.sleep(PAUSE_SECONDS)


def has_ended(process: psutil.Process) -> bool:
    """Whether nothing but its exit status is left of it, if that."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE or not process.is_running()
    except psutil.NoSuchProcess:
        return True
