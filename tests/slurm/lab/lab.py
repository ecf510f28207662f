"""One SLURM on this host: start, stop, and the accidents that a test wants to see."""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

import psutil

from bench.config.command_line import typed
from bench.system.errors import UserError
from bench.system.files import read_json
from tests.slurm.lab.configuration import Shape, munged_arguments, write_configuration
from tests.slurm.lab.folder import LabFolder
from tests.slurm.lab.jobs import job_processes
from tests.slurm.lab.packages import path_of, require_packages
from tests.slurm.lab.processes import Daemons, LabFailed, kill
from tests.waiting import LIMIT_SECONDS, wait_until

UP = {"idle", "mixed", "allocated", "completing"}


class Lab:
    """A SLURM controller and its nodes, all on this host, in a folder and on ports of their own.

    Partitions: `normal` (the default), and `low`, whose jobs are preempted (signalled, then
    requeued) by those of `high`.

    Args:
        folder: a new one, or one where a lab is or was; its path must be short.
        shape: the fields of `Shape`, e.g. `nodes=2`.

    As a context manager it starts on entry and is gone on exit.
    """

    def __init__(self, folder: Path, **shape: int) -> None:
        self.folder = LabFolder(folder)
        self.shape = typed(Shape, shape)
        self.daemons = Daemons(self.folder.records)

    @classmethod
    def found(cls, folder: Path) -> Self | None:
        """The lab that runs, or was left half running, in a folder; None where none does."""
        shape = read_json(LabFolder(folder).shape) if LabFolder(folder).records.exists() else None
        return None if shape is None else cls(folder, **shape)

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's commands need in their environment to find this lab."""
        return {"SLURM_CONF": str(self.folder.slurm_conf)}

    @property
    def nodes(self) -> list[str]:
        """The nodes' names."""
        return self.shape.names

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- up and down -----------------------------------------------------------------------------

    def start(self) -> None:
        """Bring up what is not: all of a new lab, or the daemons and nodes that are down. What is
        interrupted or fails in a new lab leaves no process behind.

        Raises:
            UserError: SLURM is not installed, or a lab of another shape runs in this folder.
            LabFailed: it did not come up; the logs stay.
        """
        require_packages()
        with self.folder.lock():
            new = not any(self.daemons.pid(name) for name in self.daemons.names())
            if not new and (running := read_json(self.folder.shape)) != asdict(self.shape):
                raise UserError(f"a lab of another shape ({running}) runs there; stop it first")
            try:
                if new:
                    self._end()
                    self.folder.make_afresh(asdict(self.shape))
                    write_configuration(self.folder, self.shape)
                self._bring_up()
            except BaseException:
                if new:
                    self.daemons.close()
                raise

    def _bring_up(self) -> None:
        self._launch("munged", munged_arguments(self.folder))
        socket = self.folder.munge / "socket"
        self._await(socket.exists, "munged's socket", "munged")
        self.start_controller()
        for name in self.nodes:
            self.start_node(name)
        for name, state in self.node_states().items():
            if state.startswith(("down", "drain")):
                with suppress(LabFailed):  # it came back by itself meanwhile
                    self.resume(name)
        self.wait_until_up()

    def stop(self) -> None:
        """Kill every daemon and every job at once. The logs stay until the next start."""
        if self.folder.records.exists():
            with self.folder.lock():
                self._end()

    def _end(self) -> None:
        # The controller first: it must not restart elsewhere what is killed on a node.
        self.daemons.kill("slurmctld")
        nodes = self.folder.nodes()
        for name in nodes:
            self.daemons.kill(name)
        self._kill_jobs(*nodes)
        self.daemons.close()

    def wait_until_up(self, *names: str) -> None:
        """Wait until these nodes (all, if none is named) answer and take jobs."""
        wanted = names or tuple(self.nodes)

        def up() -> bool:
            states = self.node_states()
            return all(states.get(name) in UP for name in wanted)

        self._await(up, f"{', '.join(wanted)} to be idle", *wanted)

    # --- accidents -------------------------------------------------------------------------------

    def start_controller(self) -> None:
        """Start slurmctld where it does not run, and wait until it answers."""
        self._launch("slurmctld", [path_of("slurmctld"), "-D"])
        self._await(self._controller_answers, "slurmctld to answer", "slurmctld")

    def stop_controller(self) -> None:
        """Stop slurmctld as an administrator does: it saves its state. Jobs go on."""
        pid = self.daemons.pid("slurmctld")
        if pid is not None:
            psutil.Process(pid).terminate()
            ended = lambda: self.daemons.pid("slurmctld") is None  # noqa: E731
            wait_until(ended, f"slurmctld to end, see {self.folder.log}")

    def restart_controller(self) -> None:
        """Stop slurmctld and start it again."""
        self.stop_controller()
        self.start_controller()

    def start_node(self, name: str) -> None:
        """Start a node's slurmd where it does not run; does not wait (`wait_until_up` does)."""
        self._launch(self._known(name), [path_of("slurmd"), "-D", "-N", name])

    def kill_daemon(self, name: str) -> None:
        """SIGKILL a node's slurmd alone: to the controller the node is lost, yet its jobs go on."""
        self.daemons.kill(self._known(name))

    def kill_node(self, name: str) -> None:
        """SIGKILL all that runs on a node, slurmd, steps and tasks: the host has crashed."""
        self.kill_daemon(name)
        self._kill_jobs(name)

    def set_down(self, name: str) -> None:
        """Declare a node DOWN, as an operator does: its jobs are killed and requeued at once."""
        self.scontrol("update", f"NodeName={self._known(name)}", "State=DOWN", "Reason=lab")

    def resume(self, name: str) -> None:
        """Take a node back into service."""
        self.scontrol("update", f"NodeName={self._known(name)}", "State=RESUME")

    def clear(self) -> None:
        """Cancel every job and wait until none is left."""
        if jobs := self.squeue("-h", "-o", "%A").split():
            with suppress(LabFailed):  # none of them runs
                self.run("scancel", "--signal=KILL", "--full", *jobs)  # a run takes its time to end
            self.run("scancel", *jobs)
            empty = lambda: self.squeue("-h") == ""  # noqa: E731
            wait_until(empty, "the queue to empty")

    # --- looking ---------------------------------------------------------------------------------

    def run(self, program: str, *arguments: str) -> str:
        """What a SLURM command prints.

        Raises:
            LabFailed: it failed; the message is the command's.
        """
        try:
            done = subprocess.run(
                [path_of(program), *arguments],
                env=self._clean_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LIMIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LabFailed(f"{program} did not return") from error
        if done.returncode != 0:
            raise LabFailed(f"{program} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def scontrol(self, *arguments: str) -> str:
        """`scontrol ...`: what it prints."""
        return self.run("scontrol", *arguments)

    def squeue(self, *arguments: str) -> str:
        """`squeue ...`: what it prints."""
        return self.run("squeue", *arguments)

    def node_states(self) -> dict[str, str]:
        """The state of each node, as sinfo says it; with a `*` at its end it does not answer."""
        lines = self.run("sinfo", "-h", "-N", "-p", "normal", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)

    def processes(self, *names: str) -> list[psutil.Process]:
        """The steps of these nodes and all that they started, steps first, without any slurmd."""
        return job_processes(self.folder, names)

    def tails(self, lines: int = 30) -> str:
        """The nodes, the queue and the ends of all logs: what a failed test should show."""
        told = []
        for program, *arguments in (["sinfo", "-R"], ["sinfo", "-N", "-l"], ["squeue", "-l"]):
            try:
                text = self.run(program, *arguments)
            except LabFailed as error:
                text = f"{error}\n"
            told.append(f"$ {program} {' '.join(arguments)}\n{text}")
        return "\n".join([*told, self.folder.tails(lines)])

    # --- its own hands ---------------------------------------------------------------------------

    def _launch(self, name: str, arguments: list[str]) -> None:
        if self.daemons.pid(name) is None:
            # What a daemon says before it reads where its log is.
            early = self.folder.log / f"{name}.early"
            self.daemons.launch(name, arguments, self._clean_environment(), early)

    def _kill_jobs(self, *names: str) -> None:
        def gone() -> bool:
            processes = self.processes(*names)
            kill(processes)
            return not processes

        # More than once, for what was on its way to being started.
        wait_until(gone, f"the jobs on {', '.join(names)} to end")

    def _await(self, ready: Callable[[], bool], what: str, *daemons: str) -> None:
        def ready_or_dead() -> bool:
            for name in daemons:
                if self.daemons.pid(name) is None:
                    raise LabFailed(f"{name} ended while starting: {self.folder.last_word(name)}")
            return ready()

        wait_until(ready_or_dead, f"{what}, see {self.folder.log}")

    def _controller_answers(self) -> bool:
        try:
            return "UP" in self.scontrol("ping")
        except LabFailed:
            return False

    def _known(self, name: str) -> str:
        if name not in self.nodes:
            raise UserError(f"the lab has no node {name!r}, only {', '.join(self.nodes)}")
        return name

    def _clean_environment(self) -> dict[str, str]:
        """Ours without the SLURM that we may ourselves be a job of."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))}
        return {**kept, **self.environment}
