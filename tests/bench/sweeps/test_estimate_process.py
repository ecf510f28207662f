import sys
from pathlib import Path

import pytest

from bench.config.run_config import Environment, RunConfig
from bench.sweeps import estimate_process
from bench.sweeps.estimate_process import estimates
from bench.system.errors import UserError


@pytest.fixture
def measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Replaces the measuring process by a shell script."""

    def replace(script: str) -> None:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        monkeypatch.setattr(estimate_process, "SECONDS_TO_STOP", 0.1)

    return replace


def test_a_process_that_ends_slowly_is_not_interrupted(measuring) -> None:
    # A busy machine takes seconds to unload torch. Interrupted then, the process lost its exit
    # status, and the sweep started runs that had no data.
    measuring("echo 'error: there are no data' >&2; exec >&-; sleep 1; exit 2")
    with pytest.raises(UserError, match=r"^there are no data$"):
        list(estimates([RunConfig()], Environment(), load=True))


def test_a_process_that_hangs_after_its_last_answer_is_stopped(
    measuring, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimate_process, "SECONDS_TO_EXIT", 0.1)
    measuring("trap '' INT; exec >&-; exec sleep 600")
    assert list(estimates([RunConfig()], Environment(), load=True)) == []
    assert "no estimate: bench.estimate ended with -9" in capfd.readouterr().out
