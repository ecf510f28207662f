"""A process that makes a run, and that a test leads: at each report of the run it says where it is
and waits to be told to go on, or to die before a certain change of a file from there."""

import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import Environment, RunConfig
from bench.runs.run_folder import RunFolder, Store
from bench.runs.run_lock import RunIsTaken
from tests.reliability.mortal import changed_path, die
from tests.waiting import LIMIT_SECONDS, wait_until

Outcomes = Callable[[Path], dict[str, Any]]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["bench.run", "bench.runs.execute"])

# Orders to go on to the next report: as it comes, once a takeover is noticed, or ...
GO, NOTICE = 0, -1  # a number above 0: dying before that change of a file by the main thread

SHORT = {
    **{"outer_steps": 4, "variance_every": 3, "variance_samples": 2, "accuracy_every": 2},
    **{"accuracy_networks": 1, "evaluation_networks": 1, "evaluation_steps": [2]},
    **{"method": "snr_bptt", "learn_labels": True},
}
ENDS = ("done", "taken", "interrupted", "superseded", "dead")


@dataclass
class Life:
    """A process that makes the run in `folder`, and where it is.

    Attributes:
        host: the name of the machine that it believes to be on; empty: this one.
        at: the last report, such as ("stepped", 3), or an end (`ENDS`).
    """

    folder: Path
    cache_root: Path
    takeover: str = ""
    host: str = ""
    at: tuple[str, int] = ("begun", 0)
    process: BaseProcess = field(init=False)
    pipe: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        own = (theirs, self.folder, self.cache_root, self.takeover, self.host)
        self.process = CONTEXT.Process(target=live, args=own, daemon=True)
        self.process.start()
        theirs.close()

    @property
    def ended(self) -> bool:
        return self.at[0] in ENDS

    def arrive(self) -> tuple[str, int]:
        """Wait for the next report, or for the end."""
        assert self.pipe.poll(LIMIT_SECONDS), "the process says nothing"
        try:
            self.at = self.pipe.recv()
        except EOFError:
            self.at = ("dead", 0)
        if self.ended:
            self.process.join()
        return self.at

    def go_on(self, order: int = GO) -> tuple[str, int]:
        self.pipe.send(order)
        return self.arrive()

    def go_on_to_the_end(self) -> str:
        while not self.ended:
            self.go_on()
        return self.at[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.at = ("dead", 0)


def live(pipe: Connection, folder: Path, cache_root: Path, takeover: str, host: str) -> None:
    """What the process does."""
    from bench.runs import execute
    from bench.runs.heartbeat import Heartbeat

    if host:
        import socket

        socket.gethostname = lambda: host
    hearts: list[Heartbeat] = []
    beats = execute.Heartbeat

    def noted(*arguments: Any) -> Heartbeat:
        hearts.append(beats(*arguments))
        return hearts[-1]

    execute.Heartbeat = noted  # type: ignore[assignment, misc]
    dies = Dies()
    sys.addaudithook(dies)
    reporter = Reports(pipe, hearts, dies)
    environment = Environment(cache_root=str(cache_root), threads=1, checkpoint_seconds=0)
    reporter.pause("begun", 0)
    try:
        execute.execute(RunFolder(folder), environment, reporter, takeover=takeover)
        end = "done"
    except RunIsTaken:
        end = "taken"
    except execute.Superseded:
        end = "superseded"
    except execute.Interrupted:
        end = "interrupted"
    pipe.send((end, 0))
    os._exit(0)


class Dies:
    """An audit hook: kills the process before a change of a file by its main thread."""

    def __init__(self) -> None:
        self.left = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.left and changed_path(event, arguments):
            if threading.current_thread() is not threading.main_thread():
                return  # the heartbeat keeps its own time
            self.left -= 1
            if self.left == 0:
                die()


class Reports:
    """A reporter of a run (`bench.runs.execute.Reporter`) that waits for orders."""

    def __init__(self, pipe: Connection, hearts: list[Any], dies: Dies) -> None:
        self.pipe, self.hearts, self.dies = pipe, hearts, dies

    def pause(self, at: str, number: int) -> None:
        self.dies.left = 0
        self.pipe.send((at, number))
        order = self.pipe.recv()
        if order == NOTICE:
            wait_until(lambda: self.hearts[-1].superseded, "the takeover")
        self.dies.left = max(order, 0)

    def started(self, target_set: Any, device: Any, resumed_at: int) -> None:
        self.pause("started", resumed_at)

    def stepped(self, record: Any) -> None:
        self.pause("stepped", record.step + 1)

    def measured(self, measurement: dict[str, Any]) -> None:
        self.pause("measured", measurement["step"])

    def evaluating(self, what: str, trained: int, networks: int) -> None:
        self.pause("evaluating", trained)


class Undisturbed:
    """What the run computes if nobody disturbs it."""

    def __init__(self, tiny: list[str], root: Path, cache_root: Path, outcomes: Outcomes) -> None:
        config = single_run("quick", {**parse(tiny, RunConfig), **SHORT})
        self.config, self.cache_root, self.outcomes = config, cache_root, outcomes
        folder = Store(root).run(config)
        folder.create(config)
        life = Life(folder.path, cache_root)
        life.arrive()
        assert life.go_on_to_the_end() == "done"
        self.outcome = outcomes(root)
        ((self.metrics, measurements, *_),) = self.outcome.values()
        self.measurements = [json.loads(line) for line in measurements.splitlines()]
