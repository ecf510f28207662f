"""The work to measure: one outer step of a ConvNet, and the same step grown in one direction."""

from dataclasses import dataclass, replace
from typing import Any

from bench.config.command_line import setting

PRECISIONS = ("float32", "tf32", "bf16")
IMAGE_SHAPE, CLASSES = (3, 32, 32), 10


@dataclass(frozen=True)
class Work:
    """One outer step of a ConvNet on 32x32 images, inner optimizer Adam, random data."""

    width: int = setting(64, "channels of each block", minimum=1)
    depth: int = setting(3, "blocks", minimum=1, maximum=16)
    images: int = setting(100, "distilled images, all in each inner batch", minimum=1)
    window: int = setting(40, "inner steps that the gradient flows through", minimum=1)
    warm_up: int = setting(0, "inner steps before the window", minimum=0)
    target_batch: int = setting(100, "target images", minimum=1)
    precision: str = setting("float32", "of convolutions and matrix products", PRECISIONS)
    conv_bias: bool = setting(True, "whether the convolutions have biases")

    @property
    def inner_steps(self) -> int:
        return self.warm_up + self.window

    def __str__(self) -> str:
        return (
            f"ConvNet-{self.depth}, width {self.width}, {self.images} images,"
            f" warm-up {self.warm_up}, window {self.window}, target batch {self.target_batch},"
            f" {self.precision}{'' if self.conv_bias else ', convolutions without biases'}"
        )


# Each list from small to large: the first ones tell what memory the last ones would need.
GROWTH: dict[str, tuple[Any, ...]] = {
    "window": (10, 20, 40, 80, 160),
    "warm_up": (0, 40, 160),
    "width": (32, 64, 128),
    "target_batch": (100, 1000, 5000),
}
QUICK_GROWTH: dict[str, tuple[Any, ...]] = {"window": (5, 10, 20)}


def variations(work: Work, growth: dict[str, tuple[Any, ...]]) -> list[Work]:
    """The work, and works that differ from it in one of the values of `growth`; none twice."""
    grown = [
        replace(work, **{key: value})
        for key, values in growth.items()
        for value in sorted({*values, getattr(work, key)}, key=values_order(values))
    ]
    return list(dict.fromkeys([*grown, work]))


def values_order(values: tuple[Any, ...]) -> Any:
    """Numbers by size; names as they are listed."""
    if all(isinstance(value, int) for value in values):
        return lambda value: value
    return lambda value: values.index(value) if value in values else -1


def make_work(work: Work, device: Any, dtype: Any, seed: int = 0) -> tuple[Any, tuple[Any, Any]]:
    """The bilevel problem and its target batch, the same numbers in every process.

    Adam's epsilon has torch's form, the only one that every engine has. The other forms cost the
    same: a step adds another number, and nothing else.
    """
    import torch

    from bench.metagrad import Adam, Problem
    from bench.networks import initial_parameters
    from bench.training.randomness import torch_generator

    network = make_network(work)
    parameters = initial_parameters(network, torch_generator(seed, "speed/network"))
    generator = torch_generator(seed, "speed/data")
    images = torch.randn(work.images, *IMAGE_SHAPE, generator=generator)
    targets = torch.randn(work.target_batch, *IMAGE_SHAPE, generator=generator)
    classes = torch.randint(CLASSES, (work.target_batch,), generator=generator)
    labels = torch.nn.functional.one_hot(torch.arange(work.images) % CLASSES, CLASSES)
    problem = Problem(
        network,
        {name: value.to(device, dtype) for name, value in parameters.items()},
        Adam(1e-3),
        images.to(device, dtype),
        labels.to(device, dtype),
    )
    return problem, (targets.to(device, dtype), classes.to(device))


def make_network(work: Work) -> Any:
    """Its ConvNet.

    Raises:
        UserError: too deep for the images.
    """
    from bench.networks import build_network
    from bench.system.errors import UserError

    try:
        return build_network(
            "convnet",
            image_shape=IMAGE_SHAPE,
            classes=CLASSES,
            width=work.width,
            depth=work.depth,
            conv_bias=work.conv_bias,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
