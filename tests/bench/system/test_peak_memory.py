"""The peak memory of a piece of work, where the kernel keeps the record and where it does not."""

import mmap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.system import peak_memory as memory
from bench.system.peak_memory import PeakMemory, is_measurable

CPU = torch.device("cpu")
MIB = 1 << 20


def taken(hold: Callable[[], object] = lambda: None) -> PeakMemory:
    """The memory of a block that takes 64 MiB for as long as `hold` lasts."""
    with PeakMemory(CPU) as measured:
        block = mmap.mmap(-1, 64 * MIB)  # not from what this process may keep of freed memory
        for page in range(0, 64 * MIB, mmap.PAGESIZE):
            block[page] = 1
        hold()
        block.close()
    return measured


def near_a_block(measured: PeakMemory) -> bool:
    return 60 * MIB < measured.peak_bytes < 80 * MIB < measured.footprint_bytes


@pytest.mark.skipif(not is_measurable(CPU), reason="this system keeps no record")
def test_the_kernel_s_record_sees_what_is_gone_again() -> None:
    assert near_a_block(taken())


@pytest.mark.parametrize("missing", ["CLEAR_REFS", "STATUS"])
def test_without_a_record_a_thread_looks(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, missing, tmp_path / "none" / "there")
    looks = []
    original = memory._Sampler.look

    def look(sampler: memory._Sampler) -> None:
        original(sampler)
        looks.append(None)

    monkeypatch.setattr(memory._Sampler, "look", look)

    def hold() -> None:
        seen = len(looks)
        while len(looks) < seen + 2:  # the thread is at work: the test's own limit ends it if not
            time.sleep(0.001)

    assert near_a_block(taken(hold))


def test_without_any_record_the_most_that_ever_was_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> None:
        raise memory.psutil.NoSuchProcess(1)

    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "none")
    monkeypatch.setattr(memory.psutil, "Process", unknown)
    measured = taken()
    assert 0 < measured.footprint_bytes <= memory.peak_resident_bytes()
    assert measured.peak_bytes >= 0
