"""The final evaluation of a run: other networks, scores, and how it resumes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import bench.evaluate
import bench.scores
from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import Environment, RunConfig
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation
from bench.networks import initial_parameters
from bench.run import Console
from bench.runs import final_evaluation
from bench.runs.execute import Interrupted, execute
from bench.runs.measurements import Measurements
from bench.runs.run_folder import RunFolder, Store
from bench.system.errors import UserError


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    given = {**parse(tiny, RunConfig), "outer_steps": 2, "accuracy_every": 0, "variance_every": 0}
    given |= {"ipc": 2, "learn_labels": True, "outer_lr": 0.1}
    return single_run("quick", {**given, "scores": True, "transfer_to": ["wide_convnet"]})


def begin(config: RunConfig, root: Path, cache_root: Path) -> Callable[[], dict[str, Any]]:
    """Executes or resumes the run, and returns its result."""
    environment = Environment(cache_root=str(cache_root), results_root=str(root), threads=1)
    folder = Store(root).run(config)
    folder.create(config)
    return lambda: execute(folder, environment, Console(config))


@pytest.fixture
def run(config: RunConfig, cache_root: Path, tmp_path: Path) -> Callable[[], dict[str, Any]]:
    return begin(config, tmp_path, cache_root)


def folder_of(root: Path) -> RunFolder:
    (path,) = (root / "runs").iterdir()
    return RunFolder(path)


def recorded(root: Path, cache_root: Path, command: Any, *settings: str) -> dict[str, Any]:
    """What a command records of the run's distilled set."""
    known = set(root.glob("evaluations/*"))
    own = [f"distilled={folder_of(root).path}", f"cache_root={cache_root}", f"results_root={root}"]
    assert command.main([*own, *settings]) == 0
    (path,) = set(root.glob("evaluations/*")) - known
    return json.loads(path.read_text())


def test_the_result_says_of_other_networks_and_scores_what_the_commands_say(
    config: RunConfig, tmp_path: Path, cache_root: Path
) -> None:
    config = replace(config, evaluation_networks=1, evaluation_steps=[2])
    networks = ["wide_convnet", "alexnet"]  # one that takes the width, one that has none
    result = begin(replace(config, transfer_to=networks), tmp_path, cache_root)()
    assert [*result["transfers"]] == networks
    for arch in networks:
        record = recorded(tmp_path, cache_root, bench.evaluate, f"arch={arch}")
        assert result["transfers"][arch] == record["evaluation"]
    assert result["transfers"]["alexnet"] != result["transfers"]["wide_convnet"]
    assert recorded(tmp_path, cache_root, bench.evaluate)["evaluation"] == result["evaluation"]
    record = recorded(tmp_path, cache_root, bench.scores)
    assert result["scores"] == {key: record[key] for key in result["scores"]}
    own = result["scores"]["evaluations"]["distilled set, its own labels"]
    assert own == result["evaluation"]


