"""Waiting in tests. A slow machine must fail no test, so the one time limit here is far beyond what
any machine needs, and below that of pytest (pyproject.toml), which could not say what hangs."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench.system.errors import UserError

PAUSE_SECONDS = 0.05
LIMIT_SECONDS = 1200.0

# What a sweep says of time and memory: on a slow machine it may rest on fewer images, and it may
# be missing of what took more than a minute to measure.
ESTIMATE = re.compile(
    r"^(estimate( \(scaled from fewer images\))?: .+ a run, "
    r"|no estimate of .+: it took more than )",
    re.MULTILINE,
)


class NotReached(UserError):
    """What a test, or the test SLURM, waited for has not happened."""


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
    """Makes the runs of `method=gated:Random` and `method=gated:Backward` wait, so that a test can
    do something to them at a known outer step, however slow or fast the machine is.

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
        """Wait until so many processes wait at it, which `leader` starts."""
        wait_until(lambda: len(self.waiting()) == processes, "runs to be at the gate", leader)


def wait_until(
    condition: Callable[[], object],
    what: str,
    process: subprocess.Popen[str] | None = None,
    *,
    seconds: float = LIMIT_SECONDS,
) -> None:
    """Check again and again until `condition` holds.

    Args:
        what: what is waited for, for the message of a failure.
        process: the one that is to bring it about: once it has ended it no longer can.

    Raises:
        NotReached: the process has ended, or the time is over.
    """
    deadline = time.monotonic() + seconds
    while True:
        ended = process is not None and process.poll() is not None
        if condition():
            return
        if ended:
            assert process is not None
            output = process.communicate()
            raise NotReached(f"{what}: the process ended with {process.returncode}: {output}")
        if time.monotonic() > deadline:
            raise NotReached(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(PAUSE_SECONDS)


def has_ended(process: psutil.Process) -> bool:
    """Whether nothing but its exit status is left of it, if that."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE or not process.is_running()
    except psutil.NoSuchProcess:
        return True
