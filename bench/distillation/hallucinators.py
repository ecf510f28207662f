"""`haba`: bases of each class, and small networks, each of which makes an image of each base.

Liu et al., "Dataset distillation via factorization", NeurIPS 2022. A hallucinator is an encoder, a
scale and a shift of each of its values, and a decoder (as in their published code):

    image = decoder(scale * encoder(base) + shift)

with a 3x3 convolution without padding, C channels of (H-2) x (W-2) values, and a transposed 3x3
convolution, both with biases. Hallucinators are shared by all bases and classes; the label of an
image is that of its base. On CIFAR-10 one takes 5,568 floats, and the five of their published
commands 27,840: nearly as much as one image per class. So their sets of one, 10 and 50 bases per
class take almost the storage of 2, 11 and 51 images per class. Here all of it counts. Their variant
with bases of one channel (`haba_single_channel`) leaves more room: three hallucinators beside one
base per class, within the storage of one image per class.

Only the map is theirs, and how bases and networks start. They learn it by trajectory matching, by
SGD with a rate of 100 and momentum 0.95; and they add a loss that pushes the images of one base
apart, by a feature network that is trained alongside. That loss is left out here. In training on
the set, they draw a hallucinator for each base and epoch, and in matching one for each step of the
student; here the set has the images of all. Their rate of the student is learned with momentum 0.9,
here with 0.5, and they standardize each batch of images.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.run_config import RunConfig
from bench.config.storage_budget import Budget
from bench.data import TargetSet
from bench.distillation.initialization import initial_images
from bench.training.randomness import torch_generator


def decode(
    bases: Tensor,
    encoder: Tensor,
    encoder_bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    decoder: Tensor,
    decoder_bias: Tensor,
) -> Tensor:
    """The images of all bases by all hallucinators, [n*h, C, H, W]: first those of the first base.

    Args:
        bases: [n, C, H, W], or of one channel.
        encoder, ...: of h hallucinators, [h, *shape] as in `Budget.hallucinator`.
    """
    # Channels are those of the first hallucinator, then of the second, ...
    inside = F.conv2d(bases, encoder.flatten(0, 1), encoder_bias.flatten())  # [n, h*C, H-2, W-2]
    inside = scale.flatten(0, 1) * inside + shift.flatten(0, 1)
    images = F.conv_transpose2d(
        inside, decoder.flatten(0, 1), decoder_bias.flatten(), groups=len(decoder)
    )
    return images.unflatten(1, (len(decoder), -1)).flatten(0, 1)


def initial_hallucinators(
    config: RunConfig, target_set: TargetSet, budget: Budget
) -> dict[str, Tensor]:
    """The arguments of `decode` to start from, `haba_bases` bases per class, class by class.

    Bases are noise or real images, of one channel their mean over channels; scales are 1, shifts 0,
    and the weights of the convolutions uniform as torch draws them. Those biases suit pixels of
    about 1. With `init_norm`, bases have this norm: biases are scaled as their pixels are, and each
    decoder so that its images have this norm too (their root mean square).

    Raises:
        UserError: some class has fewer training images than bases.
    """
    bases = initial_images(config, target_set, config.haba_bases)
    if config.haba_single_channel:
        bases = bases.mean(dim=1, keepdim=True)
        if config.init_norm:
            bases = F.normalize(bases.flatten(1), dim=1).view_as(bases) * config.init_norm
    drawn = {name: part.to(bases) for name, part in _drawn(config, budget).items()}
    if not config.init_norm:
        return {"bases": bases, **drawn}
    for name in ("encoder_bias", "decoder_bias"):
        drawn[name] *= config.init_norm / math.sqrt(bases[0].numel())
    images = decode(bases, **drawn).unflatten(0, (-1, config.haba_hallucinators))
    norms = images.flatten(2).square().sum(dim=2).mean(dim=0).sqrt()  # of each hallucinator
    factors = config.init_norm / norms
    drawn["decoder"] *= factors[:, None, None, None, None]
    drawn["decoder_bias"] *= factors[:, None]
    return {"bases": bases, **drawn}


def _drawn(config: RunConfig, budget: Budget) -> dict[str, Tensor]:
    """The parameters of all hallucinators as torch initializes them, [hallucinators, *shape]."""
    generator = torch_generator(config.seed, "distilled_hallucinators")
    shapes = budget.hallucinator(config.haba_single_channel)
    count = config.haba_hallucinators
    drawn = {
        "scale": torch.ones(count, *shapes["scale"]),
        "shift": torch.zeros(count, *shapes["shift"]),
    }
    for name in ("encoder", "decoder"):
        # torch counts the second axis of weights, also of a transposed convolution.
        bound = 1 / math.sqrt(math.prod(shapes[name][1:]))
        for part in (name, f"{name}_bias"):
            uniform = torch.rand(count, *shapes[part], generator=generator)
            drawn[part] = bound * (2 * uniform - 1)
    return drawn
