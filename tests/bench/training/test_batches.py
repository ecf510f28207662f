"""The batches of inner training: drawn ahead or one by one, and what a trajectory waits for."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.config.run_config import RunConfig
from bench.metagrad import Adam, ExactEngine, Problem
from bench.networks import ConvNet, initial_parameters
from bench.system.choices import AUGMENTATIONS
from bench.training.batches import InnerBatches
from bench.training.randomness import torch_generator
from methods import Window

CLASSES, IPC = 4, 3
IMAGES = torch.randn(CLASSES * IPC, 2, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.eye(CLASSES).repeat_interleave(IPC, dim=0)
SUBSETS = {"all": (0, 0), "two_classes": (2, 0), "one_image_of_each": (0, 1)}


def batches(augmentation: str, subset: str, **options: int) -> InnerBatches:
    inner_classes, inner_ipc = SUBSETS[subset]
    config = replace(RunConfig(), ipc=IPC, inner_classes=inner_classes, inner_ipc=inner_ipc)
    return InnerBatches(config, CLASSES, augmentation, "inner", (7,), **options)


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_draws_made_ahead_are_those_made_one_by_one(augmentation: str, subset: str) -> None:
    one_by_one, ahead = batches(augmentation, subset), batches(augmentation, subset, steps=5)
    for t in (3, 0, 7, 4, 1, 7, 2):  # some beyond the expected steps, some again
        drawn_alone = batches(augmentation, subset)
        for answer in (ahead(t, IMAGES, LABELS), one_by_one(t, IMAGES, LABELS)):
            for part, expected in zip(answer, drawn_alone(t, IMAGES, LABELS), strict=True):
                assert torch.equal(part, expected)


class Waiting(TorchDispatchMode):
    """Notes every operation that brings a number to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(func) for word in ("_local_scalar_dense", "nonzero", "masked_select")):
            self.seen.append(str(func))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("subset", SUBSETS)
def test_a_trajectory_waits_for_nothing_once_its_batches_are_drawn(subset: str) -> None:
    network = ConvNet((2, 8, 8), CLASSES, width=4, depth=2)
    inner_batches = batches("flip_or_rotate", subset, steps=5)
    inner_batches(0, IMAGES, LABELS)
    problem = Problem(
        network,
        initial_parameters(network, torch_generator(0, "network")),
        Adam(0.01),
        IMAGES,
        LABELS,
        inner_batches,
        learn_labels=True,
    )
    target = IMAGES, LABELS.argmax(dim=1)
    with Waiting() as waiting:
        ExactEngine().meta_gradient(problem, Window(1, 5), *target)
    assert waiting.seen == []
    with waiting:
        batches("flip_or_rotate", subset)(0, IMAGES, LABELS)[0].sum().item()
    assert waiting.seen  # it does notice
