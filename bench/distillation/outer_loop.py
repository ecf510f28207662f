"""The outer loop of one run (paper, Algorithm 1): everything but files.

One outer step: the method names a window; a fresh network, a target batch and the inner batches are
drawn; the engine computes the meta-gradient through the window; the clipping scales it; Adam
updates the distilled images (and labels), or what they are made of (`parameterization.py`); the
method hears the outer loss.

With replicas, several networks are drawn, each with batches of its own. All go through the same
window, and the mean of their meta-gradients takes the place of the one.
"""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.outer_adam import OuterAdam
from bench.distillation.parameterization import make_parameterization
from bench.distillation.process_group import ALONE, ProcessGroup
from bench.metagrad import OUTER_LOSSES, MetaGradient, Problem, make_engine, normalized_variance
from bench.networks import initial_parameters
from bench.training.batches import InnerBatches, target_batch
from bench.training.randomness import derive_seed, python_random, torch_generator
from bench.training.setup import make_inner_optimizer, make_network
from methods import Window, make_clipping, make_method

# So many outer steps in a row without a finite meta-gradient, and the run has diverged for good.
MAX_STEPS_NOT_FINITE = 50


class Diverged(RuntimeError):
    """The meta-gradients stay not finite; no further step can mend it."""


@dataclass(frozen=True)
class OuterStep:
    """What is recorded of one outer step.

    Attributes:
        step: counts from 0.
        outer_loss: the configuration's, of the target batch at θ_stop; the mean over replicas.
        window_start, window_stop: the window, in inner steps.
        gradient_norm: norm of the whole meta-gradient (the replicas' mean), before the clipping:
            with respect to everything that the step updates, which is the images and learned labels
            (under strong boosting those of the newest block), or the bases, coefficients and
            learned labels of a linear set. This is the gradient that is conditioned.
        image_gradient_norm: mean over images of the norm of each image's gradient (likewise);
            this is what the paper's Figure 2 shows. It is of all images that the inner training
            sees, also of those that are frozen, and of those that bases are combined to.
        clip_factor: what the clipping multiplied the gradient by.
        updated: False where the gradient was not finite and the distilled set was left alone.
        seconds: wall-clock time of the step.
    """

    step: int
    outer_loss: float
    window_start: int
    window_stop: int
    gradient_norm: float
    image_gradient_norm: float
    clip_factor: float
    updated: bool
    seconds: float


