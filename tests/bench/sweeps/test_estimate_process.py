import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.config.run_config import Environment, RunConfig
from bench.sweeps import estimate_process
from bench.sweeps.cost_model import Estimate
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


def test_what_python_prints_at_its_start_is_no_estimate(measuring) -> None:
    answer = json.dumps(asdict(Estimate(60.0, 2**30)))
    measuring(f"echo 'welcome to the cluster'; echo 7; echo '{answer}'")
    assert len(list(estimates([RunConfig()], Environment(), load=True))) == 1


def test_an_estimate_that_took_long_is_printed_with_what_distinguishes_its_run(
    measuring, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimate_process, "QUIET_SECONDS", 0.0)
    answers = [Estimate(seconds, 2**30) for seconds in (60.0, 120.0)]
    measuring("\n".join(f"echo '{json.dumps(asdict(answer))}'" for answer in answers))
    configs = [RunConfig(arch="vgg11"), RunConfig(arch="resnet18")]
    assert list(estimates(configs, Environment(), load=True)) == answers
    shown = capfd.readouterr().out
    assert "rat_bptt arch=vgg11: 1 min a run, 1.0 GiB each" in shown
    assert "rat_bptt arch=resnet18: 2 min a run, 1.0 GiB each" in shown
