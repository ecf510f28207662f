"""How a sweep ends the processes of its runs."""

import errno
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.config.run_config import Environment
from bench.runs.run_folder import RunFolder
from bench.sweep import Sweep
from bench.sweeps.local_launcher import LocalPool, Worker
from bench.sweeps.options import SweepOptions
from slurm.scheduler import Scheduler


@pytest.mark.parametrize("moment", ["builtins.print", "signal", "wait"])
def test_a_second_ctrl_c_at_any_moment_kills_the_runs(
    monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    keys = [KeyboardInterrupt()]

    def pressed(then: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if keys:
                raise keys.pop()
            return then(*arguments, **named)

        return call

    with subprocess.Popen(["sleep", "60"]) as process:
        pool = LocalPool(Environment(device="cpu"), SweepOptions(workers=1))
        pool.running.append(Worker(RunFolder(Path("runs/one")), process, 0, 0))
        if moment == "builtins.print":
            monkeypatch.setattr(moment, pressed(print))
        elif moment == "signal":
            monkeypatch.setattr(process, "send_signal", pressed(process.send_signal))
        else:
            monkeypatch.setattr(process, "wait", pressed(process.wait))
        try:
            told = pool.stop()
        finally:
            monkeypatch.undo()
            process.kill()
    assert not keys
    assert "killed" in told
    assert not pool.running


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no disk"), RuntimeError("a bug")])
def test_a_sweep_that_fails_leaves_no_run_behind(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*arguments: Any, **named: Any) -> Any:
        raise error

    with subprocess.Popen(["sleep", "60"]) as process:
        pool = LocalPool(Environment(device="cpu"), SweepOptions(workers=1))
        pool.running.append(Worker(RunFolder(Path("runs/one")), process, 0, 0))
        monkeypatch.setattr("signal.signal", lambda *_: None)  # of the tests' own process
        monkeypatch.setattr(pool, "start", lambda runs: True)
        monkeypatch.setattr(pool, "poll", failing)
        if isinstance(error, OSError):  # of the output, which the farewell would go to
            monkeypatch.setattr("builtins.print", failing)
        sweep = Sweep([], [], SweepOptions(), pool, Scheduler(), "")
        monkeypatch.setattr(Sweep, "print_why_nothing_is_started", lambda self: None)
        try:
            with pytest.raises(type(error)):
                sweep.run()
            assert process.poll() == -signal.SIGTERM
        finally:
            process.kill()
