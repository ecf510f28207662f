"""The process group of a run: the processes that share its replicas, and how they stay in step.

With `replicas=k` an outer step averages k meta-gradients, each of a network of its own
(`replicas.py`). One process computes them one after the other; a process group, started by torchrun
or srun, divides them. The leader (rank 0) is the run: it alone writes, prints and evaluates
(`bench.runs.execute`). The followers compute their replicas (`bench.runs.follower`).

Before every collective operation each process sends its status, a few bytes. So no process waits
for one that has failed, and GPUs never enter a collective that one of them does not join. A process
that is killed sends no status; the others notice that its connections close.

If one process fails, torchrun ends the others. srun does so only with `--kill-on-bad-exit`: use it,
in case a process dies before the group has formed, or a whole node is lost.

torch is imported only once there is a group: commands that print their help need none.
"""

import io
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from bench.system import garbage
from bench.system.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

RENDEZVOUS_TIMEOUT = timedelta(minutes=10)  # nodes of a job may start minutes apart
COLLECTIVE_TIMEOUT = timedelta(days=7)  # followers wait while the leader evaluates

STATUS_BYTES = 512
READY, STOP, SHUTDOWN, FAILED = range(4)  # the first byte of a status; a message follows


class Shutdown(Exception):
    """The leader has shut the group down; it reports itself how the run ended."""


class ProcessGroupBroken(RuntimeError):
    """Another process of the run failed or was killed."""


class ProcessGroup(Protocol):
    """The processes of a run, seen from one of them. All call the same methods in the same order;
    each method but `share` and `device_name` waits for all processes.

    Attributes:
        is_leader: whether this process has rank 0.

    Raises (from each method that waits):
        Shutdown: in the followers, once the leader has shut the group down.
        ProcessGroupBroken: another process failed or was killed.
    """

    @property
    def is_leader(self) -> bool: ...

    def share(self, replicas: int) -> range:
        """The replicas that this process computes."""
        ...

    def gather(self, values: "Tensor") -> "Tensor":
        """[replicas of this process, n] of every process -> [all replicas, n], by replica."""
        ...

    def gather_objects(self, value: Any) -> list[Any]:
        """The value (plain data) of every process, by rank."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in some process."""
        ...

    def broadcast(self, make: Callable[[], Any]) -> Any:
        """What `make` returns in the leader, which alone calls it: plain data or tensors, which
        arrive on the CPU."""
        ...

    def device_name(self, name: str) -> str:
        """`name`, or this process's own GPU if `name` does not say which GPU."""
        ...


class SingleProcess:
    """One process, which computes all replicas one after the other."""

    is_leader = True

    def share(self, replicas: int) -> range:
        return range(replicas)

    def gather(self, values: "Tensor") -> "Tensor":
        return values

    def gather_objects(self, value: Any) -> list[Any]:
        return [value]

    def any(self, flag: bool) -> bool:
        return flag

    def broadcast(self, make: Callable[[], Any]) -> Any:
        return make()

    def device_name(self, name: str) -> str:
        return name


SINGLE_PROCESS = SingleProcess()


