"""The distilled set that a run begins with."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.outer_loop import (
    Distillation,
)
from bench.system.errors import UserError


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    given = parse(tiny, RunConfig)
    return single_run("quick", given)


def test_the_initial_images_have_norm_one_and_the_labels_are_one_hot(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(replace(config, ipc=3), digits)
    norms = distillation.images.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(30))
    assert distillation.labels.argmax(dim=1).tolist() == [c for c in range(10) for _ in range(3)]
    assert distillation.labels.sum(dim=1).tolist() == [1.0] * 30


@pytest.mark.parametrize("ipc", [1, 4])
def test_real_initial_images_are_training_images_of_their_classes_scaled_to_norm_one(
    config: RunConfig, digits: TargetSet, ipc: int
) -> None:
    distillation = Distillation(replace(config, init="real", ipc=ipc), digits)
    images = distillation.images.flatten(1)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(10 * ipc))
    train, validation, test = (
        F.normalize(split.images.flatten(1), dim=1)
        for split in (digits.train, digits.validation, digits.test)
    )
    distances, nearest = torch.cdist(images, train).min(dim=1)
    assert distances.max() < 1e-3
    assert len(set(nearest.tolist())) == 10 * ipc
    assert torch.equal(digits.train.labels[nearest], distillation.labels.argmax(dim=1))
    for other in (validation, test):
        assert torch.cdist(images, other).min() > 0.01


def test_real_initial_images_are_the_same_for_the_same_seed_alone(
    config: RunConfig, digits: TargetSet
) -> None:
    config = replace(config, init="real", ipc=2)
    images = Distillation(config, digits).images
    assert torch.equal(images, Distillation(replace(config, method="bptt"), digits).images)
    for other in (replace(config, seed=1), replace(config, init="noise")):
        different = (images - Distillation(other, digits).images).flatten(1).norm(dim=1)
        assert (different > 0.01).sum() >= 18


def test_updating_real_initial_images_leaves_the_target_set_alone(
    config: RunConfig, digits: TargetSet
) -> None:
    before = digits.train.images.clone()
    distillation = Distillation(replace(config, init="real"), digits)
    for _ in range(2):
        distillation.outer_step()
    assert torch.equal(digits.train.images, before)


def test_more_real_images_than_a_class_has_are_refused(
    config: RunConfig, digits: TargetSet
) -> None:
    with pytest.raises(UserError, match="ipc=200: some class has fewer"):
        Distillation(replace(config, init="real", ipc=200), digits)
