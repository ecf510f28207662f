"""The rank of this process in its run, from the environment that torchrun or srun set."""

import random
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass

from bench.config.values import shown
from bench.distillation.process_group import SINGLE_PROCESS, ProcessGroup, TorchProcessGroup
from bench.system.errors import UserError


@dataclass(frozen=True)
class Rank:
    """The rank of this process in its process group, as torch.distributed takes it.

    Attributes:
        global_rank, world_size: of this process, and how many processes there are.
        local_rank: the rank on its machine, and so the number of its GPU.
        init_method: where the processes find each other.
    """

    global_rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    init_method: str = ""

    @property
    def is_leader(self) -> bool:
        return self.global_rank == 0

    @contextmanager
    def process_group(self, run: str) -> Iterator[ProcessGroup]:
        """Join the process group, and leave it when the `with` block ends. If the block raises, the
        other processes get the error.

        Args:
            run: the identity of the run, which must be the same in every process.

        Raises:
            UserError: the processes do not find each other, or were given different runs.
        """
        if self.world_size == 1:
            yield SINGLE_PROCESS
            return
        group = TorchProcessGroup(*astuple(self))
        try:
            if len(set(group.gather_objects(run))) > 1:
                raise UserError(
                    f"the {self.world_size} processes were given different runs; all need the same"
                    " settings (to run each task of a SLURM step alone, set WORLD_SIZE=1 in the"
                    " environment)"
                )
            yield group
        except Exception as error:
            group.leave(f"{type(error).__name__}: {error}")
            raise
        group.leave("")


def find_rank(environment: Mapping[str, str], replicas: int) -> Rank:
    """The rank of this process, from the variables that torchrun or else srun has set.

    A SLURM step with several tasks is a process group only if there are replicas to share. With one
    replica its tasks are runs of their own; if they are the same run, its lock lets only one start.
    Only variables of a step count, which srun sets: a batch script has SLURM_NTASKS too, but is a
    single process.

    Raises:
        UserError: the number of processes does not divide `replicas`, or a variable is missing or
            no number.
    """
    rank, world_size = Rank(), _number(environment, "WORLD_SIZE", "0")
    if world_size > 1:
        rank = _rank_from_torchrun(environment, world_size)
    elif world_size < 1 < replicas and _number(environment, "SLURM_STEP_NUM_TASKS", "0") > 1:
        rank = _rank_from_slurm(environment)
    if replicas % rank.world_size:
        raise UserError(
            f"replicas={replicas} cannot be shared by {rank.world_size} processes: their number"
            " must divide replicas"
        )
    return rank


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    """A variable that is a whole number.

    Raises:
        UserError: it is not.
    """
    text = environment.get(name, default)
    try:
        return int(text)
    except ValueError:
        raise UserError(
            f"{name}={shown(text)} in the environment is not a whole number; torchrun or srun sets"
            " it, and WORLD_SIZE=1 runs a process alone"
        ) from None


def _rank_from_torchrun(environment: Mapping[str, str], world_size: int) -> Rank:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if name not in environment:
            raise UserError(
                f"WORLD_SIZE={world_size} is set but {name} is not; torchrun sets them all"
            )
    rank = _number(environment, "RANK")
    return Rank(rank, world_size, _number(environment, "LOCAL_RANK", str(rank)), "env://")


def _rank_from_slurm(environment: Mapping[str, str]) -> Rank:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    address = environment.get("MASTER_ADDR") or _address(_first_host(nodes))
    # The same port in each process, and another one for a step that runs beside this one.
    step = f"{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID')}"
    port = environment.get("MASTER_PORT") or random.Random(step).randint(20000, 60000)
    return Rank(
        _number(environment, "SLURM_PROCID"),
        _number(environment, "SLURM_STEP_NUM_TASKS"),
        _number(environment, "SLURM_LOCALID"),
        f"tcp://{address}:{port}",
    )


def _address(host: str) -> str:
    """The address of a SLURM host: its name, or, if that does not resolve, SLURM's own address."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        words = _scontrol("show", "node", host, "--oneliner")
        return next((w[9:] for w in words if w.startswith("NodeAddr=")), host)
    return host


def _first_host(nodes: str) -> str:
    """The first host of SLURM's list of nodes, such as `gpu[03-05,9]`."""
    if "[" not in nodes and nodes:
        return nodes.split(",")[0]
    hosts = _scontrol("show", "hostnames", nodes)
    if not hosts:
        raise UserError(f"scontrol does not list the hosts of {nodes!r}; set MASTER_ADDR to one")
    return hosts[0]


def _scontrol(*arguments: str) -> list[str]:
    """The words that scontrol prints; none if it fails."""
    try:
        process = subprocess.run(
            ["scontrol", *arguments], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return process.stdout.split()
