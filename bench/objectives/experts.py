"""Expert trajectories: the parameters of networks at each epoch of their training on real images.

They are trained once for all runs that need the same, whatever seed a run has, each on the training
part alone, and kept in `cache_root/experts`, a file for each expert. The name of the folder is a
checksum over everything that they depend on: the images and labels as the networks see them, the
network, the options `expert_...` and the version of this file. `python -m bench.prepare` trains
them ahead of the runs.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.objectives import FTD, MTT
from bench.data import augment
from bench.data.cache import Stored, facts, load_or_build, rows
from bench.metagrad import MeanLoss, make_derivatives
from bench.metagrad.flat import FlatNetwork
from bench.networks import initial_parameters
from bench.objectives.objective import Setting
from bench.system.errors import UserError
from bench.training.randomness import torch_generator

VERSION = 1  # of the training and of the files; also to be raised where a network changes
SEED = 0  # of all experts
EPS = 1e-24  # smallest divisor


class Experts:
    """The experts of a run, each trained or read when it is first needed.

    In place of the experts of random images, which stand for a data set when costs are estimated
    (such a target set has no fingerprint), there are networks that are not trained.

    Attributes:
        network: (θ [P], images) -> logits.
    """

    def __init__(self, options: MTT, setting: Setting) -> None:
        self.options, self.setting = options, setting
        self.network = FlatNetwork(setting.network)
        self._loss = MeanLoss(make_derivatives(setting.network))
        self._in_memory: dict[int, Tensor] = {}  # without a cache
        self._intact: set[int] = set()  # whose files were compared with their checksums

    def pair(self, expert: int, epoch: int, matched_epochs: int) -> tuple[Tensor, Tensor]:
        """The parameters [P] of an expert after `epoch` epochs, and after `matched_epochs` more."""
        if not self.setting.target_set.fingerprint:
            return self._initial(0), self._initial(1)
        like, path = self.setting.target_set.train.images, self._path(expert)
        if path is None:
            if expert not in self._in_memory:
                self._in_memory[expert] = self._train(expert).tensors["thetas"]
            thetas = self._in_memory[expert]
            return thetas[epoch].to(like), thetas[epoch + matched_epochs].to(like)
        if expert not in self._intact:
            load_or_build(path, lambda: self._train(expert))
            self._intact.add(expert)
        # All experts in memory would be gigabytes.
        start, target = rows(path, "thetas", (epoch, epoch + matched_epochs))
        return start.to(like), target.to(like)

    def prepare(self, report: Callable[[str], object]) -> None:
        """Train the experts that are not in the cache. Processes that do so at once share the work.

        Args:
            report: called with what is being done.

        Raises:
            UserError: training diverged, or the cache cannot be written.
        """
        count = self.options.experts
        paths = [path for k in range(count) if (path := self._path(k))]
        if all(path.exists() for path in paths):
            return
        print(f"training {count} expert trajectories, kept in {self.folder}", flush=True)
        # Each process starts with another one, so that they seldom wait for each other.
        first = os.getpid() % count
        for done, k in enumerate((*range(first, count), *range(first))):
            report(f"training experts {done}/{count}")
            load_or_build(paths[k], lambda k=k: self._train(k))

    def seconds(self) -> float:
        """What the training of the experts in the cache took, wherever it was done."""
        paths = [self._path(k) for k in range(self.options.experts)]
        return sum(facts(path)["seconds"] for path in paths if path)

    @cached_property
    def folder(self) -> Path | None:
        """Of the files; None without a cache."""
        if self.setting.cache_root is None:
            return None
        digest = hashlib.sha256(json.dumps(self.depends_on(), sort_keys=True).encode())
        config = self.setting.config
        name = f"{config.dataset}-{config.arch}-{digest.hexdigest()[:16]}"
        return self.setting.cache_root / "experts" / name

    def depends_on(self) -> dict[str, Any]:
        """Everything that determines the experts, but their number in the order."""
        config, target_set = self.setting.config, self.setting.target_set
        content = hashlib.blake2b(digest_size=16)
        for part in (target_set.train.images, target_set.train.labels):
            content.update(part.cpu().contiguous().numpy().data)
        return {
            "version": VERSION,
            "seed": SEED,
            "fingerprint": target_set.fingerprint,
            "type": str(target_set.train.images.dtype),
            "images": content.hexdigest(),
            **{key: getattr(config, key) for key in ("arch", "width", "depth", "conv_bias")},
            **{k: v for k, v in asdict(self.options).items() if k.startswith("expert_")},
        }

    def _path(self, expert: int) -> Path | None:
        return self.folder and self.folder / f"{expert:04d}.safetensors"

    def _initial(self, expert: int) -> Tensor:
        drawn = initial_parameters(
            self.setting.network, torch_generator(SEED, "expert/network", expert)
        )
        return self.network.flatten(drawn).to(self.setting.target_set.train.images)

    def _train(self, expert: int) -> Stored:
        """The tensor "thetas" [epochs + 1, P] of one expert, and the seconds that this took."""
        options, train = self.options, self.setting.target_set.train
        started = time.perf_counter()
        labels = F.one_hot(train.labels, self.setting.classes).to(train.images)
        theta = self._initial(expert)
        thetas = [theta.cpu()]
        for epoch in range(options.expert_epochs):
            order = torch.randperm(
                len(train), generator=torch_generator(SEED, "expert/epoch", expert, epoch)
            )
            for k, positions in enumerate(order.to(theta.device).split(options.expert_batch)):
                generator = torch_generator(SEED, "expert/augment", expert, epoch, k)
                draw = augment.draw(options.expert_augmentation, len(positions), generator)
                images = augment.apply(train.images[positions], draw.to(theta.device))
                theta = theta - options.expert_lr * self._direction(
                    theta, images, labels[positions]
                )
            thetas.append(theta.cpu())
            if not theta.isfinite().all():
                raise UserError(
                    f"expert {expert} is not finite after epoch {epoch + 1}: a smaller"
                    f" objective_options.expert_lr than {options.expert_lr:g} may help"
                )
        seconds = time.perf_counter() - started
        return Stored({"thetas": torch.stack(thetas)}, {"seconds": seconds})

    def _direction(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """What a step of the training moves against, [P]: the gradient, or that of FTD."""

        def gradient(theta: Tensor) -> Tensor:
            return self._loss.gradient(theta, images, labels)[0]

        if isinstance(self.options, FTD):
            return flat_direction(
                gradient, theta, self.options.expert_rho, self.options.expert_alpha
            )
        return gradient(theta)


def flat_direction(
    gradient: Callable[[Tensor], Tensor], theta: Tensor, rho: float, alpha: float
) -> Tensor:
    """The direction of GSAM (Zhuang et al., ICLR 2022), which a step moves against to get where the
    loss is low and flat, [P]:

        h - α (g - ⟨g, h⟩ h / ‖h‖²),    g = ∇ℓ(θ),    h = ∇ℓ(θ + ρ g / ‖g‖)

    Args:
        gradient: ∇ℓ.
        rho, alpha: ρ and α; the gradient is g where both are 0.
    """
    g = gradient(theta)
    h = gradient(theta + rho * g / g.norm().clamp(min=EPS))
    across = g - (g @ h) / h.square().sum().clamp(min=EPS) * h
    return h - alpha * across
