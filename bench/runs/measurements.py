"""What is measured of a distilled set between outer steps, and which set did best so far."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bench.config.run_config import RunConfig
from bench.distillation.outer_loop import Distillation
from bench.evaluation.evaluation import Evaluation
from bench.evaluation.fresh_networks import evaluate
from bench.runs.heartbeat import Heartbeat


@dataclass
class Best:
    """The distilled set with the highest accuracy so far on the part that selects."""

    step: int
    accuracy: float
    images: torch.Tensor
    labels: torch.Tensor


@dataclass
class Measurements:
    """The measurements of one run.

    Attributes:
        check: called after every training step; what it raises ends the measurement.
        best: None before the first accuracy of the whole set.
    """

    distillation: Distillation
    heartbeat: Heartbeat
    check: Callable[[], None]
    best: Best | None = None

    def due(self) -> Iterator[dict[str, Any]]:
        """Measure what is due before outer step `distillation.step`, or after the last one, and
        yield each measurement as it is recorded. The method observes the accuracy first: the
        variance is that of the window which it then chooses."""
        step, config = self.distillation.step, self.distillation.config
        if accuracy_is_due(config, step):
            self.heartbeat.update(activity="measuring accuracy")
            target_set, images = self.distillation.target_set, self.distillation.images
            evaluation = evaluate(
                config,
                target_set,
                images,
                self.distillation.labels,
                networks=config.accuracy_networks,
                steps=[config.accuracy_steps],
                purpose="accuracy",
                indices=(step,),
                on_train=self.distillation.needs_evaluations,
                check=self.check,
            )
            measurement = {"step": step, **evaluation.summary(config.selection)}
            if config.boost_block:
                measurement["ipc"] = len(images) // len(target_set.classes)
            self.update_best(evaluation)
            if self.distillation.needs_evaluations:
                self.distillation.observe_evaluation(measurement["train_loss_mean"])
            yield measurement
        is_last = step == config.outer_steps
        if config.variance_every and step % config.variance_every == 0 and not is_last:
            self.heartbeat.update(activity="measuring variance")
            yield {"step": step, "normalized_variance": self.distillation.normalized_variance()}

    def update_best(self, evaluation: Evaluation) -> None:
        """Keep the distilled set if it is the best so far. A boosted set counts only once its last
        block has joined."""
        if not self.distillation.is_whole:
            return
        accuracy = evaluation.accuracies(self.distillation.config.selection).mean().item()
        if self.best is None or accuracy > self.best.accuracy:
            self.best = Best(
                self.distillation.step,
                accuracy,
                self.distillation.images.detach().clone(),
                self.distillation.labels.detach().clone(),
            )


def accuracy_is_due(config: RunConfig, step: int) -> bool:
    """Whether the accuracy is measured before outer step `step`, or after the last one."""
    every = config.accuracy_every
    return bool(every) and (step % every == 0 or step == config.outer_steps)
