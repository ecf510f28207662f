"""A function in a process of its own: its reports, and its end. (`tests/bench/test_speed.py` has
memory that runs out and errors in code.)"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Literal

import psutil
import pytest

from bench.system.errors import Unwritable, UserError
from bench.system.process_call import Killed, TimedOut, call
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
    with pytest.raises(TimedOut, match="it took more than 1 s"):
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
