"""Where memory runs out, and how it is known."""

import errno
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.config.grid import single_run
from bench.config.run_config import Environment
from bench.runs.failure import describe_error
from bench.runs.log_file import log_path
from bench.runs.run_folder import Store
from bench.sweeps import local_launcher
from bench.sweeps.child_process import record_death
from bench.sweeps.launcher import PlannedRun
from bench.sweeps.local_launcher import LocalPool
from bench.sweeps.options import SweepOptions
from bench.system.errors import UserError
from bench.system.peak_memory import ran_out
from bench.system.process_call import OutOfMemory, described

SAID = [
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"
    " tried to allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)",
    "[enforce fail at alloc_cpu.cpp:80] . DefaultCPUAllocator: not enough memory: you tried to"
    " allocate 68719476736 bytes.",
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB",
    "CUDA error: out of memory",
    "cudaErrorMemoryAllocation: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "[Errno 12] Cannot allocate memory",
    "unable to mmap 123 bytes from file <x>: Cannot allocate memory (12)",
    "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.28 TiB for an array",
    "MemoryError",
    "could not allocate memory",
    "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0",
    "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.batch",
    "error: Job 12 exceeded memory limit (2048 > 1024), being killed",
]
NOT_SAID = [
    "ImportError: libgomp.so.1: cannot allocate memory in static TLS block",
    "three is too much",
    "activation_memory=lots is neither auto nor a number of GiB",
    "shape '[3]' is invalid for input of size 4",
    "cannot allocate a tensor of another type",
    "No space left on device",
]


@pytest.mark.parametrize("said", SAID)
def test_every_way_to_say_that_memory_ran_out_is_known_everywhere(said: str) -> None:
    error = RuntimeError(said)
    assert ran_out(said)
    assert ran_out(error)
    assert describe_error(error)["kind"] == "out of memory"
    assert isinstance(described(error), OutOfMemory)


@pytest.mark.parametrize("said", NOT_SAID)
def test_other_failures_are_not_blamed_on_memory(said: str) -> None:
    assert not ran_out(said)
    assert describe_error(RuntimeError(said))["kind"] == "error"


def test_what_python_torch_and_numpy_really_raise_is_known() -> None:
    for work in (
        lambda: torch.empty(2**50),
        lambda: np.empty(2**50),
        lambda: bytearray(2**60),
    ):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            work()
        assert ran_out(caught.value)
    assert ran_out(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory."))
    caused = UserError("the data cannot be read")
    caused.__cause__ = MemoryError()
    assert ran_out(caused)
    assert not ran_out(UserError("the data cannot be read"))


@pytest.mark.parametrize(
    ("status", "printed", "kills", "kind"),
    [
        (-signal.SIGABRT, "terminate called: std::bad_alloc\nAborted", 0, "out of memory"),
        (1, "MemoryError\nsome more", 0, "out of memory"),
        (-signal.SIGKILL, "", 1, "out of memory"),
        (-signal.SIGKILL, "", 0, "killed"),
        (-signal.SIGSEGV, "", 1, "killed"),
        (1, "ImportError: no such module", 0, "error"),
    ],
)
def test_a_process_that_could_not_say_it_itself_is_judged_by_its_log_and_the_system(
    tmp_path: Path, status: int, printed: str, kills: int, kind: str
) -> None:
    config = single_run("quick", {})
    folder = Store(tmp_path).run(config)
    folder.create(config)
    log_path(folder).write_text(f"--- 2026\nMemoryError of an earlier start\n--- 2027\n{printed}\n")
    record_death(folder, status, out_of_memory=kills > 0)
    assert (folder.read("error") or {})["kind"] == kind


def test_a_signal_without_a_name_is_given_by_its_number(tmp_path: Path) -> None:
    config = single_run("quick", {})
    folder = Store(tmp_path).run(config)
    folder.create(config)
    record_death(folder, -40)
    assert (folder.read("error") or {})["message"] == "its process was ended by signal 40"


def test_the_pool_asks_the_system_whether_it_has_killed_for_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = single_run("quick", {})
    folder = Store(tmp_path).run(config)
    folder.create(config)
    counts = iter([3, 4])
    monkeypatch.setattr(local_launcher, "out_of_memory_kills", lambda: next(counts))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: dead)

    class Dead:
        returncode = -signal.SIGKILL

        def poll(self) -> int:
            return self.returncode

    dead = Dead()
    pool = LocalPool(Environment(device="cpu"), SweepOptions(workers=1))
    pool.start([PlannedRun(config, folder)])
    while pool.poll():
        pass
    assert (folder.read("error") or {})["kind"] == "out of memory"


OOM = """
from methods import StatelessMethod, Window

class Hungry(StatelessMethod):
    def next_window(self, step, rng):
        if step == 3:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 TB")
        return Window(0, self.window_size)
"""


def test_a_run_that_found_too_little_memory_is_sent_again_by_retry_oom(
    command: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OOM)
    (tmp_path / "mine.yaml").write_text("runs: [{method: 'own:Hungry'}]\n")
    grid = ["grid=mine.yaml", "launcher=inline", "check_memory=false", *tiny]
    failed = command("bench.run", "method=own:Hungry", *tiny)
    assert failed.returncode == 1
    assert "out of memory: DefaultCPUAllocator" in failed.stderr
    (tmp_path / "own.py").write_text(OOM.replace("raise RuntimeError", "print"))
    again = command("bench.sweep", *grid, "retry=oom")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 run: 1 failed" in again.stdout
    assert "1 run: 1 done" in again.stdout
