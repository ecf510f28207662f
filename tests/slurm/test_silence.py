"""A run that gives no sign of life is told from one that starts and from one that works; and what a
full disk did to a job is said, though the disk took no word of it."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.runs import heartbeat
from bench.runs.records import load_checkpoint
from bench.runs.run_folder import RunFolder
from slurm import job_status
from tests.slurm.lab import Lab
from tests.waiting import wait_until

LabGrid = Any  # see conftest.py


def worker(run: RunFolder) -> psutil.Process:
    """The process that makes a run."""
    beat = run.read("progress")
    assert beat is not None
    return psutil.Process(beat["pid"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence begins after two seconds."""
    for module in (heartbeat, job_status):
        monkeypatch.setattr(module, "SILENT_AFTER_SECONDS_ELSEWHERE", 2.0)
    monkeypatch.setattr(heartbeat, "SILENT_AFTER_SECONDS", 2.0)


def test_a_suspended_run_and_one_whose_node_is_gone_are_silent_until_they_go_on(
    lab: Lab, lab_grid: Callable[..., LabGrid], impatient: None
) -> None:
    grid = lab_grid("Slow", seeds=2)
    grid.sweep()
    suspended, orphaned = (grid.run("Slow", seed) for seed in range(2))
    for run in (suspended, orphaned):
        grid.wait(run, "running", step=2)

    worker(suspended).suspend()
    wait_until(lambda: grid.status(suspended).silent_seconds is not None, "silence")
    silent = grid.status(suspended)
    assert (silent.state, silent.seconds_left) == ("running", None)
    assert silent.description.startswith("silent for ")
    assert silent.description.endswith("(distilling)")
    worker(suspended).resume()
    wait_until(lambda: grid.status(suspended).description == "distilling", "a sign of life")

    node = (orphaned.read("progress") or {})["node"]
    assert node in lab.nodes
    lab.kill_node(node)
    texts: list[str] = []

    def requeued() -> bool:
        texts.append(grid.status(orphaned).description)
        return "was requeued" in texts[-1] or "starts again" in texts[-1]

    wait_until(requeued, "the job to be requeued")
    assert any(text.startswith("silent for ") for text in texts), texts
    assert any(f"its node {node} " in text for text in texts), texts
    assert not any(text.startswith("job") and text.endswith("starts") for text in texts), texts
    lab.start_node(node)
    grid.hurry()
    wait_until(lambda: set(grid.states()) == {"done"}, "both runs to end")


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Path]:
    """A small file system for the results of a sweep in `tmp_path`."""
    folder = tmp_path / "results"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(command).returncode != 0:
        pytest.skip("only root mounts a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_job_that_meets_a_full_disk_fails_for_that_reason_and_goes_on_later(
    lab: Lab,
    lab_grid: Callable[..., LabGrid],
    results: Path,
    tmp_path: Path,
    outcomes: Callable[[Path], dict[str, Any]],
) -> None:
    grid = lab_grid("Slow")
    assert grid.sweep().returncode == 0
    (run,) = grid.runs
    grid.wait(run, "running", step=3)
    wait_until(lambda: (run.path / "checkpoint.pt").exists(), "a checkpoint")
    job = grid.job(run)
    ballast = results / "ballast"
    fill(ballast)
    failed = grid.wait(run, "failed")
    assert failed.kind == "disk full", failed
    wait_until(lambda: not grid.job(run), "the job to end")
    assert lab.squeue("-h", "-t", "all", "-j", job, "-o", "%T").strip() == "FAILED"  # not status 0
    checkpoint = load_checkpoint(run.path)
    assert checkpoint is not None
    assert 0 < checkpoint["distillation"]["step"] <= len(run.records("metrics"))
    fill(ballast)  # with what the run has given back
    assert "no space is left" in grid.command("bench.status").stderr
    refused = grid.sweep()
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "cannot be written: No space left on device" in line
    ballast.unlink()
    grid.hurry()
    again = grid.sweep()
    assert ": 1 run, " in again.stdout, again.stdout + again.stderr
    grid.wait(run, "done")
    assert outcomes(results) == outcomes(grid.undisturbed())


def fill(path: Path) -> None:
    """Let a file take all that its disk has."""
    with open(path, "ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
