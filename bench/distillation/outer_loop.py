"""The outer steps of one run (paper, Algorithm 1), without its files.

One outer step: the method chooses a window; a fresh network, a target batch and the inner batches
are drawn; the engine computes the meta-gradient through the window; the clipping scales that of the
images; Adam updates the distilled images (and labels), or what they are made of
(`parameterization.py`); the method observes the outer loss, and what else it asks for
(`observer.py`), such as evaluations that are made between the steps (`bench.runs.measurements`).

Another objective takes the place of window, network and engine (`bench.objectives`).

With replicas, several networks are drawn, each with batches of its own. All use the same window,
and the update takes the mean of their meta-gradients (`replicas.py`).
"""

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.divergence import Diverged, DivergenceGuard
from bench.distillation.method_state import method_state
from bench.distillation.observer import Observer
from bench.distillation.outer_optimizers import make_outer_optimizer, whole_norm
from bench.distillation.parameterization import make_parameterization
from bench.distillation.process_group import SINGLE_PROCESS, ProcessGroup
from bench.distillation.replicas import Replicas, replica_config
from bench.metagrad import MetaGradient, Problem, SampleVariance, make_engine
from bench.objectives import make_objective
from bench.training.batches import target_batch
from bench.training.problem import outer_problem
from bench.training.randomness import python_random
from bench.training.setup import make_inner_optimizer, make_network, method_of
from methods import Method, Probe, StepObservation, Window, make_clipping


@dataclass(frozen=True)
class OuterStep:
    """What is recorded of one outer step.

    Attributes:
        step: counts from 0.
        outer_loss: of the target batch at θ_stop; the mean over replicas.
        window_start, window_stop: the window, in inner steps; 0 for an objective without one.
        gradient_norm: norm of the whole meta-gradient (the replicas' mean) before clipping: with
            respect to everything that the step updates, which is the images and learned labels
            (under strong boosting those of the newest block), or the bases, coefficients and
            learned labels of a linear set.
        image_gradient_norm: mean over images of the norm of each image's gradient before clipping,
            as in the paper's Figure 2: over all images that the inner training sees, including
            frozen ones and those that a linear set combines.
        clipped_norm: norm of what clipping limits, before it: of the whole meta-gradient, or of
            the part of images, or of bases and coefficients (`clipped`). Runs that began before
            that setting existed recorded `gradient_norm` alone, which was clipped.
        clip_factor: the factor by which clipping multiplied what it limits.
        updated: False if loss or gradient was not finite; the distilled set then stays as it was,
            or goes back to what it was before (`divergence.py`).
        seconds: wall-clock time of the step, with the probe before it.
        probe_seconds: of the probe that the method asked for before the step; 0 without one.
    """

    step: int
    outer_loss: float
    window_start: int
    window_stop: int
    gradient_norm: float
    image_gradient_norm: float
    clipped_norm: float
    clip_factor: float
    updated: bool
    seconds: float
    probe_seconds: float


