"""Which of the processes of a run this one is, from the environment that torchrun or srun set."""

import random
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench.distillation.process_group import ALONE, ProcessGroup, TorchProcessGroup
from bench.system.errors import UserError


@dataclass(frozen=True)
class Seat:
    """The place of this process in its group.

    Attributes:
        rank, size: this process, and how many there are.
        local_rank: its number on its machine, which is that of its GPU.
        meeting_point: where the processes find each other: an init_method of torch.distributed.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    meeting_point: str = ""

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @contextmanager
    def group(self, run: str) -> Iterator[ProcessGroup]:
        """The group, met, until the `with` block ends; the others are told how it ended.

        Args:
            run: the identity of the run, which must be the same everywhere.

        Raises:
            UserError: the processes do not find each other, or were given different runs.
        """
        if self.size == 1:
            yield ALONE
            return
        group = TorchProcessGroup(self.rank, self.size, self.local_rank, self.meeting_point)
        try:
            if len(set(group.everyone(run))) > 1:
                raise UserError(
                    f"the {self.size} processes were given different runs; all need the same"
                    " settings (WORLD_SIZE=1 in the environment lets each task of a SLURM step run"
                    " alone)"
                )
            yield group
        except Exception as error:
            group.leave(f"{type(error).__name__}: {error}")
            raise
        group.leave("")


def find_seat(environment: Mapping[str, str], replicas: int) -> Seat:
    """The place of this process, from what torchrun or else srun has set.

    A SLURM step with several tasks makes a group only where there are replicas to share: with one
    replica its tasks are runs of their own, of which the run's lock lets one through if they are
    the same. The variables looked at are those of a step, which srun sets: a batch script has
    SLURM_NTASKS too, but is a single process.

    Raises:
        UserError: the number of processes does not divide `replicas`, or variables are missing.
    """
    seat = Seat()
    if int(environment.get("WORLD_SIZE", "0")) >= 1:
        seat = _seat_from_torchrun(environment)
    elif replicas > 1 and int(environment.get("SLURM_STEP_NUM_TASKS", "0")) > 1:
        seat = _seat_from_slurm(environment)
    if replicas % seat.size:
        raise UserError(
            f"replicas={replicas} cannot be shared by {seat.size} processes: their number must"
            " divide replicas"
        )
    return seat


def _seat_from_torchrun(environment: Mapping[str, str]) -> Seat:
    size = int(environment["WORLD_SIZE"])
    if size == 1:
        return Seat()
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if name not in environment:
            raise UserError(f"WORLD_SIZE={size} is set but {name} is not; torchrun sets them all")
    rank = int(environment["RANK"])
    return Seat(rank, size, int(environment.get("LOCAL_RANK", rank)), "env://")


def _seat_from_slurm(environment: Mapping[str, str]) -> Seat:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    address = environment.get("MASTER_ADDR") or _address(_first_host(nodes))
    # The same port in each process, and another one for a step that runs beside this one.
    step = f"{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID')}"
    port = environment.get("MASTER_PORT") or random.Random(step).randint(20000, 60000)
    return Seat(
        int(environment["SLURM_PROCID"]),
        int(environment["SLURM_STEP_NUM_TASKS"]),
        int(environment["SLURM_LOCALID"]),
        f"tcp://{address}:{port}",
    )


def _address(host: str) -> str:
    """Where a host of SLURM's can be reached: by its name, as nearly everywhere, else where SLURM
    itself reaches it."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        shown = _scontrol("show", "node", host, "--oneliner")
        return next((w[9:] for w in shown if w.startswith("NodeAddr=")), host)
    return host


def _first_host(nodes: str) -> str:
    """The first of SLURM's list of nodes, e.g. `gpu[03-05,9]`."""
    if "[" not in nodes and nodes:
        return nodes.split(",")[0]
    listed = _scontrol("show", "hostnames", nodes)
    if not listed:
        raise UserError(f"scontrol does not tell the hosts of {nodes!r}; set MASTER_ADDR to one")
    return listed[0]


def _scontrol(*arguments: str) -> list[str]:
    """The words that scontrol prints; none where it fails."""
    try:
        done = subprocess.run(
            ["scontrol", *arguments], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()