class TorchProcessGroup:
    """Several processes: tensors on GPUs are gathered over NCCL, all else over gloo.

    Args:
        global_rank, world_size: of this process, and how many processes there are.
        local_rank: the rank on its machine, and so the number of its GPU.
        init_method: of torch.distributed: where the processes find each other.

    Raises:
        UserError: the processes do not find each other.
    """

    def __init__(
        self, global_rank: int, world_size: int, local_rank: int, init_method: str
    ) -> None:
        with garbage.imports():
            import torch.distributed as dist

        self.rank, self.world_size, self.local_rank = global_rank, world_size, local_rank
        self._ended = self._broken = False
        self._gpus: Any = None
        try:
            dist.init_process_group(
                "gloo",
                init_method=init_method,
                rank=global_rank,
                world_size=world_size,
                timeout=RENDEZVOUS_TIMEOUT,
            )
            self._all: Any = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the {world_size} processes of the run do not find each other at {init_method}"
                f" ({str(error).splitlines()[0]}); to run this process alone, set WORLD_SIZE=1 in"
                " the environment"
            ) from error

    @property
    def is_leader(self) -> bool:
        return self.rank == 0

    def share(self, replicas: int) -> range:
        each = replicas // self.world_size
        return range(self.rank * each, (self.rank + 1) * each)

    def gather(self, values: "Tensor") -> "Tensor":
        import torch
        import torch.distributed as dist

        self._exchange_status(READY)
        if values.is_cuda and self._gpus is None:
            self._gpus = dist.new_group(backend="nccl", timeout=RENDEZVOUS_TIMEOUT)
        parts = [torch.empty_like(values) for _ in range(self.world_size)]
        with self._noticing_closed_connections():
            dist.all_gather(parts, values, group=self._gpus if values.is_cuda else self._all)
        return torch.cat(parts)

    def gather_objects(self, value: Any) -> list[Any]:
        import torch.distributed as dist

        self._exchange_status(READY)
        values: list[Any] = [None] * self.world_size
        with self._noticing_closed_connections():
            dist.all_gather_object(values, value, group=self._all)
        return values

    def any(self, flag: bool) -> bool:
        return STOP in self._exchange_status(STOP if flag else READY)

    def broadcast(self, make: Callable[[], Any]) -> Any:
        import torch
        import torch.distributed as dist

        content = io.BytesIO()
        if self.is_leader:
            torch.save(make(), content)
        self._exchange_status(READY)
        messages = [content.getvalue()]
        with self._noticing_closed_connections():
            dist.broadcast_object_list(messages, src=0, group=self._all)
        # Read like a checkpoint: a tensor must not land on the GPU that it has on the leader.
        return torch.load(io.BytesIO(messages[0]), map_location="cpu", weights_only=True)

    def device_name(self, name: str) -> str:
        import torch

        if name not in ("auto", "cuda") or not torch.cuda.is_available():
            if name.startswith("cuda:"):
                raise UserError(f"device={name} is one GPU for several processes; give device=auto")
            return name
        # If SLURM shows each task only its own GPU, that GPU has number 0.
        return f"cuda:{self.local_rank % torch.cuda.device_count()}"

    def leave(self, error: str) -> None:
        """Leave the group: the leader shuts it down; a follower that failed sends its error."""
        import torch.distributed as dist

        with suppress(Shutdown, ProcessGroupBroken):
            if self.is_leader and not self._ended:
                self._exchange_status(SHUTDOWN)
            elif error and not self._ended:
                self._exchange_status(FAILED, error)
        if not self._broken:  # the rest of a broken group ends with the process
            dist.destroy_process_group()

    def _exchange_status(self, status: int, message: str = "") -> list[int]:
        """Send the status of this process, and return those of all, by rank."""
        import torch
        import torch.distributed as dist

        text = f"process {self.rank} on {socket.gethostname()}: {message}".encode()
        padded = text[: STATUS_BYTES - 1].ljust(STATUS_BYTES - 1)
        sent = torch.tensor([status, *padded]).byte()
        received = [torch.empty_like(sent) for _ in range(self.world_size)]
        with self._noticing_closed_connections():
            dist.all_gather(received, sent, group=self._all)
        statuses = [int(each[0]) for each in received]
        if FAILED in statuses:
            self._ended = True
            failure = bytes(received[statuses.index(FAILED)][1:].tolist())
            raise ProcessGroupBroken(failure.decode(errors="replace").strip())
        if statuses[0] == SHUTDOWN:
            self._ended = True
            raise Shutdown
        return statuses

    @contextmanager
    def _noticing_closed_connections(self) -> Iterator[None]:
        """Raise `ProcessGroupBroken` for torch's error about a closed connection."""
        try:
            yield
        except RuntimeError as error:
            self._ended = self._broken = True
            raise ProcessGroupBroken(
                "another process of the run ended without an error message"
                f" (noticed by process {self.rank}: {str(error).splitlines()[0]})"
            ) from error
