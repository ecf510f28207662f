"""A run of many outer steps holds no more at its end than at its beginning, and leaves short logs;
a clock that jumps changes nothing; Ctrl-C ends a sweep, and a second one ends it at once."""

import gc
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from bench.config.grid import single_run
from bench.config.run_config import Environment
from bench.distillation.outer_loop import Distillation
from bench.runs import heartbeat
from bench.runs.heartbeat import Heartbeat, progress_of
from bench.runs.log_file import MOST_BYTES, log_path, open_log
from bench.runs.run_folder import RunFolder, Store
from bench.sweeps import live_table
from bench.sweeps.status_table import RunStatus
from bench.training.setup import load_data
from tests.reliability.conftest import FULL
from tests.waiting import Gate, has_ended, wait_until

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Cases = Callable[[int, int], int]
Figure = Callable[[str, object], None]

# Notes what its process holds, a hundred times in a run. Objects are counted before and after a
# search for garbage: only what is left after it is held. rich keeps up to a thousand samples of the
# speed, which a short run fills.
SAMPLED = """
import gc, json, os
import psutil
from methods import METHODS

def count():
    return sum(type(one).__name__ != "ProgressSample" for one in gc.get_objects())

class Sampled(METHODS["rat_bptt"]):
    def next_window(self, step, rng):
        if step % int(os.environ["SAMPLE_EVERY"]) == 0:
            process, objects = psutil.Process(), count()
            size = process.memory_info().rss
            gc.collect()
            sample = {
                "step": step,
                "bytes": size,
                "garbage": objects - count(),
                "objects": count(),
                "threads": process.num_threads(),
                "files": process.num_fds(),
            }
            with open("samples.jsonl", "a") as file:
                print(json.dumps(sample), file=file)
        return super().next_window(step, rng)
"""
SMALL = [
    *("scale=quick", "width=1", "depth=1", "unroll_length=2", "window_size=1", "target_batch=8"),
    *("learn_labels=true", "variance_samples=2", "accuracy_networks=1", "accuracy_steps=1"),
    *("evaluation_networks=1", "evaluation_steps=[1]", "checkpoint_seconds=1", "device=cpu"),
]


