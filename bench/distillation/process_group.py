"""The processes that share the replicas of a run, and how they keep together.

With `replicas=k` an outer step averages k meta-gradients, each of a network of its own. One process
computes them one after the other; a *group* of processes, started by torchrun or srun, shares them
out. Process 0, the leader, is the run: it alone writes, prints and evaluates (`execute`). The
others compute their replicas in step with it, and nothing else (`follower.py`).

Every gradient is gathered by every process, and each sums them in order of replica: so the number
of processes changes no bit on a CPU. (On unlike processors a distilled set may differ by rounding
from process to process. As all apply the same gradient, it stays at that.)

Before anything is exchanged, all say how they stand in a few bytes. So nobody waits for a process
that has failed, and GPUs never meet in a collective that one of them will not join. What is killed
without a word is noticed when its connections close.

torchrun ends the others when one process fails. srun does so only with `--kill-on-bad-exit`: give
it, for the case that a process dies before the group has met or that a whole node is lost.

No torch is imported before there is a group: commands that only print their help need none.
"""

import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from bench.system.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

TIME_TO_MEET = timedelta(minutes=10)  # nodes of a job may start minutes apart
PATIENCE = timedelta(days=7)  # the others wait while the leader evaluates

NOTE_BYTES = 512
WELL, STOP, OVER, FAILED = range(4)  # the first byte of a note; its message follows


class Shutdown(Exception):
    """The leader has ended the group; it says itself how the run ended."""


class ProcessGroupBroken(RuntimeError):
    """Another process of the run failed or was killed."""


class ProcessGroup(Protocol):
    """The processes of a run, seen from one of them. All of them call the same methods in the same
    order; each method but `share` and `device_name` waits for all.

    Raises (from each that waits):
        Shutdown: in the others, once the leader has left.
        TeamBroken: another process failed, or is gone.
    """

    def share(self, replicas: int) -> range:
        """The replicas that this process computes."""
        ...

    def gather(self, values: "Tensor") -> "Tensor":
        """[of this process, n] of every process -> [of all, n], in order of replica."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        ...

    def everyone(self, value: Any) -> list[Any]:
        """What each process says (plain data), in order of rank."""
        ...

    def broadcast(self, value: Any) -> Any:
        """What the leader says (plain data or tensors, which arrive on the CPU)."""
        ...

    def device_name(self, name: str) -> str:
        """`name`, or this process's own GPU where the name leaves open which."""
        ...


class Alone:
    """One process computes all replicas, one after the other."""

    def share(self, replicas: int) -> range:
        return range(replicas)

    def gather(self, values: "Tensor") -> "Tensor":
        return values

    def any(self, flag: bool) -> bool:
        return flag

    def everyone(self, value: Any) -> list[Any]:
        return [value]

    def broadcast(self, value: Any) -> Any:
        return value

    def device_name(self, name: str) -> str:
        return name


ALONE = Alone()


class TorchProcessGroup:
    """Several processes: tensors meet over NCCL on GPUs, all else over gloo.

    Args:
        rank, size: this process, and how many there are.
        local_rank: its number on its machine, which is that of its GPU.
        meeting_point: the init_method of torch.distributed.

    Raises:
        UserError: the processes do not find each other.
    """

    def __init__(self, rank: int, size: int, local_rank: int, meeting_point: str) -> None:
        import torch.distributed as dist

        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._over = self._broken = False
        self._gpus: Any = None
        try:
            dist.init_process_group(
                "gloo",
                init_method=meeting_point,
                rank=rank,
                world_size=size,
                timeout=TIME_TO_MEET,
            )
            self._all: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the {size} processes of the run do not find each other at {meeting_point}"
                f" ({str(error).splitlines()[0]}); WORLD_SIZE=1 in the environment lets this one"
                " run alone"
            ) from error

    def share(self, replicas: int) -> range:
        each = replicas // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def gather(self, values: "Tensor") -> "Tensor":
        import torch
        import torch.distributed as dist

        self._meet(WELL)
        if values.is_cuda and self._gpus is None:
            self._gpus = dist.new_group(backend="nccl", timeout=TIME_TO_MEET)
        parts = [torch.empty_like(values) for _ in range(self.size)]
        with self._noticing():
            dist.all_gather(parts, values, group=self._gpus if values.is_cuda else self._all)
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        return STOP in self._meet(STOP if flag else WELL)

    def everyone(self, value: Any) -> list[Any]:
        import torch.distributed as dist

        self._meet(WELL)
        values: list[Any] = [None] * self.size
        with self._noticing():
            dist.all_gather_object(values, value, group=self._all)
        return values

    def broadcast(self, value: Any) -> Any:
        import torch
        import torch.distributed as dist

        self._meet(WELL)
        content = io.BytesIO()
        if self.rank == 0:
            torch.save(value, content)
        parcel = [content.getvalue()]
        with self._noticing():
            dist.broadcast_object_list(parcel, src=0, group=self._all)
        # As a checkpoint is read: a tensor must not land on the GPU that it has on the leader.
        return torch.load(io.BytesIO(parcel[0]), map_location="cpu", weights_only=True)

    def device_name(self, name: str) -> str:
        import torch

        if name not in ("auto", "cuda") or not torch.cuda.is_available():
            if name.startswith("cuda:"):
                raise UserError(f"device={name} is one GPU for several processes; give device=auto")
            return name
        # Where SLURM shows each task its own GPU alone, that one is number 0.
        return f"cuda:{self.local_rank % torch.cuda.device_count()}"

    def leave(self, trouble: str) -> None:
        """End the group (the leader), or tell it why this process fails (the others)."""
        import torch.distributed as dist

        with suppress(Shutdown, ProcessGroupBroken):
            if self.rank == 0 and not self._over:
                self._meet(OVER)
            elif trouble and not self._over:
                self._meet(FAILED, trouble)
        if not self._broken:  # what is left of a broken group ends with the process
            dist.destroy_process_group()

    def _meet(self, word: int, message: str = "") -> list[int]:
        """Say how this process stands, and hear the words of all, in order of rank."""
        import torch
        import torch.distributed as dist

        text = f"process {self.rank} on {socket.gethostname()}: {message}".encode()
        note = torch.tensor([word, *text[: NOTE_BYTES - 1].ljust(NOTE_BYTES - 1)]).byte()
        notes = [torch.empty_like(note) for _ in range(self.size)]
        with self._noticing():
            dist.all_gather(notes, note, group=self._all)
        words = [int(each[0]) for each in notes]
        if FAILED in words:
            self._over = True
            failed = bytes(notes[words.index(FAILED)][1:].tolist())
            raise ProcessGroupBroken(failed.decode(errors="replace").strip())
        if words[0] == OVER:
            self._over = True
            raise Shutdown
        return words

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """torch's error for a closed connection, in our words."""
        try:
            yield
        except RuntimeError as error:
            self._over = self._broken = True
            raise ProcessGroupBroken(
                "another process of the run ended without a word"
                f" (noticed by process {self.rank}: {str(error).splitlines()[0]})"
            ) from error
