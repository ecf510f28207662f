"""Train fresh networks on a distilled set and measure their accuracy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.batches import InnerBatches, make_inner_optimizer
from bench.config import RunConfig
from bench.data import TargetSet
from bench.data.target_set import Split
from bench.errors import UserError
from bench.ingredients import make_network
from bench.metagrad import MeanLoss, make_derivatives
from bench.networks import initial_parameters
from bench.randomness import torch_generator

FORWARD_BATCH = 1000  # images at once when accuracy is measured; changes memory only


@dataclass(frozen=True)
class Evaluation:
    """Accuracies of fresh networks, in [0, 1].

    Attributes:
        steps: training steps at which they were measured, ascending.
        validation: [networks, steps]; NaN where there is no validation part.
        test: [networks, steps].
    """

    steps: list[int]
    validation: Tensor
    test: Tensor

    def selected(self, selection: str) -> int:
        """Index into `steps` of the step count with the best mean accuracy on the part that
        `selection` names ("validation" or "test"); the earliest among equals."""
        judged = self.test if selection == "test" else self.validation
        return int(judged.mean(dim=0).argmax())

    def summary(self, selection: str) -> dict[str, Any]:
        """Plain numbers for records: mean, standard deviation (over networks, unbiased) and n of
        the accuracies at the selected step count, and every single accuracy behind them."""
        chosen = self.selected(selection)
        n = len(self.test)
        summary: dict[str, Any] = {"selection": selection, "steps": self.steps[chosen], "n": n}
        for part, values in (("validation", self.validation), ("test", self.test)):
            column = values[:, chosen]
            summary[f"{part}_accuracy_mean"] = column.mean().item()
            summary[f"{part}_accuracy_std"] = column.std().item() if n > 1 else None
        summary["all_steps"] = self.steps
        summary["all_validation"] = self.validation.tolist()
        summary["all_test"] = self.test.tolist()
        return summary


def evaluate(
    config: RunConfig,
    target_set: TargetSet,
    images: Tensor,
    labels: Tensor,
    *,
    networks: int,
    steps: list[int],
    purpose: str,
    indices: tuple[int, ...] = (),
    report: Callable[[int], None] = lambda trained: None,
) -> Evaluation:
    """Train fresh networks on a distilled set and measure each at every number of `steps`.

    The network, the inner optimiser, the batches and the augmentation are those of `config`.

    Args:
        images: [classes*ipc, C, H, W], preprocessed like `target_set`.
        labels: [classes*ipc, classes].
        purpose, indices: names of the random draws, so that different evaluations see different
            networks and the same evaluation of two methods sees the same.
        report: called with the number of networks trained so far.
    """
    steps = sorted(steps)
    network = make_network(config, target_set)
    validation, test = [], []
    for k in range(networks):
        key = (*indices, k)
        accuracies = [
            (
                accuracy(trained, theta, target_set.validation),
                accuracy(trained, theta, target_set.test),
            )
            for trained, theta in _train(config, network, images, labels, steps, purpose, key)
        ]
        validation.append([pair[0] for pair in accuracies])
        test.append([pair[1] for pair in accuracies])
        report(k + 1)
    return Evaluation(steps, torch.tensor(validation), torch.tensor(test))


def evaluate_real_images(
    config: RunConfig,
    target_set: TargetSet,
    *,
    networks: int,
    steps: list[int],
    purpose: str,
    report: Callable[[int], None] = lambda trained: None,
) -> Evaluation:
    """The same with `ipc` random training images a class, drawn anew for each network: what a
    distilled set has to beat.

    Raises:
        UserError: some class has fewer than `ipc` training images.
    """
    labels_of_train = target_set.train.labels.cpu()
    classes = len(target_set.classes)
    parts = []
    for k in range(networks):
        generator = torch_generator(config.seed, "real_images", k)
        shuffled = torch.randperm(len(target_set.train), generator=generator)
        by_class = [shuffled[labels_of_train[shuffled] == c][: config.ipc] for c in range(classes)]
        chosen = torch.cat(by_class)
        if len(chosen) < classes * config.ipc:
            raise UserError(f"ipc={config.ipc}: some class has fewer training images")
        images = target_set.train.images[chosen.to(target_set.train.images.device)]
        labels = F.one_hot(labels_of_train[chosen], classes).to(images)
        parts.append(
            evaluate(
                config,
                target_set,
                images,
                labels,
                networks=1,
                steps=steps,
                purpose=purpose,
                indices=(k,),
            )
        )
        report(k + 1)
    return Evaluation(
        sorted(steps),
        torch.cat([part.validation for part in parts]),
        torch.cat([part.test for part in parts]),
    )


def _train(
    config: RunConfig,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: list[int],
    purpose: str,
    key: tuple[int, ...],
):
    """Train one fresh network; yield (its loss, θ) at each number of steps."""
    classes = labels.shape[1]
    generator = torch_generator(config.seed, f"{purpose}/network", *key)
    parameters = initial_parameters(network, generator)
    loss = MeanLoss(make_derivatives(network))
    theta = loss.derivatives.flatten({name: value.to(images) for name, value in parameters.items()})
    batches = InnerBatches(config, classes, config.augment_evaluation, purpose, key)
    optimizer = make_inner_optimizer(config)
    state = optimizer.initial_state(theta)
    for t in range(steps[-1]):
        gradient, _ = loss.gradient(theta, *batches(t, images, labels))
        theta, state = optimizer.step(theta, gradient, state, t)
        if t + 1 in steps:
            yield loss, theta


@torch.no_grad()
def accuracy(loss: MeanLoss, theta: Tensor, split: Split) -> float:
    """Fraction of a split that the network classifies rightly; NaN for an empty split."""
    if len(split.labels) == 0:
        return float("nan")
    right = sum(
        (loss.derivatives.logits(theta, images).argmax(dim=1) == labels).sum()
        for images, labels in zip(
            split.images.split(FORWARD_BATCH), split.labels.split(FORWARD_BATCH), strict=True
        )
    )
    return float(right) / len(split.labels)
