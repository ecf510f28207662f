"""Submissions that are refused, interrupted or made anew: nothing finished is lost, nothing is said
that is not so, nothing is sent twice."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.lab import Lab
from tests.waiting import wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Outcomes = Callable[[Path], dict[str, Any]]
Fake = Callable[..., Path]
LabGrid = Any  # see conftest.py

AWAY = "echo 'error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


@pytest.fixture
def fake(lab: Lab, tmp_path: Path, environment: dict[str, str]) -> Fake:
    """`fake("sbatch", "sleep 5; exec {real} ...")`: what a SLURM command does instead, in shell,
    until the file that is returned is deleted."""
    folder = tmp_path / "bin"
    folder.mkdir()
    environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def make(program: str, does: str) -> Path:
        real = lab.run("sh", "-c", f"command -v {program}").strip()
        (folder / program).write_text(f"#!/bin/sh\n{does.replace('{real}', real)}\n")
        (folder / program).chmod(0o755)
        return folder / program

    return make


def aged(grid: LabGrid, method: str, seconds: float) -> None:
    """Let the submission of a run be older than it is."""
    note = grid.run(method).path / "job.json"
    wait_until(note.exists, "the submission")
    then = note.stat().st_mtime - seconds
    os.utime(note, (then, then))


def queue(lab: Lab) -> list[str]:
    """The ids of the jobs that have not ended."""
    return lab.squeue("-h", "--array", "-o", "%i").split()


def test_finished_runs_are_kept_until_those_made_anew_have_their_results(
    lab: Lab, lab_grid: Callable[..., LabGrid], fake: Fake, tmp_path: Path, outcomes: Outcomes
) -> None:
    grid = lab_grid("Slow")
    grid.arguments.append("outer_steps=60")
    grid.hurry()
    assert grid.command("bench.sweep", *grid.arguments, "launcher=inline").returncode == 0
    finished = outcomes(tmp_path / "results")
    files = sorted(path for path in (tmp_path / "results/runs").rglob("*") if path.is_file())

    def nothing_has_changed() -> bool:
        left = sorted(path for path in (tmp_path / "results/runs").rglob("*") if path.is_file())
        return left == files and grid.states() == ["done"]

    refused = grid.sweep("force=true", "partition=nosuch")
    assert refused.returncode == 2
    assert refused.stderr == "error: sbatch: invalid partition specified: nosuch\n"
    assert nothing_has_changed()
    away = [fake(program, AWAY) for program in ("sbatch", "squeue", "scontrol")]
    unanswered = grid.sweep("force=true")
    assert unanswered.returncode == 2
    assert "Unable to contact" in unanswered.stderr
    for program in away:
        program.unlink()
    assert nothing_has_changed()

    (tmp_path / "hurry").unlink()
    assert grid.sweep("force=true").returncode == 0
    (run,) = grid.runs
    grid.wait(run, "running", step=2)
    assert " before " in grid.command("bench.status").stdout
    lab.run("scancel", grid.job(run))
    assert grid.wait(run, "failed").kind == "cancelled"
    drawn = grid.command("analysis.plot", "figure=5", *grid.arguments, "output=figures")
    assert drawn.returncode == 0, drawn.stderr
    grid.hurry()
    assert grid.sweep().returncode == 0
    grid.wait(run, "done")
    starts = (run.read("manifest") or {})["starts"]
    assert starts[0]["step"] == 0
    assert len(starts) == 2  # the old one's is not among them
    assert outcomes(tmp_path / "results") == finished
    wait_until(lambda: not (run.path / "previous").exists(), "the old result to go")


def test_what_an_interrupted_submission_did_not_send_is_sent_once_that_is_known(
    lab: Lab, lab_grid: Callable[..., LabGrid], fake: Fake, start: Start, tmp_path: Path
) -> None:
    grid = lab_grid("Slow")
    grid.hurry()
    begun = tmp_path / "begun"
    sbatch = fake("sbatch", f"touch {begun}; exec sleep 600")
    submitting = start("bench.sweep", *grid.arguments, "profile=lab")
    wait_until(begun.exists, "sbatch")  # one that is interrupted while it starts goes on
    aged(grid, "Slow", 55)
    submitting.send_signal(signal.SIGINT)
    told, _ = submitting.communicate()
    assert submitting.returncode == 130
    assert "the same command finds out what has been submitted, and submits the rest" in told
    sbatch.unlink()
    again = grid.sweep("wait=true")
    assert again.returncode == 0, again.stderr + again.stdout
    assert (
        "waiting until it is known whether an interrupted submission was accepted" in again.stdout
    )
    assert ": 1 run, " in again.stdout
    assert "1 run: 1 done" in again.stdout


def test_an_sbatch_that_outlives_its_caller_is_waited_for(
    lab: Lab, lab_grid: Callable[..., LabGrid], fake: Fake, start: Start, tmp_path: Path
) -> None:
    grid = lab_grid("Slow")
    go = tmp_path / "go"
    sbatch = fake("sbatch", f'until [ -e {go} ]; do sleep 0.1; done; exec {{real}} "$@"')
    submitting = start("bench.sweep", *grid.arguments, "profile=lab")
    wait_until(lambda: len(grid.runs) == 1, "the submission")
    aged(grid, "Slow", 1000)
    submitting.kill()
    assert queue(lab) == []
    sbatch.unlink()
    again = start("bench.sweep", *grid.arguments, "profile=lab")
    assert again.stdout is not None
    while not (line := again.stdout.readline()).startswith("waiting until it is known"):
        assert line, again.stderr
    go.touch()
    rest, _ = again.communicate()
    assert "nothing is left to submit: 1 run running or in the queue" in rest
    assert len(queue(lab)) == 1
    lost = grid.sweep("retry=lost")
    assert "no run is lost; 1 run running or in the queue" in lost.stdout


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        # A test of this one says so; of that one only that no node can give it now.
        ("partition: nosuch", "nothing was submitted: sbatch: invalid partition specified"),
        ("mem_gb: 9999", "sbatch: Memory specification can not be satisfied"),
    ],
)
def test_of_several_arrays_none_is_sent_if_one_is_refused(
    lab: Lab, lab_grid: Callable[..., LabGrid], tmp_path: Path, asked: str, told: str
) -> None:
    grid = lab_grid("Slow", "Low")
    (tmp_path / "site.yaml").write_text(
        f"{{gpus: 0, cpus: 1, mem_gb: 2, methods: {{'own:Low': {{{asked}}}}}}}\n"
    )
    refused = grid.command("bench.sweep", *grid.arguments, "profile=site.yaml")
    assert refused.returncode == 2
    assert told in refused.stderr
    assert refused.stderr.count("sbatch") == 1
    assert queue(lab) == []
    assert "job " not in refused.stdout
    assert not list((tmp_path / "results").glob("runs/*/job.json"))


def test_any_folder_can_hold_results_and_what_is_printed_can_be_pasted(
    lab: Lab, lab_grid: Callable[..., LabGrid], tmp_path: Path, environment: dict[str, str]
) -> None:
    grid = lab_grid("Slow", seeds=2)
    grid.hurry()
    (tmp_path / "mine.yaml").rename(tmp_path / "my grid; or 'yours'.yaml")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    root = '50% of "it\'s" $HOME (all)'
    own = ["grid=my grid; or 'yours'.yaml", *grid.arguments[1:], f"results_root={root}"]
    written = grid.command("bench.sweep", *own, "profile=lab", "scripts_only=true")
    assert written.returncode == 0, written.stderr

    def pasted(line: str) -> str:
        done = subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    (sbatch,) = [line for line in written.stdout.splitlines() if line.startswith("sbatch ")]
    pasted(sbatch)
    done = grid.command("bench.sweep", *own, "profile=lab", "wait=true")
    assert done.returncode == 0, done.stdout + done.stderr
    (submission,) = (tmp_path / root / "slurm").glob("my_*")
    assert len(list(submission.glob("*_0_log.out"))) == 2
    (status,) = [x for x in written.stdout.splitlines() if x.startswith("check status with: ")]
    assert "2 runs: 2 done" in pasted(status.removeprefix("check status with: "))
    (figure,) = [line for line in done.stdout.splitlines() if line.startswith("next: ")]
    assert shlex.split(figure)[-1] == f"results_root={root}"
