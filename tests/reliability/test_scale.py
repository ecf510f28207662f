"""Thousands of runs: their status and the plan of a sweep take seconds, and one question each to
the scheduler."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from bench.config.grid import expand, load_grid
from bench.config.run_config import SCHEMA_VERSION, RunConfig
from bench.runs.run_folder import Store
from bench.sweeps import live_table
from bench.sweeps.status_table import RunStatus

MIB = 2**20
GRID = "window_ablation"
TASKS = 1000  # of a job array
NODES = 100
RESULT = {
    "evaluation": {
        "test_accuracy_mean": 0.5,
        "test_accuracy_std": 0.1,
        "selection": "test",
        "n": 5,
    },
    "data": {"source": "digits", "fingerprint": "0"},
}
DONE, SILENT, QUEUED, FAILED, WAITING = range(5)  # every fifth run each

# Runs a command and prints what it took. In a process of its own: what a process took includes the
# memory of the one that started it.
MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(done.returncode)
"""
FAKE = """#!/bin/sh
echo "$(basename $0)" >> {calls}
case $(basename $0) in
  squeue) cat {jobs};;
  sinfo) for n in $(seq 0 99); do echo "node$n|down*"; done;;
  scontrol) echo "MaxArraySize = 1001";;
esac
"""


@dataclass(frozen=True)
class Cluster:
    """Runs of a grid in all states, and a scheduler that notes every question."""

    folder: Path
    runs: int
    environment: dict[str, str]

    def measured(self, module: str, *arguments: str) -> tuple[str, float, float]:
        """Run a command; its output, seconds of processor time and MiB of memory."""
        (self.folder / "calls").write_text("")
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, sys.executable, "-m", module, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        text, _, usage = done.stdout.rstrip("\n").rpartition("\n")
        seconds, kib = map(float, usage.split())
        return text, seconds, kib / 1024

    def questions(self) -> list[str]:
        """The commands of the scheduler that the last command called."""
        return (self.folder / "calls").read_text().split()


