"""Boost-DD: blocks that join one after the other, and sets within the set."""

import io
import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import Environment, RunConfig
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation
from bench.evaluation.evaluation import Evaluation
from bench.evaluation.fresh_networks import evaluate
from bench.run import Console
from bench.runs.execute import execute
from bench.runs.measurements import Measurements
from bench.runs.run_folder import Store
from bench.training.setup import load_data
from tests.bench.distillation.applied import coming_problem


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    """Three blocks of two images a class, three outer steps each."""
    given = {**parse(tiny, RunConfig), "ipc": 6, "boost_block": 2, "outer_steps": 9}
    return single_run("quick", {**given, "outer_lr": 0.05, "learn_labels": True})


def first_images(values: Tensor, count: int) -> Tensor:
    """The first images of each class, found one by one."""
    per_class = len(values) // 10
    return torch.stack([values[c * per_class + j] for c in range(10) for j in range(count)])


def parts(distillation: Distillation) -> tuple[Tensor, Tensor]:
    """All images and labels, of blocks that have not joined too."""
    state = distillation.parameters.state()
    return state["images"].clone(), state["labels"].clone()


def test_inner_training_sees_the_blocks_that_have_joined_class_by_class(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(config, digits)
    seen = []
    for _ in range(9):
        problem = coming_problem(distillation)
        count = len(problem.images) // 10
        images, _ = parts(distillation)
        assert torch.equal(problem.images, first_images(images, count))
        assert problem.labels.argmax(dim=1).tolist() == [c for c in range(10) for _ in range(count)]
        seen.append(count)
        distillation.outer_step()
        assert len(distillation.images) == 10 * count
        assert distillation.is_whole == (count == 6)
    assert seen == [2, 2, 2, 4, 4, 4, 6, 6, 6]
    assert len(distillation.images) == 60


def test_the_first_images_of_each_class_are_those_of_a_run_without_boosting(
    config: RunConfig, digits: TargetSet
) -> None:
    whole = Distillation(replace(config, boost_block=0), digits)
    assert torch.equal(parts(Distillation(config, digits))[0], whole.images)
    assert torch.equal(parts(Distillation(config, digits))[1], whole.labels)


def test_under_strong_boosting_no_bit_of_an_earlier_block_changes_once_another_has_joined(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(config, digits)
    for step in range(9):
        block = step // 3
        before = parts(distillation)
        distillation.outer_step()
        for old, new in zip(before, parts(distillation), strict=True):
            changed = (new != old).flatten(1).any(dim=1).view(10, 3, 2)
            assert changed[:, block].all()
            assert changed.sum() == changed[:, block].sum()
    moments = [own for group in distillation.outer_optimizer.moments for own in group]
    assert [own.steps.item() for own in moments] == [3.0] * 6


def test_under_weak_boosting_an_earlier_block_takes_exactly_beta_times_its_update(
    config: RunConfig, digits: TargetSet
) -> None:
    beta = 0.25
    config = replace(config, precision="float64", clipping="none", boost_beta=beta)
    digits = digits.to("cpu", torch.float64)
    weak = Distillation(config, digits)
    for _ in range(7):  # two earlier blocks; one of them has been updated at both rates
        weak.outer_step()
    free = Distillation(replace(config, boost_beta=1.0), digits)
    free.load_state(deepcopy(weak.state()))
    before = parts(weak)[0].view(10, 3, 2, 64)
    weak.outer_step()
    free.outer_step()
    of_weak, of_free = (parts(one)[0].view(10, 3, 2, 64) - before for one in (weak, free))
    assert of_free[:, :2].abs().min() > 1e-8
    torch.testing.assert_close(of_weak[:, :2], beta * of_free[:, :2], rtol=1e-8, atol=1e-15)
    assert torch.equal(of_weak[:, 2], of_free[:, 2])


@pytest.mark.parametrize("factor", [0.0, 0.3])
def test_only_what_is_updated_counts_in_the_norm_that_is_conditioned(
    config: RunConfig, digits: TargetSet, factor: float
) -> None:
    distillation = Distillation(replace(config, boost_beta=factor), digits)
    for _ in range(4):
        distillation.outer_step()
    gradient = distillation.meta_gradient(distillation.window(4))
    assert gradient.labels is not None
    images, labels = gradient.images.view(10, 4, 64), gradient.labels.view(10, 4, 10)
    first = 2 if factor == 0 else 0
    counted = torch.cat([images[:, first:].flatten(), labels[:, first:].flatten()])
    assert distillation.outer_step().gradient_norm == pytest.approx(counted.norm().item(), rel=1e-5)


@pytest.mark.parametrize("factor", [0.0, 0.3])
@pytest.mark.parametrize("stop", [2, 3, 4, 8])
def test_a_boosted_set_goes_on_from_a_checkpoint_bit_for_bit(
    config: RunConfig, digits: TargetSet, factor: float, stop: int
) -> None:
    config = replace(config, boost_beta=factor)
    whole, first, second = (Distillation(config, digits) for _ in range(3))
    expected = [replace(whole.outer_step(), seconds=0.0) for _ in range(9)]
    for _ in range(stop):
        first.outer_step()
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    second.load_state(torch.load(file, weights_only=True))
    found = [replace(second.outer_step(), seconds=0.0) for _ in range(9 - stop)]
    assert found == expected[stop:]
    for one, other in zip(parts(second), parts(whole), strict=True):
        assert torch.equal(one, other)


def test_a_set_that_lacks_a_block_is_never_the_best_one(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(config, digits)
    perfect = Evaluation([1], torch.ones(2, 1), torch.ones(2, 1))
    heartbeat: Any = None
    measurements = Measurements(distillation, heartbeat, lambda: None)
    for _ in range(9):
        assert measurements.best is None
        measurements.update_best(perfect)
        distillation.outer_step()
        if distillation.step > 6:
            break
    measurements.update_best(perfect)
    assert measurements.best is not None
    assert len(measurements.best.images) == 60


def test_the_accuracy_of_a_prefix_is_that_of_the_truncated_set(
    config: RunConfig, digits: TargetSet, cache_root: Path, tmp_path: Path
) -> None:
    config = replace(config, boost_beta=0.5, inner_ipc=3)
    folder = Store(tmp_path).run(config)
    folder.create(config)
    result = execute(folder, Environment(cache_root=str(cache_root), threads=1), Console(config))
    lines = (folder.path / "measurements.jsonl").read_text().splitlines()
    measurements = map(json.loads, lines)
    ipc_by_step = {line["step"]: line["ipc"] for line in measurements if "ipc" in line}
    assert ipc_by_step == {0: 2, 2: 2, 4: 4, 6: 4, 8: 6, 9: 6}
    stored = safetensors.torch.load_file(folder.path / "distilled.safetensors")
    assert stored["images"].shape == (60, 1, 8, 8)
    prefixes = [dict(each) for each in result["prefixes"]]
    assert [each.pop("ipc") for each in prefixes] == [2, 4, 6]
    assert prefixes[-1] == result["evaluation"]
    target_set = load_data(config, Environment(cache_root=str(cache_root)), torch.device("cpu"))
    for number, count in enumerate((2, 4)):
        expected = evaluate(
            config,
            target_set,
            *(first_images(stored[name], count) for name in ("images", "labels")),
            networks=config.evaluation_networks,
            steps=config.evaluation_steps,
            purpose="evaluation",
        )
        assert prefixes[number] == expected.summary(config.selection)
