"""A small bilevel problem in float64, and a way to compare two answers to it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.data import augment
from bench.metagrad import InnerOptimizer, MetaGradient, Problem
from bench.networks import ConvNet, initial_parameters
from bench.training.randomness import torch_generator

CLASSES, IPC, IMAGE_SHAPE = 3, 2, (2, 8, 8)


def whole_set(t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return images, labels


def subset(t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Three of the images, drawn for step `t`."""
    chosen = torch.randperm(len(images), generator=torch_generator(0, "subset", t))[:3]
    return images[chosen], labels[chosen]


def augmented_subset(t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same, flipped or rotated as drawn for step `t`."""
    images, labels = subset(t, images, labels)
    draw = augment.draw("flip_or_rotate", len(images), torch_generator(0, "augment", t))
    return augment.apply(images, draw.to(images.device)), labels


BATCHES = {"whole_set": whole_set, "subset": subset, "augmented_subset": augmented_subset}


def convnet() -> nn.Module:
    return ConvNet(IMAGE_SHAPE, CLASSES, width=4, depth=2)


def smooth_network() -> nn.Module:
    """Without kinks. Its tanh has no rule, so autograd differentiates it."""
    channels, height, width = IMAGE_SHAPE
    return nn.Sequential(
        nn.Conv2d(channels, 3, kernel_size=3, stride=2, padding=1),
        nn.GroupNorm(3, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(3 * (height // 2) * (width // 2), CLASSES),
    )


class AllRules(nn.Module):
    """Every layer that has a rule, each also where its input depends on parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.GroupNorm(2, 2)
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.GroupNorm(4, 4)
        self.relu = nn.ReLU()
        self.widest = nn.MaxPool2d(2)
        self.inner = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2, bias=False)
        self.pool = nn.AvgPool2d(2, stride=1)
        self.hidden = nn.Linear(6, 5)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.widest(self.relu(self.norm(self.stem(self.scale(images)))))
        x = self.pool(self.inner(x) + self.shortcut(x))
        return self.head(self.relu(self.hidden(torch.flatten(x, 1))))


NETWORKS = {"convnet": convnet, "smooth": smooth_network, "all_rules": AllRules}


def build_problem(
    optimizer: InnerOptimizer,
    *,
    batches: str = "whole_set",
    learn_labels: bool = False,
    network: str = "convnet",
) -> Problem:
    """`batches` is a key of `BATCHES`, `network` one of `NETWORKS`; labels are not normalized."""
    count = CLASSES * IPC
    generator = torch_generator(0, "distilled")
    module = NETWORKS[network]()
    initial = initial_parameters(module, torch_generator(0, "network"))
    hard_labels = torch.eye(CLASSES, dtype=torch.float64).repeat_interleave(IPC, dim=0)
    return Problem(
        network=module,
        parameters={name: tensor.double() for name, tensor in initial.items()},
        optimizer=optimizer,
        images=torch.randn(count, *IMAGE_SHAPE, dtype=torch.float64, generator=generator),
        labels=hard_labels
        + 0.1 * torch.rand(hard_labels.shape, dtype=torch.float64, generator=generator),
        inner_batch=BATCHES[batches],
        learn_labels=learn_labels,
    )


def relative_error(actual: MetaGradient, expected: MetaGradient) -> float:
    """The largest relative error, in the norm of each part, of the gradients and the outer loss."""
    pairs = [(actual.images, expected.images), (actual.outer_loss, expected.outer_loss)]
    assert (actual.labels is None) == (expected.labels is None)
    if actual.labels is not None and expected.labels is not None:
        pairs.append((actual.labels, expected.labels))
    assert all(ours.shape == theirs.shape for ours, theirs in pairs)
    assert all(theirs.norm() > 0 for _, theirs in pairs)
    return max(((ours - theirs).norm() / theirs.norm()).item() for ours, theirs in pairs)


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Problem]:
    """`build_problem`."""
    return build_problem


@pytest.fixture(scope="session")
def error() -> Callable[[MetaGradient, MetaGradient], float]:
    """`relative_error(actual, expected)`."""
    return relative_error


@pytest.fixture(scope="session")
def target() -> tuple[Tensor, Tensor]:
    """A target batch: images [5, C, H, W] and labels [5]."""
    images = torch.randn(
        5, *IMAGE_SHAPE, dtype=torch.float64, generator=torch_generator(0, "target")
    )
    return images, torch.tensor([0, 1, 2, 1, 0])
