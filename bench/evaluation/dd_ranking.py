"""The scores of DD-Ranking: how much of a distilled set's accuracy is due to its images.

Soft labels and augmentation raise the accuracy of any images, random ones too, so an accuracy alone
does not say what the distilled images hold. Z. Li et al., "DD-Ranking: Rethinking the Evaluation of
Dataset Distillation" (2025, arXiv:2505.13300) compare two differences of test accuracies:

    HLR = acc(full training set, hard labels) - acc(distilled set, hard labels)
    IOR = acc(distilled set, its own labels)  - acc(random real images, the same labels)

    α = w IOR - (1 - w) HLR,    score = (exp(α) - exp(-1)) / (exp(1) - exp(-1)),    w = 1/2,

with accuracies in [0, 1], so that the score is in [0, 1] too. HLR (hard-label recovery) is the
better the lower, IOR (improvement over random) the better the higher.

What is done differently here. (1) The number of training steps is chosen for each of the accuracies
on the validation part; the published code takes the best test accuracy, also over five learning
rates. Here one configuration holds for all. (2) The published code has a teacher network label the
random images. A distilled set comes without its teacher: a random image of a class here gets the
labels of a distilled image of that class, which is the image's place in a set of ours and its
largest label in one made elsewhere. (3) The accuracies of network k are paired: they begin
with the same parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.run_config import RunConfig, images_per_class
from bench.data import TargetSet
from bench.evaluation.fresh_networks import Evaluation, Trainee, evaluate_trainees
from bench.system.choices import FULL, HARD, OWN, RANDOM, RANDOM_HARD
from bench.system.errors import UserError
from bench.training.batches import images_of_each_class
from bench.training.randomness import torch_generator

PURPOSE = "evaluation"  # the networks of `bench.evaluate`


@dataclass(frozen=True)
class Difference:
    """A difference of two accuracies, network by network, in [-1, 1].

    Attributes:
        each: [networks].
    """

    each: Tensor

    @property
    def mean(self) -> float:
        return self.each.mean().item()

    @property
    def std(self) -> float | None:
        """Over networks, unbiased; None for one network."""
        return self.each.std().item() if len(self.each) > 1 else None


@dataclass(frozen=True)
class Scores:
    """Accuracies by what the networks were trained on, and what follows from them."""

    evaluations: dict[str, Evaluation]
    selection: str

    @property
    def hard_label_recovery(self) -> Difference:
        """HLR: what the distilled images lack, with hard labels. The lower the better."""
        return self._difference(FULL, HARD)

    @property
    def improvement_over_random(self) -> Difference:
        """IOR: what the distilled images have over random ones. The higher the better."""
        return self._difference(OWN, RANDOM)

    def score(self, weight: float = 0.5) -> float:
        """The combined score in [0, 1], of the mean HLR and the mean IOR."""
        return combined(self.hard_label_recovery.mean, self.improvement_over_random.mean, weight)

    def figures(self) -> dict[str, Any]:
        """Plain numbers for records."""
        differences = {
            "hard_label_recovery": self.hard_label_recovery,
            "improvement_over_random": self.improvement_over_random,
        }
        return {
            "evaluations": {
                name: evaluation.summary(self.selection)
                for name, evaluation in self.evaluations.items()
            },
            **{
                name: {
                    "mean": one.mean,
                    "std": one.std,
                    "n": len(one.each),
                    "each": one.each.tolist(),
                }
                for name, one in differences.items()
            },
            "dd_ranking_score": {"score": self.score(), "weight": 0.5},
        }

    def _difference(self, one: str, other: str) -> Difference:
        return Difference(self._accuracies(one) - self._accuracies(other))

    def _accuracies(self, name: str) -> Tensor:
        """Test accuracies [networks] at the selected number of steps."""
        evaluation = self.evaluations[name]
        return evaluation.test[:, evaluation.selected(self.selection)].double()


def combined(hlr: float, ior: float, weight: float = 0.5) -> float:
    """The DD-Ranking score of a hard-label recovery and an improvement over random, each in
    [-1, 1]: 0 at the worst, 1 at the best, (1 - 1/e) / (e - 1/e) = 0.27 where both are 0.

    Args:
        weight: w, of the improvement over random; 1 - w is that of the recovery.
    """
    alpha = weight * ior - (1 - weight) * hlr
    return (math.exp(alpha) - math.exp(-1)) / (math.exp(1) - math.exp(-1))


def score(
    config: RunConfig,
    target_set: TargetSet,
    images: Tensor,
    labels: Tensor,
    *,
    classes: Tensor | None = None,
    report: Callable[[str, int], None] = lambda name, trained: None,
    check: Callable[[], None] = lambda: None,
    kept: Callable[[str, Callable[[], Evaluation]], Evaluation] = lambda name, make: make(),
) -> Scores:
    """Train `evaluation_networks` networks on each of the sets that the scores compare.

    Network, optimiser, learning rate and augmentation are those of `config` for all; the batches
    are too, except on the full training set: there `full_train_batch_size` images, shuffled
    anew in each epoch, for `full_train_steps`. Where the labels are hard already, nothing is
    trained twice.

    Args:
        images: [n, C, H, W], preprocessed like `target_set`.
        labels: [n, classes].
        classes: of each image [n]; by default that of its largest label.
        report: called with what is trained on, and with how many networks are trained.
        check: called after every training step; what it raises ends the scores.
        kept: given the name of an evaluation and what makes it, returns it; to hand out those that
            were made before.

    Raises:
        UserError: some class has fewer training images than distilled ones.
    """
    if classes is None:
        classes = labels.argmax(dim=1)
    # Class by class, so that random images lie like them.
    order = classes.argsort(stable=True)
    ours = (images, labels) if _in_order(order) else (images[order], labels[order])
    train, hard = target_set.train, F.one_hot(classes[order], labels.shape[1]).to(labels)
    full = (train.images, F.one_hot(train.labels, labels.shape[1]).to(labels))
    keys = range(config.evaluation_networks)
    real = [_random_images(config, target_set, hard, k) for k in keys]

    def trained(
        name: str, sets: list[tuple[Tensor, Tensor]], steps: list[int], size: int = 0
    ) -> Evaluation:
        trainees = [Trainee(*one, (k,), size) for k, one in enumerate(sets)]
        return kept(
            name,
            lambda: evaluate_trainees(
                config, target_set, trainees, steps, PURPOSE, partial(report, name), check
            ),
        )

    steps, full_train_steps = (
        config.evaluation_steps,
        config.full_train_steps or config.evaluation_steps,
    )
    found = {
        FULL: trained(FULL, [full for _ in keys], full_train_steps, config.full_train_batch_size)
    }
    found[OWN] = trained(OWN, [ours for _ in keys], steps)
    found[RANDOM] = trained(RANDOM, [(drawn, ours[1]) for drawn in real], steps)
    if torch.equal(hard, ours[1]):
        found |= {HARD: found[OWN], RANDOM_HARD: found[RANDOM]}
    else:
        found[HARD] = trained(HARD, [(ours[0], hard) for _ in keys], steps)
        found[RANDOM_HARD] = trained(RANDOM_HARD, [(drawn, hard) for drawn in real], steps)
    return Scores(found, config.selection)


def refuse_few_real_images(config: RunConfig, target_set: TargetSet) -> None:
    """Refuse, before a set is distilled, scores that its random real images cannot be drawn for.

    Raises:
        UserError: some class has fewer training images than there will be distilled ones.
    """
    counts = target_set.train.labels.bincount(minlength=len(target_set.classes))
    if (fewest := int(counts.min())) < (wanted := images_per_class(config)):
        raise UserError(
            f"scores=true draws {wanted} random real images a class, as many as are distilled, and"
            f" some class of {target_set.name} has {fewest} to train on"
        )


def _in_order(order: Tensor) -> bool:
    return bool((order[1:] > order[:-1]).all())


def _random_images(config: RunConfig, target_set: TargetSet, hard: Tensor, k: int) -> Tensor:
    """Training images for network k [n, C, H, W], class by class, as many of each class as `hard`
    has labels of it."""
    counts = hard.sum(dim=0).long().tolist()
    most = max(counts)
    generator = torch_generator(config.seed, "real_images", k)
    train = target_set.train
    drawn = images_of_each_class(train, len(counts), most, generator).split(most)
    chosen = torch.cat([part[:count] for part, count in zip(drawn, counts, strict=True)])
    return train.images[chosen.to(train.labels.device)]
