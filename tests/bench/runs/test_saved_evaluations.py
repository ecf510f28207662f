"""Evaluations go on after the last trained network, in runs and in commands."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import bench.evaluate
import bench.scores
from bench.config.command_line import command, parse
from bench.config.grid import single_run
from bench.config.run_config import Environment, RunConfig
from bench.data import TargetSet
from bench.evaluation import fresh_networks
from bench.evaluation.evaluation import Measured
from bench.evaluation.fresh_networks import evaluate
from bench.evaluation.interpretation import SubjectOptions
from bench.run import Console
from bench.runs.execute import Interrupted, execute
from bench.runs.run_folder import Store
from bench.system.errors import INTERRUPTED, Unwritable


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    given = {**parse(tiny, RunConfig), "outer_steps": 1, "accuracy_every": 0, "variance_every": 0}
    given |= {"evaluation_networks": 3, "evaluation_steps": [2, 4]}
    return single_run("quick", given)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many networks were trained at once, each time; at first one by one."""
    trained: list[int] = []
    own = fresh_networks._train

    def noting(config: RunConfig, network: Any, loss: Any, group: list[Any], *rest: Any) -> Any:
        trained.append(len(group))
        return own(config, network, loss, group, *rest)

    monkeypatch.setattr(fresh_networks, "_train", noting)
    monkeypatch.setattr(fresh_networks, "networks_at_once", lambda *given: 1)
    return trained


