"""Networks without the biases that an instance norm makes ineffective."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from bench.networks import ARCHITECTURES, build_network, initial_parameters
from bench.system.choices import UNBIASED_ARCHITECTURES
from bench.training.randomness import torch_generator

BIASED = [arch for arch in ARCHITECTURES if arch not in UNBIASED_ARCHITECTURES]


def build(arch: str, conv_bias: bool) -> nn.Module:
    return build_network(
        arch, image_shape=(3, 32, 32), classes=5, width=4, depth=3, conv_bias=conv_bias
    )


def draw(network: nn.Module) -> dict[str, Tensor]:
    return initial_parameters(network, torch_generator(0, "network"))


def convolutions(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    named = network.named_modules()
    return ((name, part) for name, part in named if isinstance(part, nn.Conv2d))


@pytest.mark.parametrize("arch", BIASED)
@torch.no_grad()
def test_without_biases_all_other_parameters_are_the_same_numbers_and_so_is_the_function(
    arch: str,
) -> None:
    network, without = build(arch, True), build(arch, False)
    drawn, others = draw(network), draw(without)
    biases = {f"{name}.bias" for name, part in convolutions(network) if part.bias is not None}
    assert len(biases) == len(list(convolutions(network)))
    assert drawn.keys() - others.keys() == biases
    assert list(others) == [name for name, _ in without.named_parameters()]
    assert all(torch.equal(drawn[name], others[name]) for name in others)
    network.load_state_dict(drawn)
    without.load_state_dict(others)
    images = torch.randn(3, 3, 32, 32, generator=torch_generator(0, "images")).double()
    expected, found = network.double()(images), without.double()(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("arch", UNBIASED_ARCHITECTURES)
def test_a_network_that_never_has_biases_is_the_same_either_way(arch: str) -> None:
    network, without = build(arch, True), build(arch, False)
    assert all(part.bias is None for _, part in convolutions(network))
    drawn, others = draw(network), draw(without)
    assert drawn.keys() == others.keys()
    assert all(torch.equal(drawn[name], others[name]) for name in drawn)
