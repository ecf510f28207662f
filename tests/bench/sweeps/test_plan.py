"""How many runs fit, and what a sweep says before it starts any."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bench.config.grid import single_run
from bench.config.run_config import Environment
from bench.runs.run_folder import RunFolder
from bench.sweep import main
from bench.sweeps import plan
from bench.sweeps.cost_model import Estimate, Failure
from bench.sweeps.launcher import PlannedRun
from bench.system.errors import UserError
from tests.waiting import ESTIMATE, has_ended, wait_until

GIB = 2**30


def plan_with(
    answers: list[Estimate | Failure],
    free: int,
    monkeypatch: pytest.MonkeyPatch,
    slots: int = 4,
    **options: Any,
) -> int:
    """The plan of runs of which these things are known, on a machine with so much free."""
    monkeypatch.setattr(plan, "free_memory", lambda: free)
    monkeypatch.setattr(plan, "estimates", lambda configs, here, load: iter(answers))
    methods = ("rat_bptt", "bptt", "t_bptt", "r_bptt")
    runs = [
        PlannedRun(
            single_run("quick", {"method": method, **options.pop("settings", {})}),
            SimpleNamespace(path=Path("nowhere")),  # pyright: ignore[reportArgumentType]
        )
        for method, _ in zip(methods, answers, strict=False)
    ]
    return plan.plan(runs, Environment(), slots, **options)


def test_time_and_memory_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Estimate(12, 4 * GIB // 10), Estimate(31, GIB, spare_bytes=2 * GIB // 10)]
    assert plan_with([*found], 8 * GIB, monkeypatch) == 2
    last = capsys.readouterr().out.splitlines()[-1]
    told = "estimate: 12 s to 31 s a run, 0.4 to 1.2 GiB each, about 31 s in all with 2 at a time"
    assert last == told


def test_only_the_steps_that_are_left_are_counted() -> None:
    config = single_run("quick", {})
    folder = RunFolder(Path("nowhere"))
    runs = [PlannedRun(config, folder, step=step) for step in (0, 240)]
    told = plan.line([(run, Estimate(50, None)) for run in runs], 1)
    assert "10 s to 50 s a run" in told
    assert "about 1 min in all with 1 at a time" in told


def test_an_estimate_that_rests_on_fewer_images_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_with([Estimate(12, GIB), Estimate(31, GIB, scaled=True)], 8 * GIB, monkeypatch)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("estimate (scaled from fewer images): 12 s to 31 s a run, 1.0 GiB each")
    assert ESTIMATE.match(last)


def test_where_memory_cannot_be_measured_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan_with([Estimate(12, None)] * 3, 1, monkeypatch) == 3
    assert "memory: not measured" in capsys.readouterr().out


def test_fewer_runs_at_a_time_where_memory_allows_no_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = [Estimate(60, 2 * GIB, shared_bytes=GIB)] * 4
    assert plan_with([*shared], 9 * GIB, monkeypatch) == 4  # the data set is counted once
    assert "memory:" not in capsys.readouterr().out
    assert plan_with([*shared], 6 * GIB, monkeypatch) == 2
    out = capsys.readouterr().out
    assert "memory: 2 at a time instead of 4, which need about 9.0 GiB" in out
    assert "about 2 min in all with 2 at a time" in out


def test_workers_that_were_asked_for_are_refused_with_the_number_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match=r"workers=4 need about 8\.0 GiB.*workers=3 fit"):
        plan_with([Estimate(60, 2 * GIB)] * 4, 6 * GIB, monkeypatch, fixed=True)


def test_a_run_that_cannot_fit_is_refused_and_started_when_the_user_insists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [Estimate(60, GIB), Estimate(60, 9 * GIB)]
    with pytest.raises(UserError, match=r"^bptt .*9\.0 GiB.* 6\.0 GiB.*check_memory=false"):
        plan_with([*found], 6 * GIB, monkeypatch)
    assert plan_with([*found], 6 * GIB, monkeypatch, check_memory=False) == 2


def test_the_refusal_names_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="try engine=exact"):
        plan_with([Estimate(1, GIB)], 1, monkeypatch, settings={"engine": "higher"})
    with pytest.raises(UserError) as told:
        plan_with([Estimate(1, GIB)], 1, monkeypatch)
    assert "engine=exact" not in str(told.value)


def test_a_few_steps_that_already_take_too_much_are_a_refusal_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = [Failure("its process ended with status -9", out_of_memory=True)]
    with pytest.raises(UserError, match="rat_bptt cannot take even a few steps"):
        plan_with([*dead], GIB, monkeypatch)
    assert plan_with([*dead], GIB, monkeypatch, check_memory=False) == 1
    broken = [Failure("ValueError: no"), Estimate(5, 1)]
    assert plan_with([*broken], GIB, monkeypatch) == 2
    assert "no estimate of rat_bptt: ValueError: no" in capsys.readouterr().out


def test_on_gpus_only_the_runs_of_one_gpu_share_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_gpu = [Estimate(60, 2 * GIB, gpu_free_bytes=3 * GIB)] * 4
    assert plan_with([*on_gpu], 1, monkeypatch, gpus=4) == 4
    assert plan_with([*on_gpu], 1, monkeypatch, gpus=2) == 2


def test_a_sweep_that_needs_more_than_any_machine_has_is_refused(
    command: Callable[..., Any],
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The parameter copies of so many steps of even the smallest network; none are allocated.
    endless = ["unroll_length=1000000000", "window_size=1000000000"]
    sweep = ["grid=window_ablation", "only=forward_window", "seeds=1", *tiny, *endless]
    done = command("bench.sweep", *sweep)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "forward_window (seed 0) needs about" in done.stderr
    # A dry run says so too, and is as insistent as the user.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    huge = Estimate(60.0, 1 << 60)
    monkeypatch.setattr(plan, "estimates", lambda configs, here, load: iter([huge]))
    dry = [*sweep, "launcher=local", "dry_run=true"]
    with pytest.raises(UserError, match=r"forward_window \(seed 0\) needs about"):
        main(dry)
    assert main([*dry, "check_memory=false"]) == 0
    assert "estimate: " in capsys.readouterr().out
    assert not list(tmp_path.rglob("config.json"))


@pytest.mark.slow
def test_without_data_a_dry_run_shows_its_plan_and_says_what_the_runs_will_need(
    command: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    dry = ["grid=window_ablation", *tiny, "dataset=cifar10", "data_root=nowhere", "seeds=1"]
    done = command("bench.sweep", *dry, "dry_run=true")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (plan_line,) = (n for n, line in enumerate(lines) if line == "4 runs: 4 waiting")
    (needs,) = (n for n, line in enumerate(lines) if "nowhere for cifar10" in line)
    (told,) = (n for n, line in enumerate(lines) if ESTIMATE.match(line))
    assert plan_line < needs < told
    assert lines[-1] == "dry run: 4 runs would be started; none was"
    real = command("bench.sweep", *dry)
    assert real.returncode == 2
    assert "nowhere for cifar10 does not exist" in real.stderr
    assert not list(tmp_path.rglob("config.json"))


def test_the_plan_comes_before_all_measuring_and_ctrl_c_then_ends_everything(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    # At the paper's scale, so that measuring goes on for long enough to be interrupted.
    arguments = ["grid=methods_comparison", "scale=paper", "data_root=nowhere", "seeds=1"]
    sweep = start("bench.sweep", *arguments, "launcher=local", "dry_run=true")
    seen = ""
    while "measuring a few steps" not in seen:
        line = sweep.stdout.readline()
        assert line, sweep.stderr.read()
        seen += line
    assert "4 runs: 4 waiting" in seen
    assert "unroll_length=120" in seen
    while "the runs will need data" not in seen:  # the measuring process has begun its work
        seen += (line := sweep.stdout.readline())
        assert line, sweep.stderr.read()
    started = psutil.Process(sweep.pid).children(recursive=True)
    assert started
    sweep.send_signal(signal.SIGINT)
    out, err = sweep.communicate()
    assert sweep.returncode == 130
    assert out.splitlines()[-1] == "interrupted; no run was started"
    assert err == ""
    wait_until(lambda: all(map(has_ended, started)), "the processes to end")