@pytest.mark.parametrize(
    ("at_once", "kept", "trained"),
    [
        (1, 0, [1, 1, 1]),
        (1, 1, [1, 1]),
        (1, 3, []),
        # A machine with other groups was at work: whole groups count.
        (2, 1, [2, 1]),
        (2, 2, [1]),
        (2, 3, []),
        (3, 2, [3]),
    ],
)
def test_what_is_measured_already_is_kept_and_the_rest_is_the_same(
    at_once: int,
    kept: int,
    trained: list[int],
    config: RunConfig,
    digits: TargetSet,
    groups: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = digits.train.images[:10], torch.eye(10)
    config = replace(config, selection="train")  # rows with accuracy and loss on the training part
    monkeypatch.setattr(fresh_networks, "networks_at_once", lambda *given: at_once)

    def evaluated(measured: Measured) -> Any:
        return evaluate(
            config,
            digits,
            images,
            labels,
            networks=3,
            steps=[2, 4],
            purpose="x",
            measured=measured,
            report=reports.append,
        )

    reports: list[int] = []
    rows: Measured = []
    whole = evaluated(rows).summary("train")
    assert (len(rows), len(rows[0]), len(rows[0][0])) == (3, 2, 5)
    groups.clear()
    reports.clear()
    again = json.loads(json.dumps(rows[:kept]))
    assert evaluated(again).summary("train") == whole
    assert again == rows
    assert groups == trained
    assert reports[-1:] == [3] * bool(trained)


def stop_after(networks: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training of a network after this many fails with `error`."""
    own, begun = fresh_networks._train, []

    def failing(*given: Any) -> Any:
        begun.append(given)
        if len(begun) > networks:
            raise error
        return own(*given)

    monkeypatch.setattr(fresh_networks, "_train", failing)


def test_a_run_that_is_stopped_in_an_evaluation_trains_no_network_twice(
    config: RunConfig, tmp_path: Path, cache_root: Path, groups: list[int]
) -> None:
    config = replace(config, transfer_to=["wide_convnet"], scores=True)

    def run_in(root: Path) -> tuple[Any, Callable[[], dict[str, Any]]]:
        environment = Environment(cache_root=str(cache_root), results_root=str(root), threads=1)
        folder = Store(root).run(config)
        folder.create(config)
        return folder, lambda: execute(folder, environment, Console(config))

    _, run = run_in(tmp_path / "whole")
    whole, count = run(), len(groups)
    assert count == 3 * 4  # its own, transfer, scores: the full training set and real images
    folder, run = run_in(tmp_path / "stopped")
    groups.clear()
    for stop in (1, 2, 4, 3):  # within the first, at its end, over two ends
        with pytest.MonkeyPatch.context() as patch:
            stop_after(stop, Interrupted("stopped"), patch)
            with pytest.raises(Interrupted):
                run()
        content = folder.read("evaluations")
        rows = content["begun"]["measured"] if len(groups) % 3 else []
        assert 3 * len(content["made"]) + len(rows) == len(groups)
    result = run()
    assert len(groups) == count
    same = ("evaluation", "transfers", "scores")
    assert [result[key] for key in same] == [whole[key] for key in same]
    assert folder.read("evaluations") is None


def save(digits: TargetSet, first: int, path: Path) -> None:
    """Ten images in [0, 1] with labels."""
    images = digits.train.images[first : first + 10]
    pixels = (images - images.min()) / (images.max() - images.min())
    torch.save({"images": pixels, "labels": torch.arange(10)}, path)


@pytest.fixture
def numbers(tmp_path: Path, digits: TargetSet) -> Path:
    path = tmp_path / "set.pt"
    save(digits, 0, path)
    return path


@pytest.mark.parametrize("kind", ["evaluate", "scores", "real_images"])
def test_a_command_that_is_interrupted_goes_on_after_the_last_network(
    kind: str,
    numbers: Path,
    tmp_path: Path,
    cache_root: Path,
    groups: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = ["evaluation_networks=3", "evaluation_steps=[2,4]", "zca=false", "scale=quick"]
    settings += ["dataset=digits", "width=4", "depth=1", f"cache_root={cache_root}", "threads=1"]
    named = "real_images" if kind == "real_images" else str(numbers)
    settings.append(f"distilled={named}")
    if kind == "scores":
        settings += ["full_train_steps=[3]", "full_train_batch_size=16"]
    else:
        settings.append("ipc=1")
    main = bench.scores.main if kind == "scores" else bench.evaluate.main

    def record(root: Path) -> dict[str, Any]:
        (path,) = (root / "evaluations").iterdir()
        return json.loads(path.read_text())

    assert main([*settings, f"results_root={tmp_path / 'whole'}"]) == 0
    count = len(groups)
    groups.clear()
    capsys.readouterr()
    root = tmp_path / "stopped"
    for stop in (2, 0):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(stop, KeyboardInterrupt(), patch)
            with pytest.raises(KeyboardInterrupt, match="resumes after the last saved network"):
                main([*settings, f"results_root={root}"])
        (unfinished,) = (root / "evaluations").iterdir()
        assert unfinished.suffix == ".part"
        assert len(groups) == 2
    assert main([*settings, f"results_root={root}"]) == 0
    assert len(groups) == count
    assert record(root) == record(tmp_path / "whole")


Interrupt = Callable[[], Path]


@pytest.fixture
def settings(numbers: Path, tmp_path: Path, cache_root: Path) -> list[str]:
    settings = [f"distilled={numbers}", "scale=quick", "width=4", "depth=1", "zca=false", "ipc=1"]
    settings += ["evaluation_networks=3", "evaluation_steps=[2]", "threads=1"]
    return [*settings, f"cache_root={cache_root}", f"results_root={tmp_path}"]


@pytest.fixture
def interrupt(settings: list[str], tmp_path: Path, groups: list[int]) -> Interrupt:
    """Interrupts an evaluation after two networks of three; returns what it saved."""

    def interrupted() -> Path:
        with pytest.MonkeyPatch.context() as patch:
            stop_after(2, KeyboardInterrupt(), patch)
            with pytest.raises(KeyboardInterrupt):
                bench.evaluate.main(settings)
        groups.clear()
        (path,) = (tmp_path / "evaluations").glob("*.part")
        return path

    return interrupted


def test_networks_of_another_set_or_a_damaged_file_are_not_used(
    settings: list[str],
    interrupt: Interrupt,
    numbers: Path,
    digits: TargetSet,
    groups: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupt()
    save(digits, 10, numbers)
    assert bench.evaluate.main(settings) == 0
    assert groups == [1, 1, 1]
    path = interrupt()
    path.write_text(path.read_text().replace("1.0", "0.0", 1))
    capsys.readouterr()
    assert bench.evaluate.main(settings) == 0
    assert groups == [1, 1, 1]
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("bench.system.git.commit", {"commit": "another", "uncommitted_changes": False}),
        ("bench.system.git.uncommitted_diff", b"another"),
        ("bench.system.versions.versions", {"torch": "another"}),
        ("torch.get_num_threads", 17),
        ("", None),
    ],
)
def test_networks_of_other_code_or_threads_are_not_used(
    what: str, changed: Any, settings: list[str], interrupt: Interrupt, groups: list[int]
) -> None:
    interrupt()
    with pytest.MonkeyPatch.context() as patch:
        if what:
            patch.setattr(what, lambda: changed)
        assert bench.evaluate.main(settings) == 0
    assert groups == [1] * (3 if what else 1)


def test_what_is_resumed_is_said(
    settings: list[str], interrupt: Interrupt, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt()
    capsys.readouterr()
    assert bench.evaluate.main(settings) == 0
    trained = [line for line in capsys.readouterr().out.splitlines() if "trained" in line]
    assert trained == ["trained 2 of 3 networks", "trained 3 of 3 networks"]


def test_a_full_disk_does_not_end_an_evaluation_before_its_accuracies_are_printed(
    settings: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: Any) -> None:
        raise Unwritable(path, OSError(errno.ENOSPC, ""))

    monkeypatch.setattr("bench.runs.subject.write_json", full)
    with pytest.raises(Unwritable, match=r"evaluations/set-\w+\.json cannot be written"):
        bench.evaluate.main(settings)
    assert "test accuracy" in capsys.readouterr().out


def test_ctrl_c_ends_the_command_with_one_line(
    settings: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(0, KeyboardInterrupt(), monkeypatch)
    monkeypatch.setattr("sys.argv", ["evaluate", *settings])
    with pytest.raises(SystemExit) as ended:
        command(bench.evaluate.main, "", SubjectOptions)
    assert ended.value.code == INTERRUPTED
    error = capsys.readouterr().err
    assert error == "interrupted; the same command resumes after the last saved network\n"
