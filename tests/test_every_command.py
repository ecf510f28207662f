"""What every command refuses, with the reason; `tests/reliability` tries whatever can be typed.

Each command's `main` runs up to where it would compute: what it computes with is left out.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import bench.training.setup
from bench.data import TargetSet, load_target_set
from bench.system.errors import UserError
from tests.every_setting import Command, commands
from tests.reliability.strategies import NASTY
from tests.up_to_computing import START, Reached, replaced


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
    for owner, attribute, replacement in replaced():
        monkeypatch.setattr(owner, attribute, replacement)
    monkeypatch.setattr(bench.training.setup, "load_data", lambda *_: digits)

    def run(command: Command, argv: list[str]) -> None:
        with suppress(UserError, Reached):
            command.module.main(argv)

    return run


COMMANDS = {command.name: command for command in commands()}


OF_RUNS = [
    name for name in START if name not in ("tests.slurm.lab", "bench.speed", "bench.estimate")
]


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
        (f"results_root=/tmp/{'x' * 256}", f"results_root=/tmp/{'x' * 75}...: a name in the path"),
        (
            f"data_root={'é' * 128}",
            f"data_root={'é' * 80}...: a name in the path has more than 255",
        ),
    ],
)
def test_a_run_that_cannot_be_is_refused_by_every_command_with_the_reason(
    name: str, argument: str, message: str, main: Callable[[Command, list[str]], None]
) -> None:
    key = argument.partition("=")[0]
    if key not in COMMANDS[name].settings():
        message = f"{key} has no effect on this command"
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


@pytest.mark.parametrize("device", [*NASTY, "cuda:-1", "META"])
def test_a_device_is_there_or_refused(device: str) -> None:
    with suppress(UserError):
        chosen = bench.training.setup.choose_device(device)
        assert torch.ones(1, device=chosen).item() == 1