@pytest.mark.parametrize("engine", ["exact", "higher"])
def test_a_run_of_many_steps_holds_no_more_at_its_end(
    start: Start,
    environment: dict[str, str],
    tmp_path: Path,
    cases: Cases,
    figure: Figure,
    engine: str,
) -> None:
    steps = cases(200, 20_000)
    (tmp_path / "own.py").write_text(SAMPLED)
    environment["SAMPLE_EVERY"] = str(steps // 100)
    often = [f"{one}={steps // 40}" for one in ("variance_every", "accuracy_every", "outer_steps")]
    often[-1] = f"outer_steps={steps}"
    run = start("bench.run", "method=own:Sampled", *SMALL, *often, f"engine={engine}")
    printed, errors = run.communicate()
    assert run.returncode == 0, errors
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    # A window is asked for twice where the variance is measured.
    samples = [*{one["step"]: one for one in map(json.loads, lines)}.values()]
    assert len(samples) == 100
    second, last = samples[25:50], samples[75:]  # quarters

    def growth(key: str) -> int:
        return min(one[key] for one in last) - min(one[key] for one in second)

    # The fewest of each quarter: a heartbeat may hold a file open at the moment of a sample.
    for key in ("threads", "files"):
        assert growth(key) <= 0
    assert growth("objects") < 100  # an object kept in each step would be one for each step
    # The allocator keeps some pages; a tensor of each step would be kilobytes for each.
    assert growth("bytes") < (4 << 20) + 200 * steps
    assert len(printed) < 80 * 100 + 2000  # a line for each accuracy and variance, and a few
    figure(
        f"{steps:,} outer steps, engine={engine}: growth from the second quarter to the last",
        f"{growth('bytes') / 2**20:.1f} MiB, {growth('objects')} objects, {growth('threads')}"
        f" threads, {growth('files')} open files; output {len(printed) / 1024:.1f} KiB",
    )


def test_higher_leaves_no_parameters_to_the_search_for_garbage(
    environment: dict[str, str], figure: Figure
) -> None:
    """It leaves classes that refer to themselves; a network must not hang on them."""
    settings = {"width": 8, "depth": 2, "unroll_length": 4, "window_size": 2, "target_batch": 32}
    config = single_run("quick", {**settings, "engine": "higher", "variance_every": 0})
    cache = Environment(cache_root=environment["BENCH_CACHE_ROOT"])
    distillation = Distillation(config, load_data(config, cache, torch.device("cpu")))
    distillation.outer_step()
    gc.collect()
    gc.disable()
    try:
        before = {id(one) for one in gc.get_objects()}
        for _ in range(10):
            distillation.outer_step()
        left = [one for one in gc.get_objects() if id(one) not in before]
    finally:
        gc.enable()
    tensors = [one for one in left if isinstance(one, torch.Tensor)]
    size = sum(one.untyped_storage().nbytes() for one in tensors)
    figure(
        "engine=higher: left to the search for garbage by an outer step",
        f"{len(left) // 10} objects, {size // 10} bytes of tensors",
    )
    assert len(left) > 100, "higher leaks no more: this test and `release` are not needed"
    assert size < 1000


def test_a_sweep_of_weeks_prints_some_lines_an_hour(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clock = [0.0]
    monkeypatch.setattr(live_table.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(live_table.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    running = heartbeat.Progress("running", 1, 2)

    def lines(runs: int, hours: float, pause: float = 60.0) -> int:
        rows: list[RunStatus] = [(RunFolder(tmp_path / f"run-{k}"), running) for k in range(runs)]
        clock[0] = 0.0
        capsys.readouterr()
        live_table.watch(lambda: rows, lambda: clock[0] < hours * 3600, pause)
        return capsys.readouterr().out.count("\n")

    assert lines(runs=1, hours=0.1, pause=5.0) > 20
    hours = 14 * 24
    assert 6 * hours <= lines(runs=1, hours=hours) < 8 * hours
    assert lines(runs=50, hours=hours) < 50 + 8 * hours


def test_the_log_of_a_run_is_bounded_over_many_starts(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for start in range(30):
        with open_log(run, f" job {start}") as log:
            log.write(b"%d traceback of a kilobyte\n" % start + b"x" * 1023 + b"\n" * 1000)
            log.write((b"y" * 1023 + b"\n") * 1024)
    text = log_path(run).read_text()
    assert len(text) < MOST_BYTES + (2 << 20)
    assert " job 29\n29 traceback" in text
    assert " job 28\n28 traceback" in text
    assert " job 2\n" not in text


# --- a clock that jumps


@pytest.fixture
def beating(tmp_path: Path) -> RunFolder:
    config = single_run("quick", {})
    run = Store(tmp_path).run(config)
    run.create(config)
    return run


def test_a_run_is_alive_although_the_clock_was_set(
    beating: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Heartbeat(beating, 10):
        # The start of a process is counted from the clock of now.
        started, booted = psutil.Process().create_time(), psutil.boot_time()
        for jump in (-5 * 3600, 5 * 3600):
            with monkeypatch.context() as patch:
                patch.setattr(psutil.Process, "create_time", lambda self, by=jump: started + by)
                assert progress_of(beating).state == "lost"  # another process of this id
                patch.setattr(psutil, "boot_time", lambda by=jump: booted + by)
                assert progress_of(beating).state == "running"
    process = subprocess.Popen(["true"])
    process.wait()
    beat = {**(beating.read("progress") or {}), "state": "running", "pid": process.pid}
    beating.write("progress", beat)
    assert progress_of(beating).state == "lost"


@pytest.mark.parametrize("hours", [-1000, 1000])
def test_a_beat_of_another_time_is_that_of_a_living_process(
    beating: RunFolder, hours: float
) -> None:
    with Heartbeat(beating, 10) as heart:
        heart._stop.set()  # no further beat
        heart._thread.join()
        then = time.time() + hours * 3600
        os.utime(beating.path / "progress.json", (then, then))
        found = progress_of(beating)
        assert found.state == "running"
        assert (found.silent_seconds is not None) == (hours < 0)
    assert progress_of(beating).state == "stopped"


# --- Ctrl-C


def processes_of(folder: Path) -> list[psutil.Process]:
    beats: list[dict[str, Any]] = [
        json.loads(path.read_text()) for path in folder.glob("results/runs/*/progress.json")
    ]
    return [psutil.Process(beat["pid"]) for beat in beats]


@pytest.mark.skipif(not FULL, reason="not reliable on a busy machine; make reliability runs it")
def test_a_second_ctrl_c_ends_a_sweep_at_once_whatever_its_runs_do(
    start: Start, gate: Gate, tiny: list[str], tmp_path: Path, figure: Figure
) -> None:
    (tmp_path / "mine.yaml").write_text(
        "runs: [{method: 'gated:Random'}, {method: 'gated:Backward'}]\n"
    )
    gate.open(2)
    settings = ["grid=mine.yaml", "seeds=1", "workers=2", "check_memory=false", *tiny]
    sweep = start("bench.sweep", *settings, "checkpoint_seconds=0")
    gate.await_at(2, sweep)
    runs = processes_of(tmp_path)
    assert sweep.stdout is not None
    sweep.send_signal(signal.SIGINT)
    for line in sweep.stdout:
        if "waiting for the runs" in line:
            break
    assert not any(has_ended(run) for run in runs)  # they wait at the gate, in an outer step
    began = time.monotonic()
    sweep.send_signal(signal.SIGINT)
    printed, errors = sweep.communicate()
    figure(
        "second Ctrl-C: a sweep of two runs that hang ends in",
        f"{time.monotonic() - began:.1f} s",
    )
    assert sweep.returncode == 130
    assert "killed, with the checkpoints that they had; the same command resumes" in printed
    assert errors == ""
    for run in runs:
        wait_until(lambda run=run: has_ended(run), "the run's end")
    for path in (tmp_path / "results/runs").glob("*/checkpoint.pt"):
        assert torch.load(path, weights_only=True)["distillation"]["step"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_sweep_ends_with_a_checkpoint_of_the_very_step(
    command: Command, start: Start, tiny: list[str], tmp_path: Path, figure: Figure, number: int
) -> None:
    settings = ["grid=window_ablation", *tiny, "outer_steps=100000", "workers=2"]
    sweep = start("bench.sweep", *settings, "checkpoint_seconds=100000")
    runs = tmp_path / "results" / "runs"
    wait_until(
        lambda: sum(path.stat().st_size > 0 for path in runs.glob("*/metrics.jsonl")) == 2,
        "two runs at work",
        sweep,
    )
    began = time.monotonic()
    sweep.send_signal(number)
    printed, errors = sweep.communicate()
    seconds = time.monotonic() - began
    figure(f"{signal.Signals(number).name}: a sweep of two runs ends in", f"{seconds:.1f} s")
    assert sweep.returncode == 130
    assert "stopped; the same command resumes the runs" in printed
    assert errors == ""
    begun = [path.parent for path in runs.glob("*/metrics.jsonl")]
    for run in begun:
        assert json.loads((run / "progress.json").read_text())["state"] == "stopped"
        state = torch.load(run / "checkpoint.pt", weights_only=True)
        assert state["record_sizes"]["metrics.jsonl"] == (run / "metrics.jsonl").stat().st_size
    assert len(begun) == 2
    assert "2 stopped" in command("bench.status").stdout
