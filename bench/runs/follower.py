"""What every process of a run but its leader does, and what both kinds need to be in step.

The leader alone reads and writes the run's folder and tells the others what stands there: on a slow
network file system a file may not be there yet, or be an old one, for another machine.
"""

import os
import signal
import socket
from contextlib import suppress
from types import FrameType
from typing import Any, Self

import torch

from bench.config.run_config import Environment, RunConfig
from bench.distillation.outer_loop import Distillation, Diverged
from bench.distillation.process_group import ProcessGroup, Shutdown
from bench.system.errors import UserError
from bench.training.setup import activation_budget, choose_device, load_data, settle_process


def follow(config: RunConfig, environment: Environment, group: ProcessGroup) -> None:
    """Compute this process's replicas of a run that another process leads, until it ends.

    Raises:
        UserError: the data here are not those of the leader, or the device cannot be used.
        TeamBroken: another process of the run failed or was killed.
    """
    with suppress(Shutdown), StopRequest() as stop:
        settle_process()
        device = own_device(environment, group)
        hosts(group, device)
        torch.set_num_threads(group.broadcast(None))
        fingerprint = group.broadcast(None)
        target_set = load_data(config, environment, device)
        if target_set.fingerprint != fingerprint:
            raise UserError(
                f"the data on {socket.gethostname()} are not those of the first process"
                f" ({target_set.fingerprint}, there {fingerprint})"
            )
        compiled = group.broadcast(None)
        budget = activation_budget(environment, device)
        distillation = Distillation(config, target_set, budget, group, compiled)
        distillation.load_state(group.broadcast(None))
        with suppress(Diverged):  # the leader meets it at the same step, and records it
            while distillation.step < config.outer_steps:
                distillation.outer_step()
                if group.any(stop.asked):
                    break
        group.broadcast(None)  # the leader has the rest to do; then it dismisses


def own_device(environment: Environment, group: ProcessGroup) -> torch.device:
    """The device of this process, made torch's current one so that nothing goes to another."""
    device = choose_device(group.device_name(environment.device))
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def hosts(group: ProcessGroup, device: torch.device) -> list[dict[str, Any]]:
    """Where each process computes, in order of rank.

    Raises:
        UserError: some on a GPU, some on a CPU.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    here = {"host": socket.gethostname(), "device": str(device), "cores": cores}
    members = group.everyone(here)
    devices = [member["device"] for member in members]
    if len({name.partition(":")[0] for name in devices}) > 1:
        raise UserError(f"the processes compute on unlike devices: {', '.join(devices)}")
    return members


class StopRequest:
    """Within a `with` block SIGINT and SIGTERM ask the run to stop at the end of the outer step; a
    second one stops it at once."""

    def __init__(self) -> None:
        self.asked = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *error: object) -> None:
        for number, previous in self._before.items():
            signal.signal(number, previous)
