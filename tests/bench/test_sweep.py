"""Grids through the command, as a user meets them: plan, pool, kills, failures, status."""

import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.config.grid import load_grid
from bench.sweep import next_command, status_command, sweep_command
from tests.waiting import ESTIMATE, Gate, has_ended, wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Outcomes = Callable[[Path], dict[str, Any]]


@pytest.mark.parametrize(
    ("grid", "command"),
    [
        ("boosting", "python -m analysis.plot figure=9 scale=quick ipc=2"),
        ("efficiency", "python -m analysis.report scale=quick ipc=2"),
        ("{mine}", "python -m analysis.plot figure=5 'grid={mine}' scale=quick ipc=2"),
    ],
)
def test_a_sweep_names_the_command_that_shows_what_it_made(
    grid: str, command: str, tmp_path: Path
) -> None:
    mine = tmp_path / "of mine.yaml"
    mine.write_text("about: a grid of my own\nruns:\n  - {method: bptt}\n")
    grid, command = (text.format(mine=mine) for text in (grid, command))
    told = next_command(load_grid(grid), [f"grid={grid}", "scale=quick", "seed=3", "ipc=2"])
    assert told == command


@pytest.mark.slow
def test_a_sweep_runs_its_grid_and_does_nothing_twice(
    command: Command, tiny: list[str], tmp_path: Path, outcomes: Outcomes
) -> None:
    grid = ["bench.sweep", "grid=window_ablation", *tiny]
    first = command(*grid, "seeds=1")
    assert first.returncode == 0, first.stderr
    assert "4 runs: 4 waiting" in first.stdout
    assert ESTIMATE.search(first.stdout), first.stdout
    assert "4 runs: 4 done" in first.stdout
    assert "\x1b" not in first.stdout  # plain lines where there is no terminal
    before = outcomes(tmp_path / "results")
    assert len(before) == 4
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "results/runs").rglob("*")}

    second = command(*grid, "seeds=1")
    assert second.returncode == 0
    assert "nothing is left to do" in second.stdout
    for path, changed in times.items():
        assert path.stat().st_mtime_ns == changed

    in_process = [*grid, "only=forward_window", "launcher=inline"]
    more = command(*in_process, "seeds=2")
    assert "2 runs: 1 done, 1 waiting" in more.stdout
    assert more.returncode == 0

    rerun = command(*in_process, "seeds=1", "force=true")
    assert rerun.returncode == 0
    after = outcomes(tmp_path / "results")
    assert {name: after[name] for name in before} == before

    status = command("bench.status")
    assert "5 runs: 5 done" in status.stdout
    assert status.stdout.count("(n=2)") == 5
    selection = ["seeds=1", "only=forward_window"]
    for selected in (selection, ["seeds=1", "where.method=forward_window"]):
        of_grid = command("bench.status", "grid=window_ablation", *selected, *tiny)
        assert "1 run: 1 done" in of_grid.stdout


def test_the_commands_that_go_on_select_the_same_runs() -> None:
    which = ["grid=first_steps", "seeds=2", "only=bptt", "where.method_options.first=1", "ipc=2"]
    argv = [*which, "workers=1", "results_root=elsewhere"]
    for line in (sweep_command(argv, "quick"), status_command([*argv, "scale=quick"])):
        words = line.split()
        assert [*which, "results_root=elsewhere", "scale=quick"] == words[3:]


@pytest.mark.slow
def test_a_sweep_killed_half_way_finishes_when_started_again(
    command: Command, start: Start, gate: Gate, tiny: list[str], tmp_path: Path, outcomes: Outcomes
) -> None:
    (tmp_path / "mine.yaml").write_text(
        "runs: [{method: 'gated:Random'}, {method: 'gated:Backward'}, {method: bptt}]\n"
    )
    for method in ("gated:Random", "gated:Backward", "bptt"):
        run = [f"method={method}", "threads=1", *tiny, "results_root=undisturbed"]
        undisturbed = command("bench.run", *run)
        assert undisturbed.returncode == 0, undisturbed.stderr
    gate.open(2)
    # With two workers the third run has not begun when the sweep is killed.
    settings = ["grid=mine.yaml", "seeds=1", "threads=1", "workers=2", *tiny]
    sweep = start("bench.sweep", *settings, "checkpoint_seconds=0")
    gate.await_at(2, sweep)
    # First the sweep alone: its runs are orphans now. Then one of them.
    sweep.kill()
    sweep.wait()
    beats = (tmp_path / "results" / "runs").glob("*/progress.json")
    orphans = {json.loads(beat.read_text())["pid"]: beat.parent for beat in beats}
    assert sorted(orphans) == sorted(gate.waiting())
    killed = psutil.Process(next(iter(orphans)))
    killed.kill()
    wait_until(lambda: has_ended(killed), "the killed run's end")
    status = command("bench.status").stdout
    assert "1 lost" in status
    assert "1 running" in status
    gate.open()
    again = command("bench.sweep", *settings)
    assert again.returncode == 0, again.stderr + again.stdout
    assert outcomes(tmp_path / "results") == outcomes(tmp_path / "undisturbed")
    starts = [json.loads((run / "manifest.json").read_text())["starts"] for run in orphans.values()]
    assert [[start["step"] for start in each] for each in starts] == [[0, 2], [0]]