class Distillation:
    """A distilled set under optimisation, with everything that the next outer step depends on.

    Args:
        config: the run.
        target_set: preprocessed, on the device and in the floating point type of the run.
        activation_budget: bytes that the exact engine may keep for its backward pass; it changes
            no number.
        group: the processes that share the replicas; each of them holds the same distilled set.
        compiled: whether the exact engine compiles its steps; compiled code rounds differently.
        cache_root: folder of what an objective computes once for many runs; None: in memory only.

    Attributes:
        parameters: what is learned.
        objective: what is followed instead of the loss behind a window; None: that.
        step: outer steps done.
        observer: what the method is told.
        whole_batch_squared_norm: of the meta-gradient of the images in the last outer step, for
            the target batch of replica 0: what `sample_variance` is divided by. NaN before the
            first step, and in processes that do not compute replica 0.
    """

    def __init__(
        self,
        config: RunConfig,
        target_set: TargetSet,
        activation_budget: int = 0,
        group: ProcessGroup = SINGLE_PROCESS,
        compiled: bool = False,
        cache_root: Path | None = None,
    ) -> None:
        self.config = config
        self.replicas = Replicas(config.replicas, group)
        self.target_set = target_set
        self.network = make_network(config, target_set)
        self.inner_optimizer = make_inner_optimizer(config)
        self.engine = make_engine(config.engine, activation_budget, config.precision, compiled)
        self.objective = make_objective(config, target_set, self.network, cache_root)
        self.method = method_of(config)
        method_state(self.method, config.method)  # refused before the first step, not after it
        self.observer = Observer(self.method)
        self.clipping = make_clipping(config.clipping, config.clip_ratio, config.clip_decay)
        self.parameters = make_parameterization(config, target_set)
        self.outer_optimizer = make_outer_optimizer(config, self.parameters.groups())
        self.step = 0
        self.guard = DivergenceGuard(config.not_finite)
        self.whole_batch_squared_norm = torch.tensor(math.nan)

    @property
    def images(self) -> Tensor:
        """[classes*ipc, C, H, W], class by class, after the last outer step. A boosted set has the
        blocks that took part in that step; a set of another parameterization than pixels has more
        images than `ipc`."""
        return self.parameters.at(self._last_step)[0]

    @property
    def labels(self) -> Tensor:
        """[classes*ipc, classes], likewise."""
        return self.parameters.at(self._last_step)[1]

    @property
    def is_whole(self) -> bool:
        """Whether these are all images that the distilled set will have."""
        return self.parameters.is_whole(self._last_step)

    @property
    def _last_step(self) -> int:
        return max(self.step - 1, 0)

    def outer_step(self) -> OuterStep:
        """Update the distilled set once.

        Raises:
            Diverged: as the setting `not_finite` says.
        """
        self.guard.before(self.step, self._updated_state, self.is_finite)
        if self.replicas.group.is_leader:
            self.observe_probe()
        probe_seconds, self.observer.probe_seconds = self.observer.probe_seconds, 0.0
        started = time.perf_counter()
        self.observer.share(self.replicas.group)
        window = self.window(self.step)
        gradient = self.meta_gradient(window)
        of_images, of_labels = self.parameters.gradients(self.step, gradient)
        limited, free = of_images, of_labels
        if self.config.clipped == "all":
            limited, free = [*of_images, *of_labels], []
        image_norms = gradient.images.flatten(1).norm(dim=1)
        norm, clipped_norm, image_norm, loss = torch.stack(
            [
                whole_norm([*of_images, *of_labels]),
                whole_norm(limited),
                image_norms.mean(),
                gradient.outer_loss,
            ]
        ).tolist()  # one transfer from the device
        finite = math.isfinite(norm) and math.isfinite(loss)
        factor = self.clipping.factor(clipped_norm) if finite else 1.0
        if finite:
            observation = None
            if self.observer.observes_steps:
                aligned = self.outer_optimizer.alignment([*of_images, *of_labels])
                norms = gradient.inner_gradient_norms
                inner_norms = [] if norms is None else norms.tolist()
                observation = StepObservation(self.step, loss, window, norm, aligned, inner_norms)
            scaled = [(parameter, gradient * factor) for parameter, gradient in limited]
            self.outer_optimizer.step([*scaled, *free], self.parameters.rates(self.step))
            self.parameters.clamp_labels()  # probabilities; they are never renormalized (C.1)
            self.observer.step(self.step, loss, observation)
            if self.guard.policy == "restore":  # before the set can be measured
                finite = self.is_finite()
        if self.objective and finite:
            self.objective.after(self.step, *self.parameters.at(self.step))
        if before := self.guard.after(self.step, finite, self.is_finite):
            self._load_updated(before)
            self.observer.probe_seconds = 0.0  # those of the copy are in the step after it
        self.step += 1
        return OuterStep(
            self.step - 1,
            loss,
            0 if self.objective else window.start,
            0 if self.objective else window.stop,
            norm,
            image_norm,
            clipped_norm,
            factor,
            finite,
            probe_seconds + time.perf_counter() - started,
            probe_seconds,
        )

    def observe_probe(self) -> None:
        """Let the method observe the inner training of the coming outer step, if it asks for that;
        once. In a process group only the leader calls it."""
        self.observer.probe(self.step, self._probe)

    def _probe(self) -> Probe:
        config, steps = self.config, self.config.unroll_length
        problem = self._problem(config, steps, *self.parameters.at(self.step))
        images, labels = target_batch(config, self.target_set.train, self.step)
        training = self.engine.train(problem, steps, images)
        targets = F.one_hot(labels, training.logits.shape[1]).to(training.logits)
        loss = problem.outer_loss.losses(training.logits, targets).mean()
        right = (training.logits.argmax(dim=1) == labels).double().mean()
        return Probe(training.gradient_norms.tolist(), loss.item(), 100 * right.item())

    def window(self, step: int) -> Window:
        """The window of outer step `step`, as the method chooses it now."""
        # Random windows are drawn from the number of the epoch, so that they stay for
        # `window_resample_every` outer steps without any memory of the last draw.
        rng = python_random(self.config.seed, "window", step // self.config.window_resample_every)
        return self.method.next_window(step, rng)

    def meta_gradient(self, window: Window) -> MetaGradient:
        """The meta-gradient of the coming outer step through `window`, and the outer loss: the mean
        over all replicas."""
        images, labels = self.parameters.at(self.step)

        def of_replica(replica: int) -> MetaGradient:
            config = replica_config(self.config, replica)
            if self.objective:
                return self.objective.gradient(config.seed, self.step, images, labels)
            problem = self._problem(config, window.stop, images, labels)
            batch = target_batch(config, self.target_set.train, self.step)
            gradient = self.engine.meta_gradient(
                problem, window, *batch, inner_norms=self.observer.needs_inner_gradients
            )
            if replica == 0:
                self.whole_batch_squared_norm = gradient.images.double().square().sum()
            return gradient

        return self.replicas.mean(of_replica)

    def sample_variance(self) -> SampleVariance:
        """The variance (C.4) of the meta-gradient of the images in the coming outer step, over the
        first `variance_samples` images of its target batch. Only replica 0 counts, so that the
        numbers mean the same for any number of replicas. Changes nothing."""
        window = self.window(self.step)
        problem = self._problem(self.config, window.stop, *self.parameters.at(self.step))
        images, labels = target_batch(self.config, self.target_set.train, self.step)
        count = self.config.variance_samples
        gradients = self.engine.sample_gradients(problem, window, images[:count], labels[:count])
        return SampleVariance.of(gradients.images)

    def _problem(self, config: RunConfig, stop: int, images: Tensor, labels: Tensor) -> Problem:
        """The bilevel problem of the coming outer step; the seed of `config` is the replica's."""
        return outer_problem(
            config, self.network, self.inner_optimizer, images, labels, self.step, stop
        )

    def variant(
        self, config: RunConfig, method: Method, activation_budget: int = 0
    ) -> "Distillation":
        """This distillation with another method, activation budget and batch sizes, to measure what
        its steps cost. Both share the distilled set and its optimizer, so the steps of one change
        the other."""
        other = copy.copy(self)
        other.config, other.method, other.observer = config, method, Observer(method)
        other.engine = make_engine(config.engine, activation_budget, config.precision)
        return other

    def is_finite(self) -> bool:
        """Whether all that is learned is finite."""
        return all(
            bool(part.isfinite().all()) for group in self.parameters.groups() for part in group
        )

    def require_finite(self) -> None:
        """Raise Diverged if the distilled set is not finite: it must not be evaluated."""
        if not self.is_finite():
            raise Diverged(f"the distilled set is not finite after {self.step} outer steps")

    def state(self) -> dict[str, Any]:
        """Everything that the next outer step depends on, for a checkpoint."""
        return {**self._updated_state(), "step": self.step, **self.guard.state()}

    def _updated_state(self) -> dict[str, Any]:
        """What outer steps update, apart from their number."""
        return {
            "parameters": self.parameters.state(),
            "outer_optimizer": self.outer_optimizer.state(),
            "method": method_state(self.method, self.config.method),
            "clipping": self.clipping.state(),
            **self.observer.state(),
            **({"objective": self.objective.state()} if self.objective else {}),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state()` returned."""
        self._load_updated(state)
        self.step = state["step"]
        self.guard.load_state(state)

    def _load_updated(self, state: dict[str, Any]) -> None:
        self.parameters.load_state(state["parameters"])
        self.outer_optimizer.load_state(state["outer_optimizer"])
        self.method.load_state(state["method"])
        self.clipping.load_state(state["clipping"])
        self.observer.load_state(state)
        if self.objective:
            device = self.target_set.train.images.device
            self.objective.load_state(_on_device(state["objective"], device))


def _on_device(state: Any, device: torch.device) -> Any:
    """The same state with its tensors on a device: those of a checkpoint are read to the CPU."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {key: _on_device(value, device) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_on_device(value, device) for value in state)
    return state
