"""Train fresh networks on a distilled set and measure their accuracy.

Small networks are trained together, large ones one after the other. Each network's initial
parameters, batches and augmentation are the same either way.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.data.target_set import Split
from bench.evaluation.evaluation import Evaluation, Measured
from bench.metagrad import MeanLoss, make_derivatives, networks_at_once, stacked_derivatives
from bench.networks import initial_parameters
from bench.training.batches import EpochBatches, InnerBatches, images_of_each_class
from bench.training.randomness import torch_generator
from bench.training.setup import make_evaluation_optimizer, make_network

FORWARD_BATCH = 1000  # images at once when accuracy is measured; changes memory only


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
    on_train: bool = False,
    measured: Measured | None = None,
    report: Callable[[int], None] = lambda trained: None,
    check: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Train fresh networks on a distilled set and measure each at every number of `steps`.

    The network, the optimizer of evaluations, the batches and the augmentation are those of
    `config`. No gradient flows through this training, so that inner_eps_form=published is torch's
    Adam here.

    Args:
        images: [classes*ipc, C, H, W], preprocessed like `target_set`.
        labels: [classes*ipc, classes].
        purpose, indices: names of the random draws: different evaluations have different networks,
            and the same evaluation of two methods has the same networks.
        on_train: also measure accuracy and loss on the training part, as selection=train does.
        measured: of the networks that are trained already; those of the others are added.
        report: called with the number of networks trained so far, when it changes.
        check: called after every training step; its exceptions end the evaluation.
    """
    trainees = [Trainee(images, labels, (*indices, k)) for k in range(networks)]
    return evaluate_trainees(
        config, target_set, trainees, steps, purpose, measured, report, check, on_train
    )


def evaluate_real_images(
    config: RunConfig,
    target_set: TargetSet,
    *,
    networks: int,
    steps: list[int],
    purpose: str,
    measured: Measured | None = None,
    report: Callable[[int], None] = lambda trained: None,
    check: Callable[[], None] = lambda: None,
) -> Evaluation:
    """The same with `ipc` random training images per class, others for each network: the baseline
    of a distilled set. The networks begin with other parameters than those of a distilled set, so
    differences between the two are not paired.

    Raises:
        UserError: some class has fewer than `ipc` training images.
    """
    classes = len(target_set.classes)
    labels = F.one_hot(torch.arange(classes).repeat_interleave(config.ipc), classes)
    trainees = [
        # The second index is that of the one network trained on these images.
        Trainee(images, labels.to(images), (k, 0))
        for k in range(networks)
        for images in [random_real_images(config, target_set, [config.ipc] * classes, k)]
    ]
    return evaluate_trainees(config, target_set, trainees, steps, purpose, measured, report, check)


def random_real_images(
    config: RunConfig, target_set: TargetSet, counts: list[int], k: int
) -> Tensor:
    """Random training images for network `k` [n, C, H, W], class by class, `counts` of each class.

    Raises:
        UserError: some class has fewer training images than the largest of `counts`.
    """
    train, most = target_set.train, max(counts)
    generator = torch_generator(config.seed, "real_images", k)
    by_class = images_of_each_class(train, len(counts), most, generator).split(most)
    chosen = torch.cat([part[:count] for part, count in zip(by_class, counts, strict=True)])
    return train.images[chosen.to(train.labels.device)]


# --- training


@dataclass(frozen=True)
class Trainee:
    """A network to train: its training set, and the indices of its random draws.

    Attributes:
        batch_size: of batches shuffled in each epoch; 0: the batches of inner training on a
            distilled set, which is ordered by class.
    """

    images: Tensor
    labels: Tensor
    key: tuple[int, ...]
    batch_size: int = 0


