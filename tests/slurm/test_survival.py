"""Whatever happens to its job, a run ends once, with the metrics of an undisturbed one; and its
status is right meanwhile, on a cluster without accounting."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.runs.run_folder import RunFolder
from tests.slurm.lab import Lab
from tests.waiting import wait_until

Outcomes = Callable[[Path], dict[str, Any]]
LabGrid = Any  # see conftest.py


def starts(run: RunFolder) -> list[int]:
    """The outer steps at which the starts of a run began."""
    manifest = run.read("manifest") or {"starts": []}
    return [start["step"] for start in manifest["starts"]]


def worker(run: RunFolder) -> psutil.Process:
    """The process that makes a run."""
    beat = run.read("progress")
    assert beat is not None
    return psutil.Process(beat["pid"])


@contextmanager
def closed(lab: Lab, *partitions: str) -> Iterator[None]:
    """These start no jobs meanwhile, so that one that was requeued can be seen to wait."""
    try:
        for name in partitions:
            lab.scontrol("update", f"PartitionName={name}", "State=DOWN")
        yield
    finally:
        for name in partitions:
            lab.scontrol("update", f"PartitionName={name}", "State=UP")


def node_of(lab: Lab, job: str) -> str:
    """The node that a job is on."""
    return lab.squeue("-h", "-j", job, "-o", "%N").strip()


def test_signal_preemption_requeue_and_a_node_set_down_cost_a_run_nothing_but_time(
    lab: Lab, lab_grid: Callable[..., LabGrid], tmp_path: Path, outcomes: Outcomes
) -> None:
    grid = lab_grid("Slow", "Low", seeds=3)
    # The methods' names have a colon, so the profile is a file.
    (tmp_path / "site.yaml").write_text(
        "{time_min: 30, gpus: 0, cpus: 1, mem_gb: 2, signal_s: 60,"
        " methods: {'own:Low': {partition: low, cpus: 2}}}\n"
    )
    for selection in (["only=own:Low", "seeds=1"], ["only=own:Slow"]):
        arguments = [*grid.arguments, "profile=site.yaml", "threads=1", *selection]
        sent = grid.command("bench.sweep", *arguments)
        assert sent.returncode == 0, sent.stderr
    signalled, requeued, moved = (grid.run("Slow", seed) for seed in range(3))
    preempted = grid.run("Low")
    for run in (signalled, requeued, moved, preempted):
        grid.wait(run, "running", step=3)

    down = node_of(lab, grid.job(moved))
    with closed(lab, "normal", "low"):
        lab.run("scancel", "--signal=USR2", grid.job(signalled))
        lab.scontrol("requeue", grid.job(requeued))
        wanted = ("-w", node_of(lab, grid.job(preempted)), "-c", "2", "-o", "/dev/null")
        lab.run("sbatch", "-p", "high", *wanted, "--wrap=true")
        waiting = grid.wait(signalled, "waiting")
        assert waiting.step >= 3
        assert "job " in waiting.cause
        grid.wait(requeued, "waiting")
        grid.wait(preempted, "waiting")
    lab.set_down(down)
    for run in (signalled, requeued, moved, preempted):
        grid.wait(run, "running", step=3)
    grid.hurry()
    wait_until(lambda: set(grid.states()) == {"done"}, "all runs to end")
    lab.resume(down)

    for run in (signalled, requeued, moved, preempted):
        assert len(starts(run)) >= 2, run.name
    # The signal and a preemption with a signal leave a checkpoint of the very step.
    log = grid.submission(signalled).log(0).read_text()
    assert "Requeued job" in log
    assert outcomes(tmp_path / "results") == outcomes(grid.undisturbed())


def test_what_cannot_go_on_by_itself_is_named_and_sent_again_when_asked(
    lab: Lab, lab_grid: Callable[..., LabGrid], tmp_path: Path, outcomes: Outcomes
) -> None:
    methods = ("Slow", "Raises", "Huge", "Low")
    grid, more = lab_grid(*methods), lab_grid(*methods, seeds=4)
    assert more.sweep("only=own:Slow", "mem_gb=2").returncode == 0
    assert grid.sweep("only=own:Raises,own:Huge", "mem_gb=1.5").returncode == 0
    # In a job of so few minutes every signal counts as a time limit.
    assert grid.sweep("only=own:Low", "time_min=5", "max_requeues=0").returncode == 0
    killed, all_killed, cancelled, well = (grid.run("Slow", seed) for seed in range(4))
    raises, huge, late = grid.run("Raises"), grid.run("Huge"), grid.run("Low")
    for run in (killed, all_killed, cancelled, well, late):
        grid.wait(run, "running", step=3)

    worker(killed).kill()
    job = grid.job(all_killed)
    warden = worker(all_killed).parent()
    assert warden is not None
    for process in (warden, worker(all_killed)):
        process.kill()
    lab.run("scancel", grid.job(cancelled))
    lab.run("scancel", "--signal=USR2", grid.job(late))

    grid.wait(killed, "failed")
    assert grid.status(killed).kind == "killed"
    assert grid.wait(raises, "failed").cause == "error: RuntimeError: three is too much"
    assert grid.wait(huge, "failed").kind == "out of memory"
    assert grid.wait(cancelled, "failed").kind == "cancelled"
    assert grid.wait(late, "failed").kind == "time-out"
    silenced = grid.wait(all_killed, "failed")
    assert silenced.kind == "killed"
    assert job in silenced.cause
    assert grid.status(well).state == "running"  # the others' ends are not its business

    status = grid.command("bench.status", *grid.arguments)
    assert "4 runs: 4 failed" in status.stdout, status.stdout
    (tmp_path / "mended").touch()
    (tmp_path / "small").touch()
    grid.hurry()
    oom = grid.sweep("retry=oom")
    assert ": 1 run, " in oom.stdout, oom.stdout + oom.stderr
    rest = more.sweep("retry=failed,lost")
    assert ": 4 runs, " in rest.stdout, rest.stdout + rest.stderr  # as many as fit into an array
    assert ": 1 run, " in rest.stdout
    wait_until(lambda: set(grid.states()) == {"done"}, "all runs to end")
    assert outcomes(tmp_path / "results") == outcomes(grid.undisturbed())


def test_of_two_live_copies_of_a_job_one_writes_and_the_other_leaves(
    lab: Lab, lab_grid: Callable[..., LabGrid], tmp_path: Path, outcomes: Outcomes
) -> None:
    grid = lab_grid("Slow")
    grid.sweep()
    (run,) = grid.runs
    grid.wait(run, "running", step=3)
    first = worker(run)
    node = node_of(lab, grid.job(run))
    lab.kill_daemon(node)
    lab.restart_controller()  # in the middle of it all
    wait_until(lambda: len(starts(run)) == 2, "the job to be started on another node")
    wait_until(lambda: not first.is_running(), "the first copy to leave")
    assert "has taken the run over" in (run.path / "log.txt").read_text()
    assert grid.status(run).state == "running"
    lab.start_node(node)
    grid.hurry()
    grid.wait(run, "done")
    lab.wait_until_up(node)
    assert starts(run)[1] >= 3
    assert outcomes(tmp_path / "results") == outcomes(grid.undisturbed())


def test_a_request_that_can_never_be_served_is_blocked_with_the_reason(
    lab: Lab, lab_grid: Callable[..., LabGrid]
) -> None:
    grid = lab_grid("Slow", "Low")
    grid.sweep("cpus=99", "only=own:Slow", "seeds=2")
    grid.sweep("only=own:Low", "sbatch.hold=true")
    many, held, other = grid.run("Slow"), grid.run("Low"), grid.run("Slow", 1)
    assert "PartitionConfig" in grid.wait(many, "blocked").cause
    assert "JobHeldUser" in grid.wait(held, "blocked").cause
    waited = grid.sweep("wait=true")
    assert waited.returncode == 1
    assert waited.stderr.count("blocked: ") == 2
    assert "3 runs: 3 blocked" in grid.command("bench.status").stdout
    # SLURM keeps tasks that never started as one job.
    grid.sweep("cancel=true", "yes=true", "seeds=2")
    for run in (many, held, other):
        assert grid.wait(run, "failed").kind == "cancelled"


def test_status_without_the_scheduler_tells_what_the_files_say(
    lab: Lab, lab_grid: Callable[..., LabGrid], tmp_path: Path, environment: dict[str, str]
) -> None:
    grid = lab_grid("Slow")
    grid.sweep()
    (run,) = grid.runs
    grid.wait(run, "running", step=1)
    (tmp_path / "bin").mkdir()
    away = tmp_path / "bin" / "squeue"
    away.write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller (connect"
        " failure)' >&2\nexit 1\n"
    )
    away.chmod(0o755)
    environment["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    status = grid.command("bench.status")
    assert status.returncode == 0
    assert "SLURM does not answer" in status.stderr
    assert "1 run: 1 running" in status.stdout
    refused = grid.sweep()
    assert refused.returncode == 2
    assert "Unable to contact" in refused.stderr


def test_the_end_of_its_terminal_does_not_end_a_sweep_that_waits(
    lab: Lab, lab_grid: Callable[..., LabGrid], start: Callable[..., subprocess.Popen[str]]
) -> None:
    grid = lab_grid("Slow")
    waiting = start("bench.sweep", *grid.arguments, "profile=lab", "wait=true")
    wait_until(lambda: len(grid.runs) == 1, "the submission")
    (run,) = grid.runs
    grid.wait(run, "running", step=1)
    waiting.send_signal(signal.SIGINT)
    told, _ = waiting.communicate()
    assert waiting.returncode == 130
    assert "the jobs continue" in told
    assert grid.status(run).state == "running"
    grid.hurry()
    grid.wait(run, "done")


@pytest.mark.skipif(
    os.environ.get("BENCH_SLURM_TESTS") != "required",
    reason="takes two minutes: BENCH_SLURM_TESTS=required runs it",
)
def test_a_run_longer_than_its_time_limit_is_told_in_time_and_goes_on(
    lab: Lab, lab_grid: Callable[..., LabGrid], tmp_path: Path, outcomes: Outcomes
) -> None:
    grid = lab_grid("Slow")
    assert grid.sweep("time_min=2", "signal_s=55", "checkpoint_seconds=1000").returncode == 0
    (run,) = grid.runs
    grid.wait(run, "running", step=3)
    wait_until(lambda: len(starts(run)) == 2, "the time limit, and a second start")
    assert starts(run)[1] > 3  # from the checkpoint that the signal made it write
    log = grid.submission(run).log(0).read_text()
    assert log.count("Calling checkpoint method") == log.count("Requeued job") == 1
    grid.hurry()
    grid.wait(run, "done")
    assert outcomes(tmp_path / "results") == outcomes(grid.undisturbed())
