"""Work that would not fit is not started."""

import json
from pathlib import Path

import pytest

from bench.speed.engines import (
    AUTO,
    HIGHER,
    TORCHOPT,
)
from bench.speed.measure import Missing
from bench.speed.memory_prediction import predicted_bytes, smaller_did_not_fit
from bench.speed.work import Work
from tests.bench.speed.machine import GIB, FakeMachine, measurement, program_on


def test_memory_of_a_graph_is_predicted_from_two_smaller_windows() -> None:
    done = [measurement(HIGHER, Work(window=w), GIB + w * 100) for w in (10, 20)]
    done.append(measurement(HIGHER, Work(window=40, width=32), 7 * GIB))  # differs in two things
    done.append(measurement(AUTO, Work(window=40), 9 * GIB))
    assert predicted_bytes(HIGHER, Work(window=160), done) == GIB + 160 * 100
    assert predicted_bytes(HIGHER, Work(window=20), done) is None
    assert predicted_bytes(AUTO, Work(window=160), done) is None


def test_what_is_larger_than_what_did_not_fit_does_not_fit() -> None:
    missing = [Missing(HIGHER, Work(width=64), GIB, True, "tried")]
    assert smaller_did_not_fit(HIGHER, Work(width=128), missing)
    assert not smaller_did_not_fit(HIGHER, Work(width=32), missing)
    assert not smaller_did_not_fit(TORCHOPT, Work(width=128), missing)


def test_what_is_predicted_not_to_fit_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine(float32=1e9, bf16=1e9)
    program = program_on(machine, monkeypatch)
    monkeypatch.setattr(program, "engines", lambda device, compiled: [HIGHER])
    monkeypatch.setattr(program, "free_bytes", lambda device: 25 * GIB)
    monkeypatch.setattr(program, "GROWTH", {"window": (10, 20, 40)})
    assert program.main([f"results_root={tmp_path}", "device=cpu"]) == 0
    assert [work.window for work in machine.measured] == [10, 20]
    content = json.loads((tmp_path / "speed" / "speed.json").read_text())
    assert [m["text"] for m in content["missing"]] == ["does not fit (about 40 GiB)"]
    assert "does not fit (about 40 GiB)" in (tmp_path / "speed" / "speed.txt").read_text()
    assert (tmp_path / "speed" / "speed.png").stat().st_size > 10_000
