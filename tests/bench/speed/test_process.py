"""Calls in a fresh process: memory, failures, messages."""

import os
import signal
import time

import pytest
import torch

from bench.speed import process
from bench.speed.process import Failed, OutOfMemory, call
from bench.system.machine import free_memory


def test_a_call_that_takes_too_much_memory_is_ended() -> None:
    free = free_memory()
    with pytest.raises(OutOfMemory):
        # Whatever is free is less than all there is.
        call(time.sleep, 60, reserve=2.0)
    assert free_memory() > free / 2


def test_a_process_killed_by_the_system_did_not_fit() -> None:
    with pytest.raises(OutOfMemory):
        call(signal.raise_signal, signal.SIGKILL)


def test_memory_that_is_refused_did_not_fit() -> None:
    with pytest.raises(OutOfMemory):
        call(bytearray, 1 << 60)
    with pytest.raises(OutOfMemory):
        call(torch.zeros, 1 << 55)


def test_a_failure_ends_the_call_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failed, match="invalid literal"):
        call(int, "seven")
    assert "Traceback" in capfd.readouterr().err
    with pytest.raises(Failed, match="exit status 3"):
        call(os._exit, 3)
    assert call(int, "7") == 7


def test_a_long_measurement_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BEAT_SECONDS", 0.01)
    reported: list[float] = []
    call(time.sleep, 1, waiting=reported.append)
    assert len(reported) >= 2
    assert reported == pytest.approx([0.01 * (k + 1) for k in range(len(reported))])