class Distillation:
    """A distilled set under optimisation, and everything that the next outer step depends on.

    Args:
        config: the run.
        target_set: preprocessed, on the device and in the floating point type of the run.
        activation_budget: bytes that the exact engine may keep for its backward pass; changes no
            number.
        group: the processes that share the replicas; each of them holds the same distilled set.
        compiled: whether the exact engine compiles its steps; compiled code rounds differently.

    Attributes:
        parameters: what is learned.
        step: outer steps done.
    """

    def __init__(
        self,
        config: RunConfig,
        target_set: TargetSet,
        activation_budget: int = 0,
        group: ProcessGroup = ALONE,
        compiled: bool = False,
    ) -> None:
        self.config = config
        self.group = group
        self.target_set = target_set
        self.network = make_network(config, target_set)
        self.inner_optimizer = make_inner_optimizer(config)
        self.engine = make_engine(config.engine, activation_budget, config.precision, compiled)
        self.method = make_method(
            config.method, config.unroll_length, config.window_size, config.method_options
        )
        self.clipping = make_clipping(config.clipping, config.clip_ratio, config.clip_decay)
        self.parameters = make_parameterization(config, target_set)
        self.outer_optimizer = OuterAdam(self.parameters.groups(), config.outer_lr)
        self.step = 0
        self.steps_not_finite = 0

    @property
    def images(self) -> Tensor:
        """[classes*ipc, C, H, W], class by class, after the outer steps done. A boosted set holds
        the blocks that took part in the last of them, a linear one more images than `ipc`."""
        return self.parameters.at(self._last_step)[0]

    @property
    def labels(self) -> Tensor:
        """[classes*ipc, classes], likewise."""
        return self.parameters.at(self._last_step)[1]

    @property
    def is_whole(self) -> bool:
        """Whether these are all the images that the distilled set will have."""
        return self.parameters.is_whole(self._last_step)

    @property
    def _last_step(self) -> int:
        return max(self.step - 1, 0)

    def outer_step(self) -> OuterStep:
        """Update the distilled set once.

        Raises:
            Diverged: too many meta-gradients in a row were not finite.
        """
        started = time.perf_counter()
        window = self._window(self.step)
        gradient = self._mean_gradient(window)
        image_norms = gradient.images.flatten(1).norm(dim=1)
        learned = self.parameters.gradients(self.step, gradient)
        norm, image_norm, loss = torch.stack(
            [whole_norm(learned), image_norms.mean(), gradient.outer_loss]
        ).tolist()  # one transfer from the device
        factor = self.clipping.factor(norm)
        finite = math.isfinite(norm)
        if finite:
            self._update(learned, factor)
            self.method.observe(self.step, loss)
        self.steps_not_finite = 0 if finite else self.steps_not_finite + 1
        if self.steps_not_finite > MAX_STEPS_NOT_FINITE:
            raise Diverged(
                f"{self.steps_not_finite} meta-gradients in a row were not finite"
                f" (up to outer step {self.step})"
            )
        self.step += 1
        return OuterStep(
            self.step - 1,
            loss,
            window.start,
            window.stop,
            norm,
            image_norm,
            factor,
            finite,
            time.perf_counter() - started,
        )

    def normalized_variance(self) -> float:
        """The normalized variance (C.4) of the meta-gradient with respect to the images, over the
        first `variance_samples` images of the coming outer step's target batch: those of replica 0
        alone, so that the figure means the same for any number of replicas. Changes nothing."""
        images, labels = target_batch(self.config, self.target_set.train, self.step)
        count = self.config.variance_samples
        gradients = self.engine.sample_gradients(
            self._problem(), self._window(self.step), images[:count], labels[:count]
        )
        return normalized_variance(gradients.images)

    def _window(self, step: int) -> Window:
        # Random windows are drawn from the number of the epoch, so that they stay for
        # `window_resample_every` outer steps without any memory of the last draw.
        rng = python_random(self.config.seed, "window", step // self.config.window_resample_every)
        return self.method.next_window(step, rng)

    def _mean_gradient(self, window: Window) -> MetaGradient:
        """The mean over all replicas of loss and meta-gradient; not finite where one is not."""
        mine = [self._flat_gradient(r, window) for r in self.group.share(self.config.replicas)]
        flat = self.group.gather(torch.stack(mine))  # [replicas, images + labels + 1]
        total = flat[0]
        for of_replica in flat[1:]:  # in this order, whoever computed it
            total = total + of_replica
        images, labels = self.parameters.at(self.step)
        of_images, of_labels, loss = (total / len(flat)).tensor_split(
            [images.numel(), len(total) - 1]
        )
        return MetaGradient(
            of_images.view_as(images),
            of_labels.view_as(labels) if self.config.learn_labels else None,
            loss.squeeze(0),
        )

    def _flat_gradient(self, replica: int, window: Window) -> Tensor:
        """The meta-gradient of one replica and its outer loss in one row, to be gathered."""
        batch = target_batch(draws(self.config, replica), self.target_set.train, self.step)
        gradient = self.engine.meta_gradient(self._problem(replica), window, *batch)
        parts = [gradient.images, gradient.labels, gradient.outer_loss]
        return torch.cat([part.flatten() for part in parts if part is not None])

    def _problem(self, replica: int = 0) -> Problem:
        """The bilevel problem of one replica in the coming outer step."""
        config = draws(self.config, replica)
        images, labels = self.parameters.at(self.step)
        drawn = initial_parameters(self.network, torch_generator(config.seed, "network", self.step))
        return Problem(
            self.network,
            {name: value.to(images) for name, value in drawn.items()},
            self.inner_optimizer,
            images,
            labels,
            InnerBatches(
                config,
                len(self.target_set.classes),
                config.augment_inner,
                "inner",
                (self.step,),
                steps=self._window(self.step).stop,
            ),
            config.learn_labels,
            OUTER_LOSSES[config.outer_loss],
        )

    def _update(self, learned: list[tuple[Tensor, Tensor]], factor: float) -> None:
        conditioned = [(parameter, gradient * factor) for parameter, gradient in learned]
        self.outer_optimizer.step(conditioned, self.parameters.rates(self.step))
        self.parameters.clamp_labels()  # probabilities; they are never renormalized (C.1)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, for a checkpoint."""
        return {
            "parameters": self.parameters.state(),
            "outer_optimizer": self.outer_optimizer.state(),
            "method": self.method.state(),
            "clipping": self.clipping.state(),
            "step": self.step,
            "steps_not_finite": self.steps_not_finite,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state()` returned."""
        self.parameters.load_state(state["parameters"])
        self.outer_optimizer.load_state(state["outer_optimizer"])
        self.method.load_state(state["method"])
        self.clipping.load_state(state["clipping"])
        self.step = state["step"]
        self.steps_not_finite = state["steps_not_finite"]


def draws(config: RunConfig, replica: int) -> RunConfig:
    """`config` with the seed from which a replica's networks and batches are drawn: the run's own
    for replica 0, so that one replica more leaves the draws of the others as they are."""
    return replace(config, seed=derive_seed(config.seed, "replica", replica)) if replica else config


def whole_norm(learned: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The norm of the meta-gradient over all that is learned together: (parameter, gradient)."""
    squares = [gradient.square().sum() for _, gradient in learned]
    return sum(squares[1:], start=squares[0]).sqrt()
