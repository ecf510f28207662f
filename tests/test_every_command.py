"""Whatever is typed for a setting that is text, a command answers with a line, never a traceback.

Each command's `main` runs up to where it would compute: what it computes with is left out.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bench.evaluation.dd_ranking
import bench.evaluation.fresh_networks
import bench.training.setup
from bench.config.grid import load_grid, requested
from bench.data import TargetSet, load_target_set
from bench.system.errors import UserError
from tests.every_setting import Command, commands, member

NASTY = [
    *(
        "",
        " ",
        ".",
        "..",
        "-",
        ",",
        ":",
        "a:b",
        "/",
        "//",
        "/nonexistent",
        "/dev/null",
        "/proc/x/y",
    ),
    *(
        "x" * 300,
        "x" * 5000,
        "9" * 5000,
        "nan",
        "null",
        "???",
        "${x}",
        "{}",
        "[]",
        "[[]]",
        "{a: 1}",
    ),
    *(
        "random:Random",
        "bench.config.run_config:RunConfig",
        "é\U0001f600",
        "²",
        "٣",
        "\udcff",
        "a\nb",
        "%s",
    ),
    *(
        "~",
        "~nobody/x",
        "*",
        "x.yaml",
        "x.npz",
        ".yaml",
        "/dev/null.yaml",
        "cuda:99",
        "meta",
        "1e3",
    ),
]


class Reached(Exception):
    """The command would now compute."""


def compute(*_: Any, **__: Any) -> Any:
    raise Reached


def resolving(position: int) -> Callable[..., Any]:
    """In place of a function that reads results: resolve the runs of its request and stop.

    Args:
        position: of the request among the arguments.
    """

    def resolve_and_stop(*arguments: Any) -> Any:
        request = arguments[position]
        requested(load_grid("window_ablation"), request.scale, request.overrides)
        raise Reached

    return resolve_and_stop


@pytest.fixture(scope="module")
def digits(cache_root: Path) -> TargetSet:
    return load_target_set("digits", data_root=cache_root, cache_root=cache_root)


@pytest.fixture
def main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: TargetSet
) -> Callable[[Command, list[str]], None]:
    """Runs a command in an empty folder, without SLURM, up to where it would compute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez("set.npz", images=np.random.rand(10, 1, 8, 8), labels=np.arange(10))
    # First: this imports what others below replace, and would keep their replacements.
    monkeypatch.setattr("analysis.report_page.contents.report", resolving(0))
    monkeypatch.setattr("bench.sweeps.local_launcher.plan", compute)
    monkeypatch.setattr("bench.speed.__main__.measure_all", compute)
    monkeypatch.setattr("tests.slurm.lab.lab.Lab.start", compute)
    monkeypatch.setattr("analysis.figures.page.save", compute)
    monkeypatch.setattr("analysis.tables.beside_paper.beside_paper", resolving(1))
    monkeypatch.setattr("analysis.verdicts.judge.outcomes", resolving(1))
    monkeypatch.setattr(bench.evaluation.fresh_networks, "evaluate", compute)
    monkeypatch.setattr(bench.evaluation.fresh_networks, "evaluate_real_images", compute)
    monkeypatch.setattr(bench.evaluation.dd_ranking, "score", compute)
    monkeypatch.setattr("bench.anatomies.execute.Anatomy.execute", compute)
    monkeypatch.setattr(bench.training.setup, "load_data", lambda *_: digits)

    def run(command: Command, argv: list[str]) -> None:
        with suppress(UserError, Reached):
            command.module.main(argv)

    return run


SET = ["distilled=set.npz", "scale=quick", "dataset=digits"]
START: dict[str, list[str]] = {
    "bench.sweep": ["grid=window_ablation", "scale=quick", "dry_run=true"],
    "bench.run": ["scale=quick", "dry_run=true"],
    "bench.status": ["scale=quick", "grid=window_ablation"],
    "bench.evaluate": SET,
    "bench.scores": SET,
    "bench.anatomy": SET,
    "bench.prepare": ["download=false", "dataset=digits"],
    "bench.publish": ["scale=quick", "grid=window_ablation"],
    "bench.speed": [],
    "tests.slurm.lab": ["status"],
    "analysis.plot": ["scale=quick", "figure=1"],
    "analysis.table": ["scale=quick", "table=1"],
    "analysis.claims": ["scale=quick"],
    "analysis.report": ["scale=quick"],
}
COMMANDS = {command.name: command for command in commands()}


@pytest.mark.parametrize("name", START)
def test_no_text_is_answered_by_a_traceback(
    name: str, main: Callable[[Command, list[str]], None]
) -> None:
    command, wrong = COMMANDS[name], []
    unused = ["data_root", "cache_root", "device", "activation_memory"]
    for key, item in command.settings().items():
        if member(item) is not str or item.metadata["choices"]:
            continue
        if name.startswith("analysis") and key in unused:
            continue
        for value in NASTY:
            try:
                main(command, [*START[name], f"{key}={value}"])
            except Exception as error:
                wrong.append(f"{key}={value[:40]}: {type(error).__name__}: {error}"[:300])
    assert wrong == []


OF_RUNS = [name for name in START if name not in ("tests.slurm.lab", "bench.speed")]


@pytest.mark.parametrize("name", OF_RUNS)
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("method=random:Random", "method 'random:Random' is not a method"),
        (
            "method=bench.config.run_config:RunConfig",
            "method 'bench.config.run_config:RunConfig' is not a method",
        ),
        ("transfer_to={}", "transfer_to={} is not one of"),
        ("depth=digits", "depth=digits is not a whole number"),
        ("inner_classes=11", "inner_classes=11 is more than the 10 classes"),
    ],
)
def test_a_run_that_cannot_be_is_refused_by_every_command_with_the_reason(
    name: str, argument: str, message: str, main: Callable[[Command, list[str]], None]
) -> None:
    with pytest.raises(UserError) as refused:
        COMMANDS[name].module.main([*START[name], argument])
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    "argument", ["only=bench.config.run_config:RunConfig", "only=random:Random"]
)
def test_only_a_method_can_be_drawn(
    argument: str, main: Callable[[Command, list[str]], None]
) -> None:
    with pytest.raises(UserError, match="is not a method"):
        COMMANDS["analysis.plot"].module.main([*START["analysis.plot"], argument])


def test_what_keeps_every_figure_from_being_drawn_is_said_once(
    main: Callable[[Command, list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="inner_ipc=50 is more than ipc=1"):
        COMMANDS["analysis.plot"].module.main(["scale=quick", "figure=all", "inner_ipc=50"])
    notes = capsys.readouterr().err.splitlines()
    assert not [line for line in notes if "inner_ipc=50 is more than ipc=1" in line]
    assert len(notes) == len(set(notes))


@pytest.mark.parametrize("device", [*NASTY, "cuda:-1", "cuda:x", "cpu:99", "mps", "META"])
def test_a_device_is_there_or_refused(device: str) -> None:
    with suppress(UserError):
        chosen = bench.training.setup.choose_device(device)
        assert torch.ones(1, device=chosen).item() == 1


def test_every_command_is_here_but_the_one_that_reads_its_input() -> None:
    assert {*START, "bench.estimate"} == set(COMMANDS)
