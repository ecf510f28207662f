"""The launchers of one machine: a pool of processes, and this process itself, for debuggers."""

import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from bench.config.run_config import Environment
from bench.runs.log_file import open_log
from bench.runs.run_folder import RunFolder
from bench.runs.run_lock import is_being_run, lock
from bench.sweeps.child_process import child_environment, environment_arguments, record_death
from bench.sweeps.launcher import PlannedRun
from bench.sweeps.options import SweepOptions
from bench.sweeps.plan import plan
from bench.system.errors import INTERRUPTED, SUPERSEDED
from bench.system.machine import cpu_cores, out_of_memory_kills, visible_gpus

SECONDS_TO_STOP = 60.0  # an outer step of the paper's setting takes seconds; then a checkpoint


class LocalLauncher(ABC):
    """What both have in common: the estimate, and a queue of runs.

    Args:
        resume_command: resumes the sweep; noted in the folders of its runs.
    """

    poll_seconds = 0.25
    redraws = True

    def __init__(
        self, environment: Environment, options: SweepOptions, resume_command: str = ""
    ) -> None:
        self.environment = replace(environment, threads=environment.threads or 1)
        self.options = options
        self.resume_command = resume_command
        self.gpus = visible_gpus() if environment.device == "auto" else []
        self.workers = 1
        self.queue: deque[RunFolder] = deque()

    def prepare(self, runs: Sequence[PlannedRun]) -> None:
        if runs:
            self.workers = plan(
                runs,
                self.environment,
                self.workers,
                gpus=len(self.gpus),
                fixed=self.options.workers > 0,
                check_memory=self.options.check_memory,
                needs_data=not self.options.dry_run,
            )

    def start(self, runs: Sequence[PlannedRun]) -> bool:
        for run in runs:
            run.folder.create(run.config, self.resume_command)
        if self.options.force:
            for run in runs:
                with lock(run.folder):
                    run.folder.request_rerun()
        self.queue.extend(run.folder for run in runs)
        return bool(self.queue)

    @abstractmethod
    def poll(self) -> bool: ...

    def stop(self) -> str:
        self.queue.clear()
        return "stopped; the same command resumes the runs"


class Inline(LocalLauncher):
    """Runs in this process, one after the other: for debuggers.

    Args:
        run_command: `bench.run`'s main; its exit status says whether the run was interrupted.
    """

    redraws = False

    def __init__(
        self,
        environment: Environment,
        options: SweepOptions,
        resume_command: str,
        run_command: Callable[[list[str]], int],
    ) -> None:
        super().__init__(environment, options, resume_command)
        self.run_command = run_command

    def poll(self) -> bool:
        if not self.queue:
            return False
        folder = self.queue.popleft()
        status = SUPERSEDED if is_being_run(folder) else self._run(folder)
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        if status == SUPERSEDED:
            self.queue.append(folder)
        return bool(self.queue)

    def _run(self, folder: RunFolder) -> int:
        arguments = [f"folder={folder.path}", *environment_arguments(self.environment)]
        try:
            return self.run_command(arguments)
        except Exception as error:  # recorded in the run's folder; the others still get their turn
            print(f"{folder.name}: {error}", file=sys.stderr)
            return 1


@dataclass
class Worker:
    """The process of a run, and the slot that it takes."""

    folder: RunFolder
    process: subprocess.Popen[bytes]
    slot: int
    kills_before: int  # for memory, as the system counts them


class LocalPool(LocalLauncher):
    """At most `workers` processes at a time on this machine, one run each: one a GPU, or what the
    CPU cores allow where there is none, unless the options give a number.

    A run that another process is running (a second sweep, or what a killed sweep left behind) is
    not started twice: it waits until that process ends, then is looked at again. If two sweeps
    start a process for it at once, one of these ends with `SUPERSEDED`.
    """

    def __init__(
        self, environment: Environment, options: SweepOptions, resume_command: str = ""
    ) -> None:
        super().__init__(environment, options, resume_command)
        self.workers = options.workers or self._default_workers()
        self.running: list[Worker] = []

    def _default_workers(self) -> int:
        if self.gpus or self.environment.device.startswith("cuda"):
            return max(1, len(self.gpus))
        return max(1, cpu_cores() // self.environment.threads)

    def poll(self) -> bool:
        for worker in [w for w in self.running if w.process.poll() is not None]:
            self.running.remove(worker)
            killed = out_of_memory_kills() > worker.kills_before
            record_death(worker.folder, worker.process.returncode, out_of_memory=killed)
            if worker.process.returncode == SUPERSEDED:
                self.queue.append(worker.folder)
        for _ in range(len(self.queue)):
            if len(self.running) == self.workers:
                break
            folder = self.queue.popleft()
            if folder.is_done():
                continue
            if is_being_run(folder):
                self.queue.append(folder)
            else:
                self._start(folder)
        return bool(self.running or self.queue)

    def _start(self, folder: RunFolder) -> None:
        used_slots = {worker.slot for worker in self.running}
        slot = next(number for number in range(self.workers) if number not in used_slots)
        command = [sys.executable, "-m", "bench.run", f"folder={folder.path.resolve()}"]
        variables = child_environment()
        if self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        kills_before = out_of_memory_kills()
        with open_log(folder) as log:
            process = subprocess.Popen(
                [*command, *environment_arguments(self.environment)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which then calls stop()
            )
        self.running.append(Worker(folder, process, slot, kills_before))

    def stop(self) -> str:
        how = "stopped"
        try:  # from the first word on: whoever reads it may press the keys again at once
            with suppress(OSError):  # the output may be what failed
                print(
                    "waiting for the runs to write their checkpoints; Ctrl-C ends them at once",
                    flush=True,
                )
            for worker in self.running:
                worker.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + SECONDS_TO_STOP
            for worker in self.running:
                with suppress(subprocess.TimeoutExpired):
                    worker.process.wait(max(0.0, deadline - time.monotonic()))
        except KeyboardInterrupt:
            how = "killed, with the checkpoints that they had"
        for worker in self.running:
            worker.process.kill()
            worker.process.wait()
        self.running.clear()
        self.queue.clear()
        return f"{how}; the same command resumes the runs"
