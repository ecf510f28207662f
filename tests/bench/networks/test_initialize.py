"""Initial parameters: a function of the generator alone, distributed as torch's own."""

import math

import pytest
import torch
from torch import Tensor, nn

from bench.networks import ARCHITECTURES, ConvNet, build_network, initial_parameters
from bench.training.randomness import torch_generator

NETWORK = ConvNet((3, 16, 16), classes=5, width=(32, 16), depth=2)


def draw(seed: int) -> dict[str, Tensor]:
    return initial_parameters(NETWORK, torch_generator(seed, "network"))


def layer(name: str) -> nn.Module:
    return NETWORK.get_submodule(name.rpartition(".")[0])


NAMES = [name for name, _ in NETWORK.named_parameters()]
UNIFORM = [name for name in NAMES if isinstance(layer(name), nn.Conv2d | nn.Linear)]


def test_the_same_generator_gives_the_same_parameters_and_another_seed_others() -> None:
    first, again, other = draw(0), draw(0), draw(1)
    assert all(torch.equal(first[name], again[name]) for name in NAMES)
    assert not any(torch.equal(first[name], other[name]) for name in UNIFORM)


def test_names_shapes_and_their_order_are_those_of_the_module() -> None:
    drawn = [(name, tensor.shape) for name, tensor in draw(0).items()]
    assert drawn == [(name, tensor.shape) for name, tensor in NETWORK.named_parameters()]


def test_names_are_those_of_the_module_also_without_a_container_and_in_nested_ones() -> None:
    for network in (
        nn.Linear(3, 2),
        nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3, bias=False)), nn.Linear(2, 2)),
    ):
        drawn = initial_parameters(network, torch_generator(0, "network"))
        assert list(drawn) == [name for name, _ in network.named_parameters()]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_parameter_of_every_architecture_is_drawn(arch: str) -> None:
    network = build_network(arch, image_shape=(3, 32, 32), classes=5, width=4, depth=3)
    drawn = initial_parameters(network, torch_generator(0, "network"))
    shapes = [(name, tensor.shape) for name, tensor in network.named_parameters()]
    assert [(name, tensor.shape) for name, tensor in drawn.items()] == shapes
    weights = [tensor for tensor in drawn.values() if tensor.dim() > 1]
    assert all(0 < tensor.std() < 1 for tensor in weights)


def test_the_module_and_the_global_random_state_are_neither_read_nor_changed() -> None:
    held = {name: tensor.detach().clone() for name, tensor in NETWORK.named_parameters()}
    before, random_state = draw(0), torch.random.get_rng_state()
    with torch.no_grad():
        for tensor in NETWORK.parameters():
            tensor.fill_(7)
    try:
        after = draw(0)
        assert all((tensor == 7).all() for tensor in NETWORK.parameters())
    finally:
        NETWORK.load_state_dict(held)
    assert all(torch.equal(before[name], after[name]) for name in NAMES)
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize("name", UNIFORM)
def test_weights_and_biases_have_the_bounds_and_variance_of_torchs_default(name: str) -> None:
    """Over many draws, the largest value and the variance are those of `reset_parameters`."""
    module = layer(name)
    assert isinstance(module, nn.Conv2d | nn.Linear)
    attribute = name.rpartition(".")[2]
    ours = torch.cat([draw(seed)[name].flatten() for seed in range(60)])
    held = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    theirs: list[Tensor] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(60):
            module.reset_parameters()
            theirs.append(getattr(module, attribute).detach().clone().flatten())
    module.load_state_dict(held)
    expected = torch.cat(theirs)
    bound = 1 / math.sqrt(module.weight[0].numel())
    assert ours.abs().max() <= bound
    # The largest of n uniform draws misses the bound by about bound/n.
    assert ours.abs().max() > bound * (1 - 12 / len(ours))
    assert expected.abs().max() <= bound * (1 + 1e-6)
    # A uniform variance has the relative standard error sqrt(0.8/n); both sides have one.
    tolerance = 4 * math.sqrt(2 * 0.8 / len(ours))
    assert ours.var().item() == pytest.approx(expected.var().item(), rel=tolerance)
    assert ours.mean().abs() < 5 * bound / math.sqrt(3 * len(ours))


def test_norms_start_with_scale_one_and_shift_zero() -> None:
    drawn = draw(0)
    norms = [name for name in NAMES if isinstance(layer(name), nn.GroupNorm)]
    assert len(norms) == 4
    for name in norms:
        assert (drawn[name] == (1 if name.endswith("weight") else 0)).all()


def test_parameters_are_float32_on_the_cpu_whatever_the_default_type() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        drawn = draw(0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {(tensor.dtype, tensor.device.type) for tensor in drawn.values()} == {
        (torch.float32, "cpu")
    }


def test_a_layer_without_a_known_initialisation_is_refused_by_name() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(TypeError, match=r"BatchNorm1d \(1\)"):
        initial_parameters(network, torch_generator(0, "network"))