def test_every_evaluation_of_a_run_leaves_out_the_biases_that_its_networks_leave_out(
    config: RunConfig,
    tmp_path: Path,
    cache_root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parameters: list[int] = []

    def noting(network: Any, generator: Any) -> dict[str, Any]:
        drawn = initial_parameters(network, generator)
        parameters.append(len(drawn))
        return drawn

    monkeypatch.setattr("bench.training.problem.initial_parameters", noting)
    monkeypatch.setattr("bench.evaluation.fresh_networks.initial_parameters", noting)
    one = {"evaluation_networks": 1, "evaluation_steps": [2], "accuracy_every": 1}
    config = replace(config, **one, conv_bias=False, accuracy_networks=1)
    result = begin(config, tmp_path, cache_root)()
    assert set(parameters) == {3 + 2}  # one block of weight, scale and shift; the linear layer
    capsys.readouterr()
    parameters.clear()
    again = recorded(tmp_path, cache_root, bench.evaluate)
    assert (again["evaluation"], again["config"]["conv_bias"]) == (result["evaluation"], False)
    assert "convnet (width 4, depth 1), convolutions without biases" in capsys.readouterr().out
    assert set(parameters) == {3 + 2}
    wide = recorded(tmp_path, cache_root, bench.evaluate, "arch=wide_convnet")
    assert wide["evaluation"] == result["transfers"]["wide_convnet"]
    parameters.clear()
    recorded(tmp_path, cache_root, bench.evaluate, "conv_bias=true")
    assert set(parameters) == {4 + 2}


def test_every_evaluation_of_a_run_takes_the_optimizer_of_evaluations(
    config: RunConfig, tmp_path: Path, cache_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sgd = {"inner_optimizer": "sgd", "inner_lr": 0.1, "inner_momentum": 0.9}
    adam = {"evaluation_optimizer": "adam", "evaluation_lr": 0.01}
    one = {"evaluation_networks": 1, "evaluation_steps": [4], "accuracy_every": 2}
    result = begin(replace(config, **sgd, **adam, **one), tmp_path, cache_root)()
    # The same evaluations, as of a set that was distilled with Adam.
    settings = ["evaluation_optimizer=inner", "inner_optimizer=adam", "inner_lr=0.01"]
    settings.append("inner_momentum=0")
    capsys.readouterr()
    evaluation = recorded(tmp_path, cache_root, bench.evaluate, *settings)["evaluation"]
    assert "training: adam, lr 0.01, augmentation none" in capsys.readouterr().out
    assert result["evaluation"] == evaluation
    wide = recorded(tmp_path, cache_root, bench.evaluate, "arch=wide_convnet", *settings)
    assert result["transfers"]["wide_convnet"] == wide["evaluation"]
    scores = recorded(tmp_path, cache_root, bench.scores, *settings)
    assert result["scores"] == {key: scores[key] for key in result["scores"]}
    # Without any setting a stored set is evaluated as its run did; other optimizers on request.
    assert recorded(tmp_path, cache_root, bench.evaluate)["evaluation"] == evaluation
    inner = recorded(tmp_path, cache_root, bench.evaluate, "evaluation_optimizer=inner")
    assert (inner["config"]["evaluation_lr"], inner["config"]["inner_lr"]) == (0.0, 0.1)
    assert inner["evaluation"] != evaluation
    with pytest.raises(UserError, match=r"inner_lr=0.2 has no effect: .*evaluation_optimizer=adam"):
        recorded(tmp_path, cache_root, bench.evaluate, "inner_lr=0.2")


def test_the_accuracy_that_is_measured_during_a_run_is_that_of_the_optimizer_of_evaluations(
    config: RunConfig, digits: TargetSet
) -> None:
    sgd = {"inner_optimizer": "sgd", "inner_lr": 0.1, "accuracy_every": 1, "accuracy_steps": 5}
    adam = {"evaluation_optimizer": "adam", "evaluation_lr": 0.01}
    heartbeat: Any = Mock()

    def first_accuracy(changed: RunConfig) -> list[list[float]]:
        measurements = Measurements(Distillation(changed, digits), heartbeat, lambda: None)
        return next(measurements.due())["all_test"]

    config = replace(config, **sgd)
    measured = first_accuracy(replace(config, **adam))
    by_adam = replace(config, inner_optimizer="adam", inner_lr=0.01)
    assert measured == first_accuracy(by_adam) != first_accuracy(config)


def test_a_run_that_is_stopped_in_its_end_trains_nothing_twice(
    run: Callable[[], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def stopping_at(stop: int) -> None:
        evaluate = final_evaluation.evaluate

        def counted(config: RunConfig, *given: Any, **settings: Any) -> Any:
            if len(made) == stop:
                raise Interrupted("stopped")
            made.append(config.arch)
            return evaluate(config, *given, **settings)

        monkeypatch.setattr(final_evaluation, "evaluate", counted)

    stopping_at(1)
    with pytest.raises(Interrupted):
        run()
    assert made == ["convnet"]
    monkeypatch.undo()
    stopping_at(9)
    result = run()
    assert made == ["convnet", "wide_convnet"]
    folder = folder_of(tmp_path)
    assert folder.read("evaluations") is None
    for name in ("checkpoint.pt", "result.json"):
        folder.remove(name)
    again = run()
    same = ("evaluation", "transfers", "scores")
    assert [again[key] for key in same] == [result[key] for key in same]


def test_what_was_found_of_another_set_is_not_taken_for_this_one_s(
    run: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    folder = folder_of(tmp_path)
    wrong = {"all_steps": [2], "all_validation": [[0.5]], "all_test": [[0.5]]}
    folder.write("evaluations", {"of": "another", "made": {final_evaluation.OWN: wrong}})
    assert run()["evaluation"]["n"] == 2


def test_a_run_says_on_which_network_it_is_at_work(
    run: Callable[[], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    told = capsys.readouterr().out
    for what in (
        "evaluating: 2",
        "evaluating on wide_convnet: 2",
        "evaluating full training set, hard",
    ):
        assert what in told


def test_scores_that_cannot_be_made_are_refused_before_the_first_outer_step(
    config: RunConfig, cache_root: Path, tmp_path: Path
) -> None:
    config = replace(config, ipc=200)
    folder = Store(tmp_path).run(config)
    folder.create(config)
    with pytest.raises(UserError, match="needs 200 random real images per class"):
        execute(folder, Environment(cache_root=str(cache_root), threads=1), Console(config))
    assert folder.records("metrics") == []
