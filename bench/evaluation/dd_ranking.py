"""The scores of DD-Ranking: how much of a distilled set's accuracy is due to its images.

Soft labels and augmentation raise the accuracy of any images, also of random ones, so an accuracy
alone does not measure the distilled images. Z. Li et al., "DD-Ranking: Rethinking the Evaluation of
Dataset Distillation" (2025, arXiv:2505.13300) compare two differences of test accuracies:

    HLR = acc(full training set, hard labels) - acc(distilled set, hard labels)
    IOR = acc(distilled set, its own labels)  - acc(random real images, the same labels)

    α = w IOR - (1 - w) HLR,    score = (exp(α) - exp(-1)) / (exp(1) - exp(-1)),    w = 1/2,

with accuracies in [0, 1], so that the score is in [0, 1] too. A lower HLR (hard-label recovery) and
a higher IOR (improvement over random) are better.

Differences to the published code (README.md in this folder has its sources). (1) The number of
training steps of each accuracy is selected on the validation part, with one configuration for all;
the published code takes the best test accuracy, also over five learning rates. (2) In the published
code a teacher network labels the random images. A distilled set comes without its teacher, so a
random image gets the labels of a distilled image of its class. The class of a distilled image is
given by its place in a set of ours, by its largest label in one made elsewhere. (3) The accuracies
of network k are paired: its initial parameters are the same on every training set. (4) The full
training set is trained on with the optimizer of all evaluations; the published code has another
one, of its own for each data set and network. (5) All trainings have the augmentation of
evaluations; the published code has none with hard labels, unless that is asked for. (6) The score
is that of the mean HLR and the mean IOR; the published code computes a score for each evaluation,
and its mean. So no score here can be compared with a published one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.identity import images_per_class
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.evaluation.evaluation import Evaluation, Save, unsaved
from bench.evaluation.fresh_networks import (
    Trainee,
    evaluate_trainees,
    random_real_images,
)
from bench.system.choices import FULL, HARD, OWN, RANDOM, RANDOM_HARD
from bench.system.errors import UserError

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
    """Evaluations by training set, and the scores that follow from them."""

    evaluations: dict[str, Evaluation]
    selection: str

    @property
    def hard_label_recovery(self) -> Difference:
        """HLR: accuracy on the full set minus accuracy on the distilled set; lower is better."""
        return self._difference(FULL, HARD)

    @property
    def improvement_over_random(self) -> Difference:
        """IOR: accuracy on the distilled set minus accuracy on random images; higher is better."""
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
        weight: w, of the improvement over random; the weight of the recovery is 1 - w.
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
    save: Save = unsaved,
) -> Scores:
    """Train `evaluation_networks` networks on each of the sets that the scores compare.

    Network, optimizer (that of evaluations), learning rate, augmentation and batches are those of
    `config`. Only on the full training set, batches have `full_train_batch_size` images, shuffled
    in each epoch, for `full_train_steps`, and the steps at which the learning rate falls are as far
    into the training. If the labels are hard already, nothing is trained twice.

    Args:
        images: [n, C, H, W], preprocessed like `target_set`.
        labels: [n, classes].
        classes: of each image [n]; by default that of its largest label.
        report: called with the name of the training set and the number of networks trained.
        check: called after every training step; its exceptions end the scores.
        save: makes each evaluation, or returns one that it has kept.

    Raises:
        UserError: some class has fewer training images than distilled ones.
    """
    if classes is None:
        classes = labels.argmax(dim=1)
    # Class by class, which is the order of the random images.
    order = classes.argsort(stable=True)
    ours = (images, labels) if _in_order(order) else (images[order], labels[order])
    train, hard = target_set.train, F.one_hot(classes[order], labels.shape[1]).to(labels)
    full = (train.images, F.one_hot(train.labels, labels.shape[1]).to(labels))
    keys = range(config.evaluation_networks)
    counts = hard.sum(dim=0).long().tolist()
    real = [random_real_images(config, target_set, counts, k) for k in keys]

    def trained(
        name: str, sets: list[tuple[Tensor, Tensor]], steps: list[int], size: int = 0
    ) -> Evaluation:
        trainees = [Trainee(*one, (k,), size) for k, one in enumerate(sets)]
        part = max(steps) / max(config.evaluation_steps)
        own = replace(config, inner_decay_steps=[round(t * part) for t in config.inner_decay_steps])
        make = partial(evaluate_trainees, own, target_set, trainees, steps, PURPOSE, check=check)
        return save(name, make, partial(report, name))

    steps, full_train_steps = (
        config.evaluation_steps,
        config.full_train_steps or config.evaluation_steps,
    )
    scored = {
        FULL: trained(FULL, [full for _ in keys], full_train_steps, config.full_train_batch_size),
        OWN: trained(OWN, [ours for _ in keys], steps),
        RANDOM: trained(RANDOM, [(images, ours[1]) for images in real], steps),
    }
    if torch.equal(hard, ours[1]):
        scored |= {HARD: scored[OWN], RANDOM_HARD: scored[RANDOM]}
    else:
        scored[HARD] = trained(HARD, [(ours[0], hard) for _ in keys], steps)
        scored[RANDOM_HARD] = trained(RANDOM_HARD, [(images, hard) for images in real], steps)
    return Scores(scored, config.selection)


def refuse_few_real_images(config: RunConfig, target_set: TargetSet) -> None:
    """Reject `scores=true`, before a set is distilled, if there are too few real images.

    Raises:
        UserError: some class has fewer training images than distilled ones.
    """
    counts = target_set.train.labels.bincount(minlength=len(target_set.classes))
    if (fewest := int(counts.min())) < (wanted := images_per_class(config)):
        raise UserError(
            f"scores=true needs {wanted} random real images per class, as many as are distilled,"
            f" and some class of {target_set.name} has {fewest} training images"
        )


def _in_order(order: Tensor) -> bool:
    return bool((order[1:] > order[:-1]).all())
