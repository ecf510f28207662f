"""One bad small file is named with what to do about it, and hides no other run."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from analysis import load
from bench import evaluate, status, sweep
from bench import run as one_run
from bench.config.grid import expand, load_grid
from bench.config.run_config import RunConfig
from bench.runs.heartbeat import Heartbeat, progress_of
from bench.runs.json_files import OF_A_RUN, OF_A_SUBMISSION, misfit
from bench.runs.run_folder import RunFolder, Store
from bench.sweeps import local_launcher
from bench.system.errors import Damaged
from bench.system.files import write_json
from slurm.submission_record import Note

NAME = "grid-0123abcd"
SETTINGS = {"outer_steps": 50}
RESULT = {
    "evaluation": {
        "test_accuracy_mean": 0.5,
        "test_accuracy_std": 0.1,
        "selection": "validation",
        "n": 2,
    },
    "data": {"source": "made up", "fingerprint": "0"},
    "seconds": 1.0,
}
MANIFEST = {"data": {"fingerprint": "0"}, "starts": [], "threads": 1, "compiled": False}


@cache
def configs() -> list[RunConfig]:
    return expand(load_grid("window_ablation"), "quick", SETTINGS, 1)


def write_run(root: Path, config: RunConfig, *, finished: bool) -> RunFolder:
    """A run with every small file that there can be."""
    run = Store(root).run(config)
    run.create(config, "python -m bench.sweep grid=window_ablation outer_steps=50 scale=quick")
    run.write("job", asdict(Note(NAME, 0, 0.0)))
    run.write("manifest", MANIFEST)
    run.write("takeover", {"by": "7-0-abc"})
    with Heartbeat(run, 50):
        pass
    run.write("progress", {**(run.read("progress") or {}), "job": "7_0"})
    if finished:
        run.write("result", RESULT)
    else:
        run.write("error", {"kind": "diverged", "message": "so it was"})
        run.write("evaluations", {"of": "0", "made": {}})
        run.write("anew", {"time": "now"})
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[RunFolder]:
    """Four runs, of which the last is finished, and their submission."""
    made = [write_run(tmp_path, config, finished=k == 3) for k, config in enumerate(configs())]
    folder = tmp_path / "slurm" / NAME
    folder.mkdir(parents=True)
    record = {"runs": [run.name for run in made], "processes": 1, "place": [], "profile": {}}
    write_json(folder / "submission.json", record)
    write_json(folder / "accepted.json", {"job": "7", "time": "now"})
    return made


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`squeue("7|...")`: there is a SLURM whose squeue says so."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CONF", "faked")

    def make(answer: str) -> None:
        for name in ("squeue", "sbatch", "sinfo"):
            command = tmp_path / "bin" / name
            command.write_text(
                f"#!/bin/sh\ncat <<'END'\n{answer if name == 'squeue' else ''}\nEND\n"
            )
            command.chmod(0o755)

    return make


def wrong_types(content: dict[str, Any]) -> dict[str, Any]:
    return {key: [None] for key in content}


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


# What may have happened to a file, by name.
DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "a list": lambda path: path.write_text("[]"),
    "a number": lambda path: path.write_text("3"),
    "no keys": lambda path: path.write_text("{}"),
    "other keys": lambda path: path.write_text('{"other": 1}'),
    "other types": lambda path: path.write_text(
        json.dumps(wrong_types(json.loads(path.read_text())))
    ),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "too deep": lambda path: path.write_text("[" * 100_000),
    "a folder": as_folder,
    "not to be read": lambda path: path.chmod(0),
}
NEEDS_NO_ROOT = "not to be read"


def said_by_commands(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """What status, a dry sweep and the analysis say; none of them raises."""
    monkeypatch.setattr(local_launcher, "plan", lambda *arguments, **how: 1)  # measures nothing
    environment = [f"results_root={root}"]
    grid = ["grid=window_ablation", "scale=quick", "seeds=1", "outer_steps=50"]
    told = []
    capsys.readouterr()
    for main, arguments in ((status.main, []), (sweep.main, [*grid, "dry_run=true"])):
        assert main([*arguments, *environment]) == 0
        told.append(capsys.readouterr().out)
    found = load.load_results(
        load.stored_runs(root), load_grid("window_ablation"), "quick", SETTINGS, seeds=1
    )
    assert len(found.runs) + len(found.missing) == 4
    told.append(capsys.readouterr().err)
    return told


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_damaged_file_of_a_run_is_named_and_spares_the_others(
    runs: list[RunFolder], tmp_path: Path, name: str, kind: str
) -> None:
    if kind == NEEDS_NO_ROOT and os.geteuid() == 0:
        pytest.skip("nothing is unreadable for root")
    before = {run.name: progress_of(run) for run in runs}
    for run in [run for run in runs if (run.path / f"{name}.json").exists()]:
        path = run.path / f"{name}.json"
        kept = path.read_bytes()
        DAMAGES[kind](path)
        found = {each.name: progress_of(each) for each in Store(tmp_path).runs()}
        own = found.pop(run.name)
        assert found == {key: value for key, value in before.items() if key != run.name}
        assert own.damaged == (name,)
        assert str(path) in own.description
        needed = before[run.name].state != "done" or name in ("config", "result")
        assert own.state == ("damaged" if needed else "done")
        with pytest.raises(Damaged, match=path.name):
            run.config() if name == "config" else run.read(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.write_bytes(kept)
    assert {run.name: progress_of(run) for run in runs} == before


@pytest.mark.parametrize(("name", "kind"), [*zip(OF_A_RUN, [*DAMAGES][:9], strict=True)])
def test_commands_name_a_damaged_file_and_end_well(
    runs: list[RunFolder],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: str,
) -> None:
    run = next(run for run in reversed(runs) if (run.path / f"{name}.json").exists())
    path = run.path / f"{name}.json"
    DAMAGES[kind](path)
    by_status, by_sweep, by_analysis = said_by_commands(tmp_path, capsys, monkeypatch)
    assert str(path) in by_status
    assert str(path) in by_sweep
    assert (str(path) in by_analysis) is (name in ("config", "result", "manifest"))


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", [*OF_A_SUBMISSION, "all"])
def test_a_damaged_submission_is_named_and_its_jobs_still_known(
    runs: list[RunFolder],
    tmp_path: Path,
    squeue: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    name: str,
    kind: str,
) -> None:
    if kind == NEEDS_NO_ROOT and os.geteuid() == 0:
        pytest.skip("nothing is unreadable for root")
    for run in runs:
        run.remove("error.json", "anew.json")
    folder = tmp_path / "slurm" / NAME
    if name == "all":
        shutil.rmtree(folder)
    else:
        DAMAGES[kind](folder / f"{name}.json")
    path = folder / f"{'submission' if name == 'all' else name}.json"
    squeue(f"{NAME}|7|0|PENDING|Priority")
    assert status.main([f"results_root={tmp_path}"]) == 0
    queued = capsys.readouterr().out
    assert queued.count(str(path)) == 3
    cannot_start = name != "accepted"
    assert ("job 7_0 cannot start; end it with cancel=true" in queued) is cannot_start
    assert f"4 runs: 1 done, 3 {'damaged' if cannot_start else 'waiting'}" in queued
    squeue("")
    assert status.main([f"results_root={tmp_path}"]) == 0
    over = capsys.readouterr().out
    assert over.count(str(path)) == 3
    assert "4 runs: 1 done, 3 stopped" in over  # the same sweep sends them again


def test_results_slurm_may_be_gone_while_runs_are_not_finished(
    runs: list[RunFolder],
    tmp_path: Path,
    squeue: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    squeue("")
    shutil.rmtree(tmp_path / "slurm")
    for run in runs[:3]:
        run.remove("error.json", "anew.json", "progress.json")
    then = (1.0, 1.0)
    for run in runs:
        os.utime(run.path / "job.json", then)
    assert status.main([f"results_root={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "4 runs: 1 done, 3 lost" in said
    assert "submission.json is missing" in said


@pytest.mark.parametrize("change", ["edited", "a key deleted", "another scale"])
def test_a_changed_configuration_is_refused_everywhere_and_restored_by_the_command_that_is_named(
    runs: list[RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    for run in runs[:3]:
        run.remove("error.json", "anew.json", "evaluations.json")
        run.write("result", RESULT)
    path = runs[0].path / "config.json"
    whole = json.loads(path.read_text())
    changed = {**whole, "outer_steps": 20}
    if change == "a key deleted":
        changed = {key: value for key, value in whole.items() if key != "outer_steps"}
    if change == "another scale":  # which is no part of the name
        changed = {**whole, "scale": "puick"}
    path.write_text(json.dumps(changed))
    environment = f"results_root={tmp_path}"

    assert status.main([environment]) == 0
    said = capsys.readouterr().out
    assert "4 runs: 3 done, 1 damaged" in said
    advice = said.partition("restored by: ")[2].splitlines()[0].strip()
    for main, argument in ((one_run.main, "folder"), (evaluate.main, "distilled")):
        with pytest.raises(Damaged, match=r"config\.json was changed") as refused:
            main([f"{argument}={runs[0].path}", environment])
        assert advice in str(refused.value)
    stored = load.stored_runs(tmp_path)
    assert [run.folder.name for run in stored] == sorted(run.name for run in runs[1:])
    assert advice in capsys.readouterr().err

    python, option, module, *arguments = shlex.split(advice)
    assert [python, option, module] == ["python", "-m", "bench.sweep"]
    assert sweep.main([*arguments, "seeds=1", "launcher=local", environment]) == 0
    said = capsys.readouterr().out
    assert f"restored {path}" in said
    assert "nothing is left to do" in said  # the result stands; only its configuration was damaged
    assert {**json.loads(path.read_text()), "command": ""} == {**whole, "command": ""}
    assert len(load.stored_runs(tmp_path)) == 4


def test_a_renamed_folder_is_no_run(runs: list[RunFolder]) -> None:
    renamed = RunFolder(runs[0].path.rename(runs[0].path.with_name("mine")))
    with pytest.raises(Damaged, match=runs[0].name):
        renamed.config()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "it is no object of named values"),
        ({}, "it has no step"),
        ({"step": "3", "time": 1.0}, "step is '3'"),
        ({"step": True, "time": 1.0}, "step is True"),
        ({"step": 3, "time": float("nan")}, "time is nan"),
        ({"step": 3, "time": 1, "data": {}}, "data: it has no name"),
        ({"step": 3, "time": 1, "data": {"name": "../x"}}, "data: name is no name"),
        ({"step": 3, "time": 1, "more": None}, ""),
    ],
)
def test_what_is_wrong_is_said_in_few_words(content: Any, told: str) -> None:
    shape = {"step": int, "time": (int, float), "data?": {"name": OF_A_RUN["job"]["name"]}}
    assert misfit(content, shape) == told
