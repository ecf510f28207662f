"""One network of an anatomy: the meta-gradients of all its windows, and what is recorded of them.

Network k, its inner batches and its target batch are drawn as those of an outer step are, from the
seed of the configuration and the word "anatomy": no run has seen them.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.metagrad.all_windows import AllWindows, WindowGradient
from bench.training.batches import target_batch
from bench.training.problem import outer_problem
from bench.training.randomness import derive_seed
from bench.training.setup import make_inner_optimizer, make_network

# The parts of the state of each inner optimizer, in order.
STATES = {"adam": ("m", "v"), "sgd": ("momentum",)}


@dataclass(frozen=True)
class Record:
    """What is recorded of one network and one window.

    Attributes:
        network: from 0.
        start, stop: the window, in inner steps.
        outer_loss: of the network's target batch at θ_stop.
        gradient_norm: of the windowed meta-gradient of the images and of labels that are learned.
        image_gradient_norm: mean over images of the norm of each image's gradient (Figure 2).
        cosine_to_stop: cosine of the angle to the gradient of [0, stop).
        cosine_to_full: to that of full BPTT, [0, N); NaN where one of the two is 0.
        outer_gradient_norm: of the outer loss with respect to θ_stop.
        cotangent: norm of the cotangent of θ_start: θ_stop's, pulled back through the window.
        state_cotangents: the same of each part of the optimizer's state (`STATES`).
        normalized_variance: of the images' gradient over single target images (C.4), divided by the
            squared norm of that of the whole target batch; None: not measured.
        seconds: what the window costs (`WindowGradient`).
    """

    network: int
    start: int
    stop: int
    outer_loss: float
    gradient_norm: float
    image_gradient_norm: float
    cosine_to_stop: float
    cosine_to_full: float
    outer_gradient_norm: float
    cotangent: float
    state_cotangents: tuple[float, ...]
    normalized_variance: float | None
    seconds: float


@dataclass(frozen=True)
class Measurer:
    """Measures one network after the other.

    Attributes:
        config: its `unroll_length` is N.
        images: [classes*ipc, C, H, W], preprocessed like `target_set`.
        labels: [classes*ipc, classes].
        starts, stops: of the windows, ascending; the last stop is N.
        variance_networks: the first so many networks have their variance measured.
    """

    config: RunConfig
    target_set: TargetSet
    images: Tensor
    labels: Tensor
    starts: list[int]
    stops: list[int]
    variance_networks: int
    activation_budget: int
    compiled: bool

    def network(self, k: int) -> tuple[list[dict[str, Any]], Tensor]:
        """The records of network `k` by stop, then by start, and its gradients [windows, D] in the
        same order."""
        config = replace(self.config, seed=derive_seed(self.config.seed, "anatomy"))
        network, optimizer = make_network(config, self.target_set), make_inner_optimizer(config)
        last = self.stops[-1]
        problem = outer_problem(config, network, optimizer, self.images, self.labels, k, last)
        engine = AllWindows(
            self.activation_budget, precision=config.precision, compiled=self.compiled
        )
        batch = target_batch(config, self.target_set.train, k)
        samples = config.variance_samples if k < self.variance_networks else 0
        windows = engine.window_gradients(problem, self.starts, self.stops, *batch, samples)
        windows.sort(key=lambda window: (window.stop, window.start))
        gradients = torch.stack([flat(window) for window in windows])
        places = {(window.start, window.stop): row for row, window in enumerate(windows)}
        full = gradients[places[0, last]]
        records = [
            asdict(record(k, window, gradient, gradients[places[0, window.stop]], full))
            for window, gradient in zip(windows, gradients, strict=True)
        ]
        return records, gradients


def flat(window: WindowGradient) -> Tensor:
    """The gradient of the images and of labels that are learned, in one row [D]."""
    parts = [window.images, window.labels]
    return torch.cat([part.flatten() for part in parts if part is not None])


def record(
    k: int, window: WindowGradient, gradient: Tensor, of_stop: Tensor, full: Tensor
) -> Record:
    """What is recorded of a window of network `k`.

    Args:
        gradient: its gradient, [D].
        of_stop: the gradient of [0, stop), [D].
        full: the gradient of [0, N), [D].
    """
    squared_norm = window.images.double().square().sum().item()
    variance = window.variance
    return Record(
        network=k,
        start=window.start,
        stop=window.stop,
        outer_loss=window.outer_loss,
        gradient_norm=gradient.double().norm().item(),
        image_gradient_norm=window.images.flatten(1).double().norm(dim=1).mean().item(),
        cosine_to_stop=cosine(gradient, of_stop),
        cosine_to_full=cosine(gradient, full),
        outer_gradient_norm=window.outer_gradient_norm,
        cotangent=window.cotangent_norms[0],
        state_cotangents=window.cotangent_norms[1:],
        normalized_variance=None if variance is None else variance / (squared_norm or math.nan),
        seconds=window.seconds,
    )


def cosine(one: Tensor, other: Tensor) -> float:
    """The cosine of the angle between two vectors; NaN where one of them is 0."""
    one, other = one.double(), other.double()
    return (one @ other / (one.norm() * other.norm())).item()