@pytest.fixture
def cluster(
    tmp_path: Path, environment: dict[str, str], cases: Callable[[int, int], int]
) -> Cluster:
    number = cases(200, 10_000)
    configs = expand(load_grid(GRID), "quick", {}, number // 4)
    assert len(configs) == number
    root = tmp_path / "results"
    jobs = [make_run(root, index, config) for index, config in enumerate(configs)]
    for first in range(0, number, TASKS):
        folder = root / "slurm" / f"grid-{first // TASKS}"
        folder.mkdir(parents=True)
        runs = [Store(root).run(config).name for config in configs[first : first + TASKS]]
        record = {"runs": runs, "processes": 1, "place": [], "profile": {}}
        (folder / "submission.json").write_text(json.dumps(record))
        for task in range(len(runs)):
            if task % 5 in (DONE, SILENT, FAILED):
                (folder / f"7_{task}_0_log.out").touch()
                os.utime(folder / f"7_{task}_0_log.out", (0, 0))
    (tmp_path / "jobs").write_text("\n".join(filter(None, jobs)))
    (tmp_path / "slurm.conf").touch()
    (tmp_path / "bin").mkdir()
    for name in ("squeue", "sinfo", "scontrol", "sbatch"):
        path = tmp_path / "bin" / name
        path.write_text(FAKE.format(calls=tmp_path / "calls", jobs=tmp_path / "jobs"))
        path.chmod(0o755)
    environment = {
        **environment,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SLURM_CONF": str(tmp_path / "slurm.conf"),
    }
    return Cluster(tmp_path, number, environment)


def make_run(root: Path, index: int, config: RunConfig) -> str:
    """The folder of a run in one of five states; the line of squeue about its job, if any."""
    run, state = Store(root).run(config), index % 5
    if state == WAITING:
        return ""
    array, task = f"grid-{index // TASKS}", index % TASKS
    beat = {
        "state": "running" if state == SILENT else "ended",
        "host": "elsewhere",
        "pid": 1,
        "process_started": 1.0,
        "job": f"7_{task}",
        "node": f"node{index % NODES}",
        "step": 100,
        "outer_steps": config.outer_steps,
        "activity": "distilling",
        "seconds_per_step": 1.0,
        "time": time.time(),
    }
    files = {
        "config": {"schema": SCHEMA_VERSION, **asdict(config)},
        "job": {"name": array, "task": task, "time": time.time()},
    }
    if state in (DONE, SILENT, FAILED):
        files["progress"] = beat
    if state == DONE:
        files["result"] = RESULT
    if state == FAILED:
        files["error"] = {"kind": "error", "message": "for a test"}
    run.path.mkdir(parents=True)
    for name, content in files.items():
        (run.path / f"{name}.json").write_text(json.dumps(content))
    if state == SILENT:
        long_ago = time.time() - 100
        for name in ("progress", "job"):
            os.utime(run.path / f"{name}.json", (long_ago, long_ago + (name == "progress")))
    words = {SILENT: "RUNNING|None", QUEUED: "PENDING|Priority", FAILED: "FAILED|None"}
    return f"{array}|7|{task}|{words[state]}" if state in words else ""


def test_the_status_of_thousands_of_runs_takes_seconds_and_one_query(
    cluster: Cluster, figure: Callable[[str, object], None]
) -> None:
    fifth = cluster.runs // 5
    states = ("done", "running", "waiting", "failed")
    selections = {
        "all runs": ([], dict(zip(states, (fifth,) * 4, strict=True))),
        "a grid": (
            [f"grid={GRID}", "scale=quick", f"seeds={cluster.runs // 4}"],
            dict(zip(states, (fifth, fifth, 2 * fifth, fifth), strict=True)),
        ),
    }
    for what, (selection, expected) in selections.items():
        text, seconds, mib = cluster.measured("bench.status", *selection)
        counts = ", ".join(f"{number:,} {state}" for state, number in expected.items())
        assert text.splitlines()[-1] == f"{sum(expected.values()):,} runs: {counts}"
        assert text.count("silent for") == text.count("does not respond (down*)") == fifth
        assert sorted(cluster.questions()) == ["sinfo", "squeue"]
        assert mib < 100 + cluster.runs * 0.02
        measured = f"{seconds:.0f} s of one core, {mib:.0f} MiB, 1 squeue, 1 sinfo"
        figure(f"`bench.status`, {what}, {cluster.runs:,} runs", measured)


def test_the_plan_of_thousands_of_runs_takes_seconds_and_one_query(
    cluster: Cluster, figure: Callable[[str, object], None]
) -> None:
    grid = [f"grid={GRID}", "scale=quick", f"seeds={cluster.runs // 4}", "dry_run=true"]
    fifth = cluster.runs // 5
    text, seconds, mib = cluster.measured("bench.sweep", *grid, "launcher=slurm")
    assert f"dry run: {2 * fifth:,} runs would be started; none was" in text  # waiting and failed
    assert cluster.questions().count("squeue") == 1
    assert set(cluster.questions()) <= {"squeue", "sinfo", "scontrol"}
    assert cluster.questions().count("sinfo") == 1
    assert mib < 100 + cluster.runs * 0.02
    figure(f"plan of a sweep with SLURM, {cluster.runs:,} runs", f"{seconds:.0f} s, {mib:.0f} MiB")


def test_the_local_plan_of_thousands_of_runs_measures_each_experiment_once(
    cluster: Cluster, figure: Callable[[str, object], None], cases: Callable[[int, int], int]
) -> None:
    if not cases(0, 1):
        pytest.skip("tests/bench/test_sweep.py has a plan; make reliability times a large one")
    grid = [f"grid={GRID}", "scale=quick", f"seeds={cluster.runs // 4}", "dry_run=true"]
    text, seconds, mib = cluster.measured("bench.sweep", *grid, "launcher=local")
    assert "measuring a few steps of 4 experiments" in text
    figure(
        f"plan of a local sweep, {cluster.runs:,} runs",
        f"{seconds:.0f} s of processor time with the estimate, {mib:.0f} MiB",
    )


def test_a_sweep_spends_its_time_with_waiting_not_with_looking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, looks = [0.0], [0]
    monkeypatch.setattr(live_table.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(live_table.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))

    def look() -> Sequence[RunStatus]:
        looks[0] += 1
        clock[0] += 6.0  # as long as ten thousand runs take
        return []

    live_table.watch(look, lambda: clock[0] < 6000, 0.25)
    assert 80 <= looks[0] <= 101  # a tenth of the time
    clock[0] = looks[0] = 0

    def poll() -> bool:  # that of a cluster reads all runs
        clock[0] += 6.0
        return clock[0] < 6000

    live_table.watch(look, poll, 0.25)
    assert 50 <= looks[0] <= 91