def evaluate_trainees(
    config: RunConfig,
    target_set: TargetSet,
    trainees: list[Trainee],
    steps: list[int],
    purpose: str,
    measured: Measured | None = None,
    report: Callable[[int], None] = lambda trained: None,
    check: Callable[[], None] = lambda: None,
    on_train: bool = False,
) -> Evaluation:
    """Train and measure one group of networks after the other. Their training sets have one size.

    Networks with the same purpose and key start with the same parameters, on any training set.

    Args:
        measured: of the first networks, which are trained already; those of the others are added.
    """
    steps = sorted(set(steps))  # a number that is given twice is measured once
    network = make_network(config, target_set)
    loss = MeanLoss(make_derivatives(network))
    at_once = _networks_at_once(config, network, loss, trainees[0], purpose)
    train = target_set.train if on_train or config.selection == "train" else None
    measured = [] if measured is None else measured
    if len(measured) < len(trainees):  # whole groups: others would round differently
        del measured[len(measured) // at_once * at_once :]
    for start in range(len(measured), len(trainees), at_once):
        group = trainees[start : start + at_once]
        rows: Measured = [[] for _ in group]
        for thetas in _train(config, network, loss, group, steps, purpose, check):
            for row, theta in zip(rows, thetas, strict=True):
                validation = accuracy(loss, theta, target_set.validation)
                test, finite = accuracy_and_finiteness(loss, theta, target_set.test)
                on_it = accuracy_and_loss(loss, theta, train) if train is not None else ()
                row.append([float(finite), validation, test, *on_it])
                check()
        measured += rows
        report(len(measured))
    finite, *accuracies = torch.tensor(measured).unbind(dim=-1)
    return Evaluation(steps, *accuracies, finite=finite)


def _train(
    config: RunConfig,
    network: nn.Module,
    loss: MeanLoss,
    group: list[Trainee],
    steps: list[int],
    purpose: str,
    check: Callable[[], None],
) -> Iterator[Tensor]:
    """Train a group of fresh networks together; yield their θ [k, P] at each number of steps."""
    theta = torch.stack(
        [_initial_theta(config, network, loss, trainee, purpose) for trainee in group]
    )
    batches = [_batches(config, trainee, purpose, steps[-1]) for trainee in group]
    stacked = stacked_derivatives(loss.derivatives)
    optimizer = make_evaluation_optimizer(config)
    state = optimizer.initial_state(theta)
    for t in range(steps[-1]):
        inner_batches = [
            batch(t, trainee.images, trainee.labels)
            for batch, trainee in zip(batches, group, strict=True)
        ]
        if len(group) == 1:
            gradient = loss.gradient(theta[0], *inner_batches[0])[0][None]
        else:
            images, labels = (torch.stack(part, dim=1) for part in zip(*inner_batches, strict=True))
            gradient = stacked.gradient(theta, images, labels) / len(images)
        theta, state = optimizer.step(theta, gradient, state, t)
        check()
        if t + 1 in steps:
            yield theta


def _initial_theta(
    config: RunConfig, network: nn.Module, loss: MeanLoss, trainee: Trainee, purpose: str
) -> Tensor:
    """The initial parameters [P] of a network."""
    generator = torch_generator(config.seed, f"{purpose}/network", *trainee.key)
    parameters = initial_parameters(network, generator)
    return loss.derivatives.flatten(
        {name: value.to(trainee.images) for name, value in parameters.items()}
    )


def _batches(
    config: RunConfig, trainee: Trainee, purpose: str, steps: int
) -> InnerBatches | EpochBatches:
    classes = trainee.labels.shape[1]
    augmentation = config.augment_evaluation
    if trainee.batch_size:
        return EpochBatches(config.seed, augmentation, purpose, trainee.key, trainee.batch_size)
    return InnerBatches(config, classes, augmentation, purpose, trainee.key, steps=steps)


def _networks_at_once(
    config: RunConfig, network: nn.Module, loss: MeanLoss, trainee: Trainee, purpose: str
) -> int:
    """How many networks like this one are trained together."""
    theta = _initial_theta(config, network, loss, trainee, purpose)
    batch = _batches(config, trainee, purpose, 0)(0, trainee.images, trainee.labels)
    return networks_at_once(network, loss.derivatives, theta, *batch)


@torch.no_grad()
def accuracy(loss: MeanLoss, theta: Tensor, split: Split) -> float:
    """Fraction of a split that the network classifies correctly; NaN for an empty split."""
    return accuracy_and_finiteness(loss, theta, split)[0]


@torch.no_grad()
def accuracy_and_finiteness(loss: MeanLoss, theta: Tensor, split: Split) -> tuple[float, bool]:
    """The same, and whether all logits are finite. Those that are not make an accuracy of chance,
    which says nothing about the training set."""
    if len(split.labels) == 0:
        return float("nan"), True
    counts = [
        torch.stack([(logits.argmax(dim=1) == labels).sum(), logits.isfinite().all().long()])
        for logits, labels in _logits(loss, theta, split)
    ]
    right, finite = torch.stack(counts).T
    return right.sum().item() / len(split.labels), bool(finite.all())


@torch.no_grad()
def accuracy_and_loss(loss: MeanLoss, theta: Tensor, split: Split) -> tuple[float, float]:
    """The same of a split that is not empty, and its mean cross-entropy."""
    counts = [
        torch.stack(
            [
                (logits.argmax(dim=1) == labels).sum(),
                F.cross_entropy(logits.double(), labels, reduction="sum"),
            ]
        )
        for logits, labels in _logits(loss, theta, split)
    ]
    right, total = torch.stack(counts).sum(dim=0).tolist()
    return right / len(split.labels), total / len(split.labels)


def _logits(loss: MeanLoss, theta: Tensor, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and labels, part by part."""
    for images, labels in zip(
        split.images.split(FORWARD_BATCH), split.labels.split(FORWARD_BATCH), strict=True
    ):
        yield loss.derivatives.logits(theta, images), labels
