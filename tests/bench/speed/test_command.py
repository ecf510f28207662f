"""The command `python -m bench.speed` as a whole."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.speed.engines import (
    HIGHER,
    engines,
)
from bench.speed.measure import Measurement
from bench.speed.report import read
from bench.speed.work import Work
from tests.waiting import has_ended, wait_until

TINY = ["width=4", "images=10", "window=3", "target_batch=10", "repeats=2", "threads=1"]


@pytest.mark.slow
def test_all_engines_are_measured_and_written(command: Callable[..., Any], tmp_path: Path) -> None:
    done = command("bench.speed", "quick=true", "growth=false", *TINY)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "speed"
    content = json.loads((folder / "speed.json").read_text())
    assert [m["engine"] for m in content["measurements"]] == engines("cpu", compiled=False)
    assert {"cpu", "device"} <= set(content["hardware"])
    assert content["rates"]["float32"]["operations"] > 0
    for entry in content["measurements"]:
        assert entry["engine"] in done.stdout
        assert len(entry["seconds"]) == 2
        assert entry["peak_bytes"] > 0
        assert 0 < entry["error"] < 0.2
        assert min(entry["seconds"]) > 0
    assert content["floors"][0]["seconds"] > 0
    pictures = {folder / "speed.png", folder / "speed.pdf"}
    assert pictures <= set(folder.iterdir())
    for path in pictures:
        path.unlink()
    again = command("bench.speed", "redraw=true")
    assert again.returncode == 0, again.stderr
    assert pictures <= set(folder.iterdir())
    assert read(folder).measurements == [
        Measurement(**{**m, "work": Work(**m["work"])}) for m in content["measurements"]
    ]


@pytest.mark.slow
def test_an_interrupted_command_keeps_what_it_measured(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    measuring = start("bench.speed", "growth=false", *TINY)
    path = tmp_path / "results" / "speed" / "speed.json"
    wait_until(path.exists, "the first measurement", measuring)
    children = psutil.Process(measuring.pid).children(recursive=True)
    measuring.send_signal(signal.SIGINT)
    _, messages = measuring.communicate()
    assert measuring.returncode == 130
    assert messages.splitlines() == ["interrupted"]
    assert json.loads(path.read_text())["measurements"][0]["engine"] == HIGHER
    wait_until(lambda: all(map(has_ended, children)), "what it started to end")


@pytest.mark.parametrize("setting", ["quick=true", "errors=true"])
def test_something_is_said_before_anything_is_measured_or_torch_is_imported(
    setting: str, start: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not yet')\n")  # found before torch
    process = start("bench.speed", setting)
    printed, errors = process.communicate()
    assert process.returncode != 0
    assert "not yet" in errors
    assert printed.splitlines()[0] == "looking at this machine ..."


def test_a_precision_that_a_cpu_only_emulates_is_refused(command: Callable[..., Any]) -> None:
    done = command("bench.speed", "precision=tf32", "device=cpu", *TINY)
    assert done.returncode == 2
    assert "NVIDIA" in done.stderr
    assert len(done.stderr.splitlines()) == 1
