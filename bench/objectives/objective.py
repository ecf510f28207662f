"""The interface of an objective, and what several objectives need.

An objective answers (distilled set, outer step) with a gradient and a loss. It takes its random
numbers from (seed, purpose, outer step), as everything in this project does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.func import functional_call

from bench.config.run_config import RunConfig
from bench.data import TargetSet, augment
from bench.metagrad import MetaGradient
from bench.networks import initial_parameters
from bench.training.batches import images_of_each_class, target_batch
from bench.training.randomness import torch_generator

Parameters = dict[str, Tensor]


class Objective(Protocol):
    """What the outer loop follows."""

    def gradient(self, seed: int, step: int, images: Tensor, labels: Tensor) -> MetaGradient:
        """The gradient of the objective in an outer step, and its value as `outer_loss`.

        Args:
            seed: of the replica, for all random draws.
            images: distilled images [classes*ipc, C, H, W], class by class.
            labels: [classes*ipc, classes].
        """
        ...

    def after(self, step: int, images: Tensor, labels: Tensor) -> None:
        """Called with the updated distilled set after each outer step that was finite."""
        ...

    def prepare(self, report: Callable[[str], object]) -> None:
        """Compute what it keeps in the cache, where that is missing.

        Args:
            report: called with what is being done.

        Raises:
            UserError: it cannot be computed or written.
        """
        ...

    def results(self) -> dict[str, Any]:
        """What a run's result says of it beside the distilled set."""
        ...

    def state(self) -> dict[str, Any]:
        """What the next outer step depends on, for a checkpoint."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from what `state()` returned."""
        ...


class PlainObjective:
    """Base of the objectives that need nothing from the cache and have no further results."""

    def prepare(self, report: Callable[[str], object]) -> None:
        pass

    def results(self) -> dict[str, Any]:
        return {}


class StatelessObjective(PlainObjective):
    """Base of those that keep nothing from one outer step to the next."""

    def after(self, step: int, images: Tensor, labels: Tensor) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


@dataclass(frozen=True)
class Setting:
    """The run that an objective is part of.

    Attributes:
        network: the architecture; its own parameters are not used.
        cache_root: folder of what is computed once for many runs; None: kept in memory only.
    """

    config: RunConfig
    target_set: TargetSet
    network: nn.Module
    cache_root: Path | None = None

    @property
    def classes(self) -> int:
        return len(self.target_set.classes)

    def fresh_network(self, seed: int, *indices: int) -> Parameters:
        """The initial parameters of a network, by name."""
        like = self.target_set.train.images
        drawn = initial_parameters(self.network, torch_generator(seed, "network", *indices))
        return {name: value.to(like) for name, value in drawn.items()}

    def real_images(self, seed: int, step: int, per_class: int) -> Tensor:
        """Real training images drawn without replacement, [classes, per_class, C, H, W]; of each
        class as many as the smallest class has, if that is fewer."""
        train = self.target_set.train
        per_class = min(per_class, self._smallest_class)
        generator = torch_generator(seed, "target/classes", step)
        positions = images_of_each_class(train, self.classes, per_class, generator)
        images = train.images[positions.to(train.images.device)]
        return images.unflatten(0, (self.classes, per_class))

    def target_batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """The target images [batch, C, H, W] and classes [batch] of an outer step."""
        return target_batch(replace(self.config, seed=seed), self.target_set.train, step)

    @cached_property
    def _smallest_class(self) -> int:
        return int(self.target_set.train.labels.bincount(minlength=self.classes).min())


def augment_class(kind: str, seed: int, step: int, label: int, images: Tensor) -> Tensor:
    """Images [n, C, H, W] of one class, augmented; real and distilled ones of a class alike, with
    one draw for all ("dsa", the Siamese augmentation of DSA, equation 9).

    Args:
        kind: one of `choices.AUGMENTATIONS`.
    """
    generator = torch_generator(seed, "target/siamese", step, label)
    draw = augment.draw(kind, len(images), generator)
    return augment.apply(images, draw.to(images.device))


def logits(network: nn.Module, parameters: Parameters, images: Tensor) -> Tensor:
    """[batch, classes] of images [batch, C, H, W], differentiable in both."""
    return functional_call(network, parameters, (images,))


def embedding(network: nn.Module, parameters: Parameters, images: Tensor) -> Tensor:
    """What the last linear layer of the network sees, [batch, features]; differentiable."""
    seen: list[Tensor] = []
    classifier = network.get_submodule("classifier")
    hook = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        functional_call(network, parameters, (images,))
    finally:
        hook.remove()
    return seen[0]
