"""Seconds and memory of a run are those of all of its starts."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import Environment, RunConfig
from bench.run import Console
from bench.runs import execute as module
from bench.runs.measurements import Measurements
from bench.runs.run_folder import Store


def test_seconds_and_memory_are_those_of_all_starts(
    tiny: list[str], tmp_path: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, memory = [0.0], [5000]
    due = Measurements.due

    def slow(self: Measurements) -> Iterator[dict[str, Any]]:
        clock[0] += 100
        yield from due(self)

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(Measurements, "due", slow)
    monkeypatch.setattr(module.versions, "peak_memory_bytes", lambda device: {"process": memory[0]})
    config = single_run("quick", {**parse(tiny, RunConfig), "outer_steps": 2})
    environment = Environment(
        cache_root=str(cache_root), results_root=str(tmp_path), threads=1, checkpoint_seconds=0
    )
    folder = Store(tmp_path).run(config)
    folder.create(config)

    def finished() -> dict[str, Any]:
        module.execute(folder, environment, Console(config))
        return json.loads((folder.path / "result.json").read_text())

    assert finished()["seconds"] == 300  # before the first step and after each of two
    folder.remove("result.json")  # as if it had been killed during its last evaluation
    memory[0] = 3000
    resumed = finished()
    assert resumed["peak_memory_bytes"] == {"process": 5000}
    assert resumed["seconds"] >= 300
