"""What every process of a run does in step with the others.

The leader (`execute.py`) and the followers (`follower.py`) call the same functions, and these alone
call the collective operations of a process group before the final evaluation. So a line that is
added here cannot make one process wait for another that does not have it.

Only the leader reads and writes the run's folder; it sends the others what they need. On a slow
network file system another machine may not see a file yet, or see an old version of it.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch

from bench.config.run_config import Environment, RunConfig
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation, OuterStep
from bench.distillation.process_group import ProcessGroup
from bench.runs.run_folder import RunFolder
from bench.system.errors import UserError
from bench.system.machine import cpu_cores, default_threads
from bench.system.stop_signals import leave_closed_terminal, stop_signals
from bench.training.setup import (
    activation_budget,
    check_device,
    choose_device,
    compiles,
    load_data,
    settle_process,
)


@dataclass(frozen=True)
class Setup:
    """A process of a run, ready for its next outer step.

    Attributes:
        device: of this process.
        hosts: where each process runs: "host", "device" and "cores", by rank.
        compiled: whether the exact engine compiles its steps, in all processes.
    """

    device: torch.device
    hosts: list[dict[str, Any]]
    target_set: TargetSet
    compiled: bool
    distillation: Distillation


def set_up(
    folder: RunFolder,
    config: RunConfig,
    environment: Environment,
    group: ProcessGroup,
    resume: Callable[[Distillation], dict[str, Any]] = Distillation.state,
) -> Setup:
    """Prepare this process for the outer steps.

    Args:
        resume: restores a distillation from the run's checkpoint, if there is one, and returns its
            state. Only the leader calls it.

    Raises:
        UserError: the device or the data cannot be used, or differ from those of other processes.
        Shutdown, ProcessGroupBroken: another process ended the run (`ProcessGroup`).
    """
    settle_process()
    device = own_device(environment, group)
    if group.is_leader:  # one error message is enough
        check_device(config, device)
    hosts = gather_hosts(group, device)
    # A resumed run keeps its number of threads, because sums in another order round differently,
    # and stays compiled or not.
    manifest = group.broadcast(lambda: folder.read("manifest") or {})
    torch.set_num_threads(
        group.broadcast(lambda: manifest.get("threads") or environment.threads or threads(hosts))
    )
    load = cache(lambda: load_data(config, environment, device))
    fingerprint = group.broadcast(lambda: load().fingerprint)  # the leader loads first and caches
    target_set = load()
    if target_set.fingerprint != fingerprint:
        raise UserError(
            f"the data on {socket.gethostname()} differ from those of the leader"
            f" (fingerprint {target_set.fingerprint}, leader {fingerprint})"
        )
    compiled = group.broadcast(
        lambda: (
            manifest.get("compiled", False) if manifest else compiles(config, environment, device)
        )
    )
    budget = activation_budget(environment, device)
    cache_root = Path(environment.cache_root)
    distillation = Distillation(config, target_set, budget, group, compiled, cache_root)
    state = group.broadcast(lambda: resume(distillation))
    if not group.is_leader:
        distillation.load_state(state)
    return Setup(device, hosts, target_set, compiled, distillation)


def outer_steps(
    distillation: Distillation, group: ProcessGroup, stop_requested: Callable[[], bool]
) -> Iterator[tuple[OuterStep, bool]]:
    """Make the remaining outer steps, until one process is requested to stop.

    Yields:
        The record of a step, and whether it is the last one because of such a request.

    Raises:
        Diverged: the meta-gradients stayed not finite; in all processes at the same step.
        Shutdown, ProcessGroupBroken: another process ended the run (`ProcessGroup`).
    """
    stopping = False
    while distillation.step < distillation.config.outer_steps and not stopping:
        record = distillation.outer_step()
        stopping = group.any(stop_requested())
        yield record, stopping


def own_device(environment: Environment, group: ProcessGroup) -> torch.device:
    """The device of this process, made torch's current one so that nothing goes to another."""
    device = choose_device(group.device_name(environment.device))
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def gather_hosts(group: ProcessGroup, device: torch.device) -> list[dict[str, Any]]:
    """Where each process runs: "host", "device" and "cores", by rank.

    Raises:
        UserError: some processes have a GPU and some have none.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    hosts = group.gather_objects(
        {"host": socket.gethostname(), "device": str(device), "cores": cores}
    )
    devices = [host["device"] for host in hosts]
    if len({name.partition(":")[0] for name in devices}) > 1:
        raise UserError(f"the processes have different devices: {', '.join(devices)}")
    return hosts


def threads(hosts: list[dict[str, Any]]) -> int:
    """The default number of threads of each process: all take the same number, and processes on the
    leader's cores divide these."""
    cores = [(host["host"], host["cores"]) for host in hosts]
    return min(max(1, cpu_cores() // cores.count(cores[0])), default_threads())


class StopRequest:
    """Within a `with` block SIGINT, SIGTERM and SIGHUP request a run to stop after the outer step;
    a second signal stops it at once, unless it is a SIGHUP: a closed terminal sends several."""

    def __init__(self) -> None:
        self.requested = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_closed_terminal()
        elif self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in stop_signals()}
        return self

    def __exit__(self, *error: object) -> None:
        for number, previous in self._before.items():
            signal.signal(number, previous)
