"""The mean of the meta-gradients of a run's replicas, whichever processes compute them.

Every process gathers every meta-gradient and adds them up in order of replica. So on a CPU the
number of processes changes no bit. (On unlike processors the distilled sets of the processes may
differ by rounding. All apply the same gradient, so the differences do not grow.)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.config.run_config import RunConfig
from bench.distillation.process_group import ProcessGroup
from bench.metagrad import MetaGradient
from bench.training.randomness import derive_seed


@dataclass(frozen=True)
class Replicas:
    """The replicas of a run: as many networks, each with batches of its own, in each outer step.

    Attributes:
        count: over all processes.
        group: the processes that share them.
    """

    count: int
    group: ProcessGroup

    def mean(self, meta_gradient: Callable[[int], MetaGradient]) -> MetaGradient:
        """The mean over all replicas of outer loss, meta-gradient and norms of inner gradients; not
        finite if one of them is not.

        Args:
            meta_gradient: of one replica, by its number; called for those of this process.

        Raises: what `ProcessGroup.gather` raises.
        """
        first, *others = self.group.share(self.count)
        gradient = meta_gradient(first)
        computed = [_flat(gradient), *(_flat(meta_gradient(replica)) for replica in others)]
        rows = self.group.gather(torch.stack(computed))  # [replicas, images + labels + 1 + norms]
        total = rows[0]
        for row in rows[1:]:  # in this order, whichever process computed it
            total = total + row
        return _unflat(total / len(rows), gradient)


def replica_config(config: RunConfig, replica: int) -> RunConfig:
    """`config` with the seed for the networks and batches of one replica. Replica 0 has the run's
    own seed, so that more replicas leave the draws of the others unchanged."""
    return replace(config, seed=derive_seed(config.seed, "replica", replica)) if replica else config


def _flat(gradient: MetaGradient) -> Tensor:
    """Everything in one row: one message instead of several."""
    norms = gradient.inner_gradient_norms
    parts = [gradient.images, gradient.labels, gradient.outer_loss, norms]
    return torch.cat([part.flatten() for part in parts if part is not None])


def _unflat(row: Tensor, like: MetaGradient) -> MetaGradient:
    """The inverse of `_flat`, with the shapes of `like`."""
    sizes = [0 if part is None else part.numel() for part in (like.images, like.labels)]
    images, labels, loss, norms = row.tensor_split([sizes[0], sum(sizes), sum(sizes) + 1])
    return MetaGradient(
        images.view_as(like.images),
        None if like.labels is None else labels.view_as(like.labels),
        loss.squeeze(0),
        None if like.inner_gradient_norms is None else norms,
    )
