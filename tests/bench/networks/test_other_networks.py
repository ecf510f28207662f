"""AlexNet, VGG-11, ResNet-18 and larger ConvNets: size, function, and the images they refuse."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.networks import ARCHITECTURES, build_network, initial_parameters
from bench.training.randomness import torch_generator

Shape = tuple[int, int, int]
ONE_SIZE = ("alexnet", "alexnet_avgpool", "vgg11", "resnet18")


def build(arch: str, shape: Shape = (3, 32, 32), classes: int = 10, **size: Any) -> nn.Module:
    network = build_network(arch, image_shape=shape, classes=classes, **size)
    drawn = initial_parameters(network, torch_generator(0, "network"))
    # Also the scales and shifts of norms, which begin with 1 and 0.
    generator = torch_generator(0, "norms")
    for name, tensor in drawn.items():
        if tensor.dim() == 1:
            drawn[name] = tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
    network.load_state_dict(drawn)
    return network.double()


def images(count: int, shape: Shape) -> Tensor:
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch_generator(0, "images"))


# --- size

BLOCKS_OF_RESNET18 = (
    2 * (2 * (9 * 64 * 64) + 4 * 64)
    + (9 * 64 * 128 + 9 * 128 * 128 + 4 * 128 + 64 * 128 + 2 * 128)  # with a shortcut of its own
    + (2 * (9 * 128 * 128) + 4 * 128)
    + (9 * 128 * 256 + 9 * 256 * 256 + 4 * 256 + 128 * 256 + 2 * 256)
    + (2 * (9 * 256 * 256) + 4 * 256)
    + (9 * 256 * 512 + 9 * 512 * 512 + 4 * 512 + 256 * 512 + 2 * 512)
    + (2 * (9 * 512 * 512) + 4 * 512)
)
# Kernels times inputs times outputs; then biases, and scales and shifts of norms, three an output.
ALEXNET = (
    (25 * 3 * 128 + 25 * 128 * 192 + 9 * 192 * 256 + 9 * 256 * 192 + 9 * 192 * 192)
    + 3 * (128 + 192 + 256 + 192 + 192)
    + (192 * 4 * 4 * 10 + 10)
)
VGG11 = (
    9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 3 * 512 * 512)
    + 3 * (64 + 128 + 2 * 256 + 4 * 512)
    + (512 * 10 + 10)
)
WIDE = 9 * (3 * 128 + 128 * 256 + 256 * 512) + 3 * (128 + 256 + 512) + (512 * 4 * 4 * 10 + 10)
CONVNET4 = 9 * (3 * 128 + 3 * 128 * 128) + 4 * 3 * 128 + (128 * 4 * 4 * 200 + 200)
RESNET18 = (9 * 3 * 64 + 2 * 64) + BLOCKS_OF_RESNET18 + (512 * 10 + 10)


@pytest.mark.parametrize(
    ("arch", "by_hand", "counted"),
    [
        ("alexnet", ALEXNET, 1_874_122),
        ("alexnet_avgpool", ALEXNET, 1_874_122),
        ("vgg11", VGG11, 9_231_114),
        ("resnet18", RESNET18, 11_173_962),
        ("wide_convnet", WIDE, 1_562_634),
    ],
)
def test_parameters_are_those_counted_by_hand(arch: str, by_hand: int, counted: int) -> None:
    network = build_network(arch, image_shape=(3, 32, 32), classes=10, width=128, depth=3)
    assert sum(tensor.numel() for tensor in network.parameters()) == by_hand == counted


def test_convnet_4_for_tiny_imagenet_has_the_parameters_counted_by_hand() -> None:
    network = build_network("convnet", image_shape=(3, 64, 64), classes=200, width=128, depth=4)
    assert sum(tensor.numel() for tensor in network.parameters()) == CONVNET4


# --- what they compute, against torch's functions and its own instance norm


def block(p: Iterator[Tensor], x: Tensor, padding: int, biased: bool = True) -> Tensor:
    """Convolution and instance norm."""
    weight, bias = next(p), next(p) if biased else None
    return normalized(p, F.conv2d(x, weight, bias, padding=padding))


def normalized(p: Iterator[Tensor], x: Tensor) -> Tensor:
    return F.instance_norm(x, weight=next(p), bias=next(p))


def plain_alexnet(p: Iterator[Tensor], x: Tensor, pool: Callable[..., Tensor]) -> Tensor:
    x = pool(block(p, x, 2).relu(), 2)
    x = pool(block(p, x, 2).relu(), 2)
    for _ in range(3):
        x = block(p, x, 1).relu()
    return F.linear(pool(x, 2).flatten(1), next(p), next(p))


def plain_vgg11(p: Iterator[Tensor], x: Tensor) -> Tensor:
    for pooled in (True, True, False, True, False, True, False, True):
        x = block(p, x, 1).relu()
        x = F.max_pool2d(x, 2) if pooled else x
    return F.linear(x.flatten(1), next(p), next(p))


def plain_resnet18(p: Iterator[Tensor], x: Tensor) -> Tensor:
    x = block(p, x, 1, biased=False).relu()
    for stride in (1, 1, 2, 1, 2, 1, 2, 1):
        inner = normalized(p, F.conv2d(x, next(p), stride=stride, padding=1)).relu()
        inner = block(p, inner, 1, biased=False)
        if stride == 2:
            x = normalized(p, F.conv2d(x, next(p), stride=2))
        x = (inner + x).relu()
    return F.linear(x.mean(dim=(2, 3)), next(p), next(p))


PLAIN: dict[str, Callable[[Iterator[Tensor], Tensor], Tensor]] = {
    "alexnet": lambda p, x: plain_alexnet(p, x, F.max_pool2d),
    "alexnet_avgpool": lambda p, x: plain_alexnet(p, x, F.avg_pool2d),
    "vgg11": plain_vgg11,
    "resnet18": plain_resnet18,
}


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 64, 64)])
@pytest.mark.parametrize("arch", ONE_SIZE)
@torch.no_grad()
def test_logits_are_those_of_torch_s_plain_functions(arch: str, shape: Shape) -> None:
    network, batch = build(arch, shape, classes=7), images(2, shape)
    parameters = iter(network.parameters())
    expected = PLAIN[arch](parameters, batch)
    assert next(parameters, None) is None
    assert expected.shape == (2, 7)
    torch.testing.assert_close(network(batch), expected, rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_the_wide_convnet_doubles_its_channels_with_each_block() -> None:
    network, batch = build("wide_convnet", width=4, depth=3), images(2, (3, 32, 32))
    parameters, x = iter(network.parameters()), batch
    for outputs in (4, 8, 16):
        x = F.avg_pool2d(block(parameters, x, 1).relu(), 2)
        assert x.shape[1] == outputs
    expected = F.linear(x.flatten(1), *parameters)
    torch.testing.assert_close(network(batch), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("arch", ONE_SIZE)
@torch.no_grad()
def test_images_are_taken_one_by_one_in_training_and_in_evaluation(arch: str) -> None:
    network, batch = build(arch), images(3, (3, 32, 32))
    together = network.train()(batch)
    alone = torch.cat([network.eval()(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(alone[0], alone[1])


# --- small images

SMALLEST = {"alexnet": 8, "alexnet_avgpool": 8, "vgg11": 32, "resnet18": 9}


@pytest.mark.parametrize("arch", ONE_SIZE)
def test_images_whose_last_norm_would_see_single_pixels_are_refused(arch: str) -> None:
    side = SMALLEST[arch]
    for shape in [(1, side - 1, side - 1), (3, side - 1, 64), (3, 64, side - 1)]:
        with pytest.raises(ValueError, match=f"too deep for images of {shape[1]}x{shape[2]}"):
            build_network(arch, image_shape=shape, classes=10)


@pytest.mark.parametrize("arch", ONE_SIZE)
def test_at_the_smallest_images_every_weight_still_learns(arch: str) -> None:
    shape = (1, SMALLEST[arch], SMALLEST[arch])
    network = build(arch, shape)
    sides: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_hook(lambda _, inputs, __: sides.extend(inputs[0].shape[2:]))
    F.cross_entropy(network(images(2, shape)), torch.tensor([1, 2])).backward()
    assert min(sides) == 2
    weights = [tensor for tensor in network.parameters() if tensor.dim() > 1]
    assert all(tensor.grad is not None and tensor.grad.norm() > 1e-6 for tensor in weights)


def test_an_unknown_architecture_is_refused_with_all_known_ones() -> None:
    with pytest.raises(ValueError, match=", ".join(ARCHITECTURES)):
        build_network("resnet19", image_shape=(3, 32, 32), classes=10)
