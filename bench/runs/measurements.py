"""What is measured of a distilled set between outer steps, and which set did best so far."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bench.config.run_config import RunConfig
from bench.distillation.outer_loop import Distillation
from bench.evaluation.evaluation import Evaluation
from bench.evaluation.fresh_networks import evaluate
from bench.metagrad import SampleVariance
from bench.runs.heartbeat import Heartbeat


def variance_steps(config: RunConfig) -> range:
    """The outer steps at which the variance is measured."""
    stop = min(config.variance_until or config.outer_steps, config.outer_steps)
    return range(0, stop if config.variance_every else 0, config.variance_every or 1)


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
        samples: of the coming outer step, where its variance is measured. It becomes a measurement
            after that step, which computes the gradient of the whole batch. A run that stops before
            the step measures again when it resumes.
    """

    distillation: Distillation
    heartbeat: Heartbeat
    check: Callable[[], None]
    best: Best | None = None
    samples: SampleVariance | None = None

    def due(self) -> Iterator[dict[str, Any]]:
        """Measure what is due before outer step `distillation.step`, or after the last one, and
        yield each measurement that can be recorded at once. The method observes accuracy and probe
        first: the variance is that of the window which it then chooses.

        Raises:
            Diverged: the distilled set is not finite.
        """
        step, config = self.distillation.step, self.distillation.config
        if accuracy_is_due(config, step):
            self.distillation.require_finite()
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
                on_train=self.distillation.observer.needs_evaluations,
                check=self.check,
            )
            measurement = {"step": step, **evaluation.summary(config.selection)}
            if config.boost_block:
                measurement["ipc"] = len(images) // len(target_set.classes)
            self.update_best(evaluation)
            if self.distillation.observer.needs_evaluations:
                self.distillation.observer.evaluation(step, measurement["train_loss_mean"])
            yield measurement
        if step in variance_steps(config):
            self.heartbeat.update(activity="measuring variance")
            self.distillation.observe_probe()
            self.samples = self.distillation.sample_variance()

    def completed(self) -> Iterator[dict[str, Any]]:
        """Yield the measurement that the outer step just made completes, if there is one."""
        if self.samples is None:
            return
        squared_norm = self.distillation.whole_batch_squared_norm.item()
        yield {"step": self.distillation.step - 1, **self.samples.record(squared_norm)}
        self.samples = None

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
