"""Grids on a real SLURM, sent once and finished once, with the figures of the local launcher."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.system import git
from tests.slurm.lab import Lab
from tests.waiting import wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Outcomes = Callable[[Path], dict[str, Any]]
LabGrid = Any  # see conftest.py

PROFILE = "profile=lab"


def job_names(lab: Lab) -> set[str]:
    """The names of all jobs that the lab knows, ended ones too."""
    return set(lab.squeue("-h", "--states=all", "-o", "%j").split())


def test_two_arrays_of_runs_give_the_figures_of_the_local_launcher(
    lab: Lab, command: Command, tiny: list[str], tmp_path: Path, outcomes: Outcomes
) -> None:
    grid = ["grid=window_ablation", "seeds=2", *tiny]
    before = job_names(lab)
    sent = command("bench.sweep", *grid, PROFILE, "wait=true")
    assert sent.returncode == 0, sent.stderr + sent.stdout
    assert sent.stdout.count(": 4 runs, ") == 2  # no more fit into an array of this cluster
    assert "8 runs: 8 done" in sent.stdout
    assert len(job_names(lab) - before) == 2
    nodes = lab.run("scontrol", "show", "job", "--oneliner")
    assert len(set(re.findall(r" NodeList=(node\d)", nodes))) > 1

    local = command(
        "bench.sweep",
        *grid,
        "launcher=inline",
        "threads=1",
        "check_memory=false",
        "results_root=local",
    )
    assert local.returncode == 0, local.stderr
    assert outcomes(tmp_path / "results") == outcomes(tmp_path / "local")
    tables = []
    for root in ("results", "local"):
        drawn = command(
            "analysis.plot",
            "figure=5",
            "scale=quick",
            f"results_root={root}",
            f"output={root}-figures",
            *tiny[1:],
        )
        assert drawn.returncode == 0, drawn.stderr
        drawn_from = tmp_path.glob(f"{root}-figures/*.csv")
        tables.append({path.name: path.read_text() for path in drawn_from})
    assert tables[0] == tables[1] != {}

    (told,) = [line for line in sent.stdout.splitlines() if line.startswith("next: ")]
    assert told == f"next: python -m analysis.plot figure=5 {shlex.join(tiny)}"
    folder = next((tmp_path / "results/slurm").glob("window_ablation-*"))
    record = json.loads((folder / "submission.json").read_text())
    assert {key: record[key] for key in git.commit()} == git.commit()
    assert all(path.stat().st_size < 2000 for path in folder.glob("*.pkl"))

    again = command("bench.sweep", *grid, PROFILE)
    assert "nothing is left to do; next: python -m analysis.plot figure=5" in again.stdout
    assert len(job_names(lab) - before) == 2


def test_two_that_submit_at_the_same_moment_submit_once(
    lab: Lab, lab_grid: Callable[..., LabGrid], start: Start
) -> None:
    grid = lab_grid("Slow", seeds=3)
    arguments = [*grid.arguments, PROFILE]
    both = [start("bench.sweep", *arguments) for _ in range(2)]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sum(": 3 runs, " in out for out, _ in told) == 1
    assert len(lab.squeue("-h", "--array", "-o", "%i").split()) == 3


def test_what_a_killed_submitter_sent_is_found_again_and_finished(
    lab: Lab,
    lab_grid: Callable[..., LabGrid],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    outcomes: Outcomes,
) -> None:
    # sbatch does its work, and then the process that called it is no more.
    real = lab.run("sh", "-c", "command -v sbatch").strip()
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "sbatch"
    fake.write_text(f'#!/bin/sh\n{real} "$@" >/dev/null; kill -KILL $PPID\n')
    fake.chmod(0o755)
    grid = lab_grid("Slow", seeds=2)
    with monkeypatch.context() as patch:
        patch.setitem(environment, "PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        killed = grid.sweep()
    assert killed.returncode == -9
    assert grid.submission(grid.run("Slow")).accepted() == ""
    again = grid.sweep()
    assert again.returncode == 0, again.stderr
    assert "nothing is left to submit: 2 runs" in again.stdout
    assert len(lab.squeue("-h", "--array", "-o", "%i").split()) == 2
    grid.hurry()
    wait_until(lambda: grid.states() == ["done", "done"], "both runs to end")
    assert outcomes(tmp_path / "results") == outcomes(grid.undisturbed())


def test_an_sbatch_that_refuses_leaves_nothing_behind(
    lab: Lab, lab_grid: Callable[..., LabGrid], tmp_path: Path
) -> None:
    grid = lab_grid("Slow")
    refused = grid.sweep("partition=nowhere")
    assert refused.returncode == 2
    assert "invalid partition" in refused.stderr.lower()
    assert "Traceback" not in refused.stderr
    assert grid.states() == ["waiting"]
    assert [path.name for path in (tmp_path / "results/slurm").iterdir()] == ["lock"]


def test_what_sbatch_got_no_answer_to_is_left_to_be_found(
    lab: Lab,
    lab_grid: Callable[..., LabGrid],
    tmp_path: Path,
    environment: dict[str, str],
) -> None:
    # It arrived, but sbatch was not told so.
    real = lab.run("sh", "-c", "command -v sbatch").strip()
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "sbatch"
    fake.write_text(f'#!/bin/sh\n{real} "$@" >/dev/null; echo "Socket timed out" >&2; exit 1\n')
    fake.chmod(0o755)
    environment["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    grid = lab_grid("Slow")
    assert grid.sweep().returncode == 2
    assert "nothing is left to submit: 1 run" in grid.sweep().stdout
    assert len(lab.squeue("-h", "--array").splitlines()) == 1


def test_a_written_script_makes_the_same_runs_when_submitted_by_hand(
    lab: Lab, lab_grid: Callable[..., LabGrid], tmp_path: Path, outcomes: Outcomes
) -> None:
    grid = lab_grid("Slow", seeds=2)
    grid.hurry()
    written = grid.sweep("scripts_only=true")
    assert written.returncode == 0, written.stderr
    assert set(grid.states()) == {"waiting"}
    (line,) = [line for line in written.stdout.splitlines() if line.startswith("sbatch ")]
    assert lab.squeue("-h") == ""
    lab.run(*line.split())
    # It is the sweep's job like any other.
    assert "nothing is left to submit" in grid.sweep().stdout
    wait_until(lambda: grid.states() == ["done", "done"], "both runs to end")
    assert outcomes(tmp_path / "results") == outcomes(grid.undisturbed())


def test_cancelling_asks_and_ends_the_jobs_of_the_grid_alone(
    lab: Lab, lab_grid: Callable[..., LabGrid]
) -> None:
    grid = lab_grid("Slow", "Low")
    other = lab.run("sbatch", "--parsable", "-o", "/dev/null", "--wrap=sleep 3600").strip()
    grid.sweep()
    unasked = grid.sweep("cancel=true")
    assert unasked.returncode == 2
    assert "yes=true" in unasked.stderr
    assert len(lab.squeue("-h", "--array").splitlines()) == 3
    some = grid.sweep("cancel=true", "yes=true", "only=own:Low")
    assert "cancelled 1 job" in some.stdout
    wait_until(lambda: len(lab.squeue("-h").splitlines()) == 2, "the job to end")
    rest = grid.sweep("cancel=true", "yes=true")
    assert "cancelled 1 job" in rest.stdout
    wait_until(lambda: lab.squeue("-h", "-o", "%i").split() == [other], "the jobs to end")
    assert grid.status(grid.run("Low")).kind == "cancelled"


def test_replicas_are_shared_by_the_tasks_of_a_job_on_two_nodes(
    lab: Lab, command: Command, tiny: list[str], tmp_path: Path, outcomes: Outcomes
) -> None:
    grid = ["grid=window_ablation", "only=forward_window", "seeds=1", "replicas=4", *tiny]
    profile = [PROFILE, "nodes=2", "tasks_per_node=2", "mem_gb=1.5"]
    sent = command("bench.sweep", *grid, *profile, "wait=true")
    assert sent.returncode == 0, sent.stderr + sent.stdout
    (manifest,) = (tmp_path / "results/runs").glob("*/manifest.json")
    assert '"world_size": 4' in manifest.read_text()
    options = ["rule=evaluation_loss", "patience=25"]  # those of the grid
    method = ["method=forward_window", *(f"method_options.{option}" for option in options)]
    run = [*method, "replicas=4", *tiny, "threads=1", "results_root=alone"]
    alone = command("bench.run", *run)
    assert alone.returncode == 0, alone.stderr
    assert outcomes(tmp_path / "results") == outcomes(tmp_path / "alone")
