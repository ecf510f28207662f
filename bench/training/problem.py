"""The bilevel problem of one outer step, with its random draws."""

from torch import Tensor, nn

from bench.config.run_config import RunConfig
from bench.metagrad import OUTER_LOSSES, InnerOptimizer, Problem
from bench.networks import initial_parameters
from bench.training.batches import InnerBatches
from bench.training.randomness import torch_generator


def outer_problem(
    config: RunConfig,
    network: nn.Module,
    optimizer: InnerOptimizer,
    images: Tensor,
    labels: Tensor,
    step: int,
    stop: int,
) -> Problem:
    """The problem of outer step `step`: a fresh network and its inner batches, as drawn for the
    seed of `config`.

    Args:
        images: distilled images [classes*ipc, C, H, W], class by class.
        labels: [classes*ipc, classes].
        stop: inner steps whose batches are drawn together; later ones are drawn when needed.
    """
    drawn = initial_parameters(network, torch_generator(config.seed, "network", step))
    return Problem(
        network,
        {name: value.to(images) for name, value in drawn.items()},
        optimizer,
        images,
        labels,
        InnerBatches(config, labels.shape[1], config.augment_inner, "inner", (step,), steps=stop),
        config.learn_labels,
        OUTER_LOSSES[config.outer_loss],
    )
