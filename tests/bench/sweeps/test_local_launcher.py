"""How a sweep ends the processes of its runs."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.config.run_config import Environment
from bench.runs.run_folder import RunFolder
from bench.sweeps.local_launcher import LocalPool, Worker
from bench.sweeps.options import SweepOptions


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