FAILING = """
import os, signal
from methods import StatelessMethod, Window

class Raises(StatelessMethod):
    def next_window(self, step, rng):
        if step == 3:
            raise RuntimeError("three is too much")
        return Window(0, self.window_size)

class Dies(Raises):
    def next_window(self, step, rng):
        os.kill(os.getpid(), signal.SIGKILL)

class Works(Raises):
    def next_window(self, step, rng):
        return Window(0, self.window_size)
"""


@pytest.mark.slow
def test_a_failing_run_is_named_with_its_cause_and_stops_no_other(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(FAILING)
    (tmp_path / "mine.yaml").write_text(
        "runs: [{method: 'own:Raises'}, {method: 'own:Dies'}, {method: 'own:Works'}]\n"
    )
    done = command("bench.sweep", "grid=mine.yaml", *tiny)
    assert done.returncode == 1
    assert "three is too much" in done.stderr
    assert "SIGKILL" in done.stderr
    assert "Traceback" not in done.stderr
    status = command("bench.status").stdout
    assert "3 runs: 1 done, 2 failed" in status

    (tmp_path / "own.py").write_text(FAILING.replace("raise RuntimeError", "print"))
    mended = command("bench.sweep", "grid=mine.yaml", *tiny)
    assert "1 done, 2 failed" in mended.stdout
    assert "2 done, 1 failed" in mended.stdout


@pytest.mark.slow
def test_runs_made_anew_show_their_old_results_until_they_have_new_ones(
    command: Command, tiny: list[str], tmp_path: Path, outcomes: Outcomes
) -> None:
    works = FAILING.replace("raise RuntimeError", "print")
    (tmp_path / "own.py").write_text(works)
    (tmp_path / "mine.yaml").write_text("runs: [{method: 'own:Raises'}]\n")
    sweep = ["bench.sweep", "grid=mine.yaml", "launcher=inline", "check_memory=false", *tiny]
    assert command(*sweep).returncode == 0
    before = outcomes(tmp_path / "results")
    (tmp_path / "own.py").write_text(FAILING)
    assert command(*sweep, "force=true").returncode == 1
    (run,) = (tmp_path / "results/runs").iterdir()
    assert not (run / "result.json").exists()
    status = command("bench.status").stdout
    assert "1 run: 1 failed" in status
    assert "(n=2) before" in status

    (tmp_path / "own.py").write_text(works)
    assert command(*sweep).returncode == 0
    assert outcomes(tmp_path / "results") == before
    assert not (run / "previous").exists()
    starts = json.loads((run / "manifest.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 0]  # neither is the old one's


def test_the_plan_runs_nothing(command: Command, tiny: list[str], tmp_path: Path) -> None:
    done = command("bench.sweep", "grid=window_ablation", "seeds=2", "dry_run=true", *tiny)
    assert done.returncode == 0, done.stderr
    assert "8 runs: 8 waiting" in done.stdout
    assert ESTIMATE.search(done.stdout), done.stdout
    assert not (tmp_path / "results").exists()


def test_on_a_terminal_the_progress_is_a_live_table(
    start: Start, gate: Gate, tiny: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("runs: [{method: 'gated:Random'}]\n")
    gate.open(2)
    master, slave = pty.openpty()
    sweep = start(
        "bench.sweep",
        "grid=mine.yaml",
        "seeds=2",
        *tiny,
        env={**environment, "TERM": "xterm", "COLUMNS": "140"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the terminal's other end is closed: the sweep has ended
            break
        if not part:
            break
        shown += part
        if b"running" in shown:
            gate.open()
    os.close(master)
    assert sweep.wait() == 0
    assert b"\x1b[" in shown
    assert b"running" in shown
    assert b"2 runs: 2 done" in shown


@pytest.mark.slow
def test_the_runs_can_be_made_in_this_process(command: Command, tiny: list[str]) -> None:
    grid = ["grid=window_ablation", "seeds=1", "only=forward_window,backward_window"]
    done = command("bench.sweep", *grid, "launcher=inline", *tiny)
    assert done.returncode == 0, done.stderr
    assert "2 runs: 2 done" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "grid=window_ablation"),
        (["grid=window_ablaton"], "window_ablation"),
        (["grid=window_ablation", "only=bptt"], "rat_bptt"),
        (["grid=window_ablation", "seds=3"], "did you mean seeds?"),
        (["grid=window_ablation", "workers=-1"], "workers=-1 must"),
        (["grid=window_ablation", "seeds=-1"], "seeds=-1 must"),
        (["grid=window_ablation", "scale=quick", "depth=5"], "depth=5"),
        (["grid=window_ablation", "launcher=slurmm"], "local"),
        (["grid=window_ablation", "scale=cpu", "data_root=nowhere"], "bench.prepare"),
    ],
)
def test_a_wrong_command_gets_one_line(
    command: Command, arguments: list[str], told: str, tmp_path: Path
) -> None:
    done = command("bench.sweep", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
    assert not list((tmp_path / "results").rglob("config.json"))


@pytest.mark.parametrize("module", ["bench.sweep", "bench.status", "bench.run"])
def test_help_and_status_need_no_torch(module: str, environment: dict[str, str]) -> None:
    # The claim is half a second; what makes it true is that torch is not imported.
    code = (
        "import sys, runpy\n"
        f"sys.argv = [{module!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "window_size=" in done.stdout


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["launcher=local", "profile=lab"], "profile= is for launcher=slurm"),
        (["launcher=inline", "time_min=60"], "time_min= is for launcher=slurm"),
        (["launcher=slurm", "workers=2"], "with SLURM, use parallel= instead"),
        (["profile=labb"], "there is no profile 'labb'; known: lab, single_gpu, template"),
        (["retry=oops"], "retry=oops is not one of failed, oom, lost"),
        (
            ["launcher=slurm", "time_min=1:00:00"],
            "time_min=1:00:00 is not a whole number (a time",
        ),
        (["launcher=slurm", "sbatch.time=60"], "sbatch.time is set by time_min"),
        (["launcher=slurm"], "SLURM's command"),
    ],
)
def test_what_a_cluster_is_asked_for_wrongly_is_refused_in_one_line(
    command: Command, environment: dict[str, str], given: list[str], told: str
) -> None:
    environment["PATH"] = ""  # no SLURM
    environment.pop("SLURM_CONF", None)
    done = command("bench.sweep", "grid=window_ablation", "scale=quick", *given)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_batch_scripts_can_be_written_where_there_is_no_slurm(
    command: Command, environment: dict[str, str], tiny: list[str], tmp_path: Path
) -> None:
    environment["PATH"] = "/usr/bin:/bin"
    environment.pop("SLURM_CONF", None)
    grid = [
        "grid=window_ablation",
        "seeds=1",
        "scripts_only=true",
        "methods.rat_bptt.mem_gb=80",
        *tiny,
    ]
    done = command("bench.sweep", *grid)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("sbatch ")]
    texts = [Path(line.split()[1]).read_text() for line in lines]
    assert [text.count("--mem=81920MB") for text in texts] == [1, 0]
    assert "--array=0-1%2" in texts[1]
    assert all("slurm.job" in text for text in texts)
    assert len(list((tmp_path / "results/runs").glob("*/job.json"))) == 4


def test_retry_makes_only_the_runs_that_it_names(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(FAILING)
    (tmp_path / "mine.yaml").write_text("runs: [{method: 'own:Raises'}, {method: 'own:Works'}]\n")
    grid = ["grid=mine.yaml", "launcher=inline", "check_memory=false", *tiny]
    command("bench.sweep", *grid, "only=own:Raises")
    none = command("bench.sweep", *grid, "retry=oom,lost")
    assert "no run is oom or lost" in none.stdout
    (tmp_path / "own.py").write_text(FAILING.replace("raise RuntimeError", "print"))
    again = command("bench.sweep", *grid, "retry=failed")
    assert "2 runs: 1 waiting, 1 failed" in again.stdout
    assert "2 runs: 1 done, 1 waiting" in again.stdout


def test_a_closed_terminal_stops_a_sweep_whose_runs_write_their_checkpoints(
    start: Start, gate: Gate, tiny: list[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "mine.yaml").write_text("runs: [{method: 'gated:Random'}]\n")
    gate.open(2)
    master, slave = pty.openpty()
    sweep = start(
        "bench.sweep",
        *("grid=mine.yaml", "seeds=1", "check_memory=false", "checkpoint_seconds=100000"),
        *(*tiny, "outer_steps=100000"),
        env={**environment, "TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    gate.await_at(1, sweep)
    os.close(master)
    (run,) = (psutil.Process(pid) for pid in gate.waiting())
    (folder,) = (tmp_path / "results/runs").iterdir()
    gate.open()
    assert sweep.wait() == 130
    assert has_ended(run)
    assert (folder / "checkpoint.pt").exists()
    assert json.loads((folder / "progress.json").read_text())["state"] == "stopped"


def test_a_sweep_goes_on_when_nobody_reads_its_output_any_more(
    start: Start, gate: Gate, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("runs: [{method: 'gated:Random'}, {method: bptt}]\n")
    gate.open(2)
    settings = ["grid=mine.yaml", "seeds=1", "workers=1", "check_memory=false", *tiny]
    sweep = start("bench.sweep", *settings)
    gate.await_at(1, sweep)
    assert sweep.stdout
    sweep.stdout.close()
    gate.open()
    assert sweep.wait() == 0
    folders = list((tmp_path / "results/runs").iterdir())
    assert [(folder / "result.json").exists() for folder in folders] == [True, True]
