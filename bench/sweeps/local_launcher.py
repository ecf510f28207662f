"""What a launcher is, and the two that need no cluster: a pool of processes, and this process.

A launcher makes runs come about. It says nothing of how they fare: that stands in their folders,
and `bench.runs.heartbeat` reads it there.
"""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

from bench.config.run_config import Environment
from bench.runs.heartbeat import log_path, progress_of, record_failure
from bench.runs.run_folder import RunFolder, now
from bench.system.errors import INTERRUPTED, SUPERSEDED
from bench.system.files import end_of_log, is_full, writing
from bench.system.git import SOURCE
from bench.system.machine import cpu_cores, out_of_memory_kills, visible_gpus
from bench.system.peak_memory import ran_out

SECONDS_TO_STOP = 60.0  # an outer step of the paper's setting takes seconds; then a checkpoint


class Launcher(Protocol):
    """Brings runs to their end."""

    def poll(self) -> bool:
        """Do what is due; False once nothing is left to do."""
        ...

    def stop(self) -> None:
        """Make the runs write a checkpoint and end. Called when the sweep is interrupted."""
        ...


class Inline:
    """Runs in this process, one after the other: for debuggers.

    Args:
        make: brings one run to its end; False where it was interrupted.
    """

    def __init__(self, folders: list[RunFolder], make: Callable[[RunFolder], bool]) -> None:
        self.waiting = deque(folders)
        self.make = make

    def poll(self) -> bool:
        if not self.waiting:
            return False
        folder = self.waiting.popleft()
        try:
            finished = self.make(folder)
        except Exception as error:  # recorded in the run's folder; the others still get their turn
            print(f"{folder.name}: {error}", file=sys.stderr)
            finished = True
        if not finished:
            raise KeyboardInterrupt
        return bool(self.waiting)

    def stop(self) -> None:
        self.waiting.clear()


@dataclass
class Worker:
    """A process at work on a run, and the slot that it takes."""

    folder: RunFolder
    process: subprocess.Popen[bytes]
    slot: int
    kills_before: int  # for memory, as the system counts them


class LocalPool:
    """At most `workers` processes at a time on this machine, one run each.

    A run that another process is at work on (a second sweep, or what a killed sweep left behind) is
    not started twice: it waits until that process ends, then is looked at again.

    Args:
        folders: runs in the order of their turn.
        workers: 0 takes one worker a GPU, or what the CPU cores allow where there is none.
    """

    def __init__(
        self, folders: list[RunFolder], environment: Environment, workers: int = 0
    ) -> None:
        self.waiting = deque(folders)
        self.environment = environment
        self.gpus = visible_gpus() if environment.device == "auto" else []
        self.free_slots = list(range(workers or self._default_workers()))
        self.workers = len(self.free_slots)
        self.at_work: list[Worker] = []

    def _default_workers(self) -> int:
        if self.gpus or self.environment.device.startswith("cuda"):
            return max(1, len(self.gpus))
        return max(1, cpu_cores() // max(1, self.environment.threads))

    def poll(self) -> bool:
        for worker in [w for w in self.at_work if w.process.poll() is not None]:
            self.at_work.remove(worker)
            self.free_slots.append(worker.slot)
            killed = out_of_memory_kills() > worker.kills_before
            note_death(worker.folder, worker.process.returncode, out_of_memory=killed)
        for _ in range(len(self.waiting)):
            if not self.free_slots:
                break
            folder = self.waiting.popleft()
            if folder.is_done():
                continue
            if folder.is_taken():
                self.waiting.append(folder)
            else:
                self._start(folder)
        return bool(self.at_work or self.waiting)

    def _start(self, folder: RunFolder) -> None:
        slot = self.free_slots.pop(0)
        command = [sys.executable, "-m", "bench.run", f"folder={folder.path.resolve()}"]
        variables = child_environment()
        if self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        kills_before = out_of_memory_kills()
        with writing(log_path(folder)), open(log_path(folder), "ab") as log:
            log.write(f"--- {now()}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [*command, *environment_arguments(self.environment)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which then calls stop()
            )
        self.at_work.append(Worker(folder, process, slot, kills_before))

    def stop(self) -> None:
        for worker in self.at_work:
            worker.process.send_signal(signal.SIGTERM)
        for worker in self.at_work:
            try:
                worker.process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self.at_work.clear()
        self.waiting.clear()


def note_death(folder: RunFolder, status: int, out_of_memory: bool = False) -> None:
    """Record the end of a run's process that could not record it itself (killed, or crashed).

    Args:
        status: as `subprocess` gives it: negative for a signal.
        out_of_memory: whether the system has killed for memory while it lived.
    """
    if status in (0, INTERRUPTED, SUPERSEDED) or progress_of(folder).state in ("failed", "done"):
        return
    if folder.is_taken() or (folder.path / "error.json").exists():
        return
    lines = last_lines(folder)
    said = next((line for line in reversed(lines) if ran_out(line)), "")
    if status < 0:
        name = signal.Signals(-status).name
        by_system = -status == signal.SIGKILL
        hint = ", as the system does when memory runs out" if by_system else ""
        message = f"its process was ended by {name}{hint}{f' ({said})' if said else ''}"
        kind = "out of memory" if said or (out_of_memory and by_system) else "killed"
    else:
        last = lines[-1] if lines else f"its process ended with exit status {status}"
        message, kind = said or last.removeprefix("error: "), "out of memory" if said else "error"
    if kind != "out of memory" and is_full(folder.path):
        kind, message = "disk full", f"no space is left for {folder.path} ({message})"
    record_failure(folder, {"kind": kind, "message": message[:500]})


def last_lines(folder: RunFolder, count: int = 30) -> list[str]:
    """What a run's process printed last, since its last start."""
    lines = end_of_log(log_path(folder))
    starts = [number for number, line in enumerate(lines) if line.startswith("--- ")]
    return lines[starts[-1] + 1 if starts else 0 :][-count:]


def child_environment(processes: int = 1) -> dict[str, str]:
    """The environment of the processes that a launcher starts, so many for a run."""
    # The source tree may not be installed, and a user's own method may lie in the folder that the
    # sweep was started from.
    folders = [str(SOURCE), os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": "1"}
    if processes == 1:
        own["WORLD_SIZE"] = "1"  # it is alone and looks for no others to share its replicas
    return {**os.environ, **own}


def environment_arguments(environment: Environment) -> list[str]:
    """A place as command-line arguments, its folders made absolute."""
    arguments = []
    for item in fields(environment):
        value = getattr(environment, item.name)
        if item.name.endswith("_root"):
            value = Path(value).expanduser().resolve()
        arguments.append(f"{item.name}={value}")
    return arguments
