"""A function in a process of its own: its reports, its end, its memory and its failures."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Literal

import psutil
import pytest
import torch

from bench.system import process_call
from bench.system.errors import Unwritable, UserError
from bench.system.machine import free_memory
from bench.system.process_call import Failed, Killed, OutOfMemory, call
from tests.waiting import has_ended, wait_until

StartMethod = Literal["spawn", "fork"]
START_METHODS: tuple[StartMethod, ...] = ("spawn", "fork")


def counts(limit: int, report: Callable[[str], object]) -> int:
    for number in range(limit):
        report(str(number))
    return limit


def endless(report: Callable[[str], object]) -> None:
    report("begun")
    time.sleep(1000)


def no_space() -> None:
    raise Unwritable("the cache", OSError(28, ""))


@pytest.mark.parametrize("start_method", START_METHODS)
def test_reports_come_in_order_and_before_the_result(start_method: StartMethod) -> None:
    reports: list[str] = []
    assert call(counts, 3, start_method=start_method, on_report=reports.append) == 3
    assert reports == ["0", "1", "2"]


@pytest.mark.parametrize("start_method", START_METHODS)
def test_what_does_not_end_is_ended(start_method: StartMethod) -> None:
    before = psutil.Process().children()
    reports: list[str] = []
    with pytest.raises(Failed, match="it took more than 1 s"):
        call(endless, start_method=start_method, timeout_s=1, on_report=reports.append)
    left = [child for child in psutil.Process().children() if child not in before]
    # What serves all spawned processes of Python is not ours.
    assert not [child for child in left if "resource_tracker" not in " ".join(child.cmdline())]


def test_a_kill_is_told_from_a_refused_allocation() -> None:
    with pytest.raises(Killed, match="exit status -9"):
        call(signal.raise_signal, signal.SIGKILL, start_method="fork")


def test_an_error_of_the_user_keeps_its_message() -> None:
    with pytest.raises(UserError, match="the cache cannot be written: No space left"):
        call(no_space)


def test_the_process_ends_with_the_one_that_started_it() -> None:
    code = (
        "import time\n"
        "from bench.system.process_call import call\n"
        "import os\n"
        "def child():\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(1000)\n"
        "call(child, start_method='fork')\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: has_ended(child), "the child to end")


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
    monkeypatch.setattr(process_call, "BEAT_SECONDS", 0.01)
    reported: list[float] = []
    call(time.sleep, 1, waiting=reported.append)
    assert len(reported) >= 2
    assert reported == pytest.approx([0.01 * (k + 1) for k in range(len(reported))])
