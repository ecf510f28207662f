"""The ConvNet: its size, the independence of the images in a batch, and what it refuses."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.networks import ConvNet, build_network, initial_parameters
from bench.training.randomness import torch_generator


def small_net() -> nn.Module:
    network = ConvNet((2, 8, 8), classes=3, width=4, depth=2)
    network.load_state_dict(initial_parameters(network, torch_generator(0, "network")))
    return network.double()


def images(count: int) -> Tensor:
    return torch.randn(count, 2, 8, 8, dtype=torch.float64, generator=torch_generator(0, "images"))


def test_convnet_3_of_width_128_has_the_parameters_counted_by_hand() -> None:
    first_convolution = 3 * 3 * 3 * 128 + 128
    other_convolutions = 2 * (3 * 3 * 128 * 128 + 128)
    norms = 3 * 2 * 128
    classifier = 128 * 4 * 4 * 10 + 10
    network = build_network("convnet", image_shape=(3, 32, 32), classes=10, width=128, depth=3)
    expected = first_convolution + other_convolutions + norms + classifier
    assert sum(tensor.numel() for tensor in network.parameters()) == expected == 320_010


def test_the_wide_network_has_one_width_a_block() -> None:
    network = ConvNet((3, 32, 32), 10, width=(128, 256, 512), depth=3)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [module.out_channels for module in convolutions] == [128, 256, 512]
    assert [module.in_channels for module in convolutions] == [3, 128, 256]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 16), (2, 9, 11)])
def test_the_output_has_one_logit_a_class_for_any_shape_of_image(
    shape: tuple[int, int, int],
) -> None:
    network = build_network("convnet", image_shape=shape, classes=7, width=4, depth=2)
    assert network(torch.zeros(5, *shape)).shape == (5, 7)


def test_the_output_of_an_image_does_not_depend_on_the_others_in_its_batch() -> None:
    network, batch = small_net(), images(6)
    alone = torch.cat([network(image[None]) for image in batch])
    torch.testing.assert_close(network(batch), alone, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(alone[0], alone[1])


def test_training_and_evaluation_are_the_same_and_leave_no_trace() -> None:
    network, batch = small_net(), images(6)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    in_training, in_evaluation = network.train()(batch), network.eval()(batch)
    assert torch.equal(in_training, in_evaluation)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_each_channel_of_each_image_is_normalized_by_itself() -> None:
    network, batch = small_net(), images(3)
    scaled = batch.clone()
    scaled[1] *= 5
    normalized: list[Tensor] = []
    norm = next(module for module in network.modules() if isinstance(module, nn.GroupNorm))

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        normalized.append(output)

    norm.register_forward_hook(keep)
    network(batch)
    network(scaled)
    torch.testing.assert_close(
        normalized[0].mean(dim=(2, 3)), torch.zeros(3, 4, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert torch.equal(normalized[0][[0, 2]], normalized[1][[0, 2]])


@pytest.mark.parametrize(
    ("shape", "depth"), [((3, 8, 8), 4), ((3, 32, 32), 6), ((1, 28, 28), 5), ((3, 32, 4), 3)]
)
def test_a_depth_whose_last_norm_would_see_one_pixel_is_refused(
    shape: tuple[int, int, int], depth: int
) -> None:
    with pytest.raises(ValueError, match="too deep"):
        ConvNet(shape, 10, width=4, depth=depth)
    ConvNet(shape, 10, width=4, depth=depth - 1)


@pytest.mark.parametrize(
    ("width", "depth"), [(4, 0), (4, -1), (0, 2), ((4, 4), 3), ((4, 0), 2), ((), 0)]
)
def test_widths_that_do_not_fit_the_depth_are_refused(
    width: int | tuple[int, ...], depth: int
) -> None:
    with pytest.raises(ValueError, match="depth"):
        ConvNet((3, 32, 32), 10, width=width, depth=depth)


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="known: convnet"):
        build_network("convnett", image_shape=(3, 32, 32), classes=10, width=4, depth=3)
