"""Hallucinators: what they compute, and how they begin."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench.config.resolve import resolve
from bench.config.storage_budget import Budget, nominal_budget
from bench.distillation import hallucinators


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_hallucinator_is_an_encoder_an_affine_transform_and_a_decoder(channels: int) -> None:
    shapes = Budget(10, (3, 8, 6), 1, False).hallucinator(channels == 1)
    drawn = {name: noise(2, *shape, seed=k) for k, (name, shape) in enumerate(shapes.items())}
    bases = noise(4, channels, 8, 6)
    expected = torch.empty(4, 2, 3, 8, 6, dtype=torch.float64)
    count = 0
    for h in range(2):
        encoder, decoder = nn.Conv2d(channels, 3, 3).double(), nn.ConvTranspose2d(3, 3, 3).double()
        for module, name in ((encoder, "encoder"), (decoder, "decoder")):
            module.weight.data, module.bias.data = drawn[name][h], drawn[f"{name}_bias"][h]  # pyright: ignore[reportOptionalMemberAccess]
        inside = drawn["scale"][h] * encoder(bases) + drawn["shift"][h]
        expected[:, h] = decoder(inside).detach()
        count = sum(p.numel() for p in (*encoder.parameters(), *decoder.parameters()))
    torch.testing.assert_close(hallucinators.decode(bases, **drawn), expected.flatten(0, 1))
    assert sum(part[0].numel() for part in drawn.values()) == count + 2 * 3 * 6 * 4


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_begin_as_torch_initializes_them(channels: int) -> None:
    config = resolve({"parameterization": "haba", "haba_single_channel": channels == 1})
    config = replace(config, haba_hallucinators=50)
    drawn = hallucinators._drawn(config, nominal_budget("cifar10", 0, 10, False))
    torch.manual_seed(0)
    modules = {"encoder": nn.Conv2d(channels, 3, 3), "decoder": nn.ConvTranspose2d(3, 3, 3)}
    for name, module in modules.items():
        assert drawn[name].shape == (50, *module.weight.shape)
        for part, own in ((name, module.weight), (f"{name}_bias", module.bias)):
            for _ in range(100):  # the largest of many draws is near the bound
                module.reset_parameters()
                assert own is not None
                assert own.abs().max() <= 1.15 * drawn[part].abs().max()
            assert drawn[part].min() < 0 < drawn[part].max()
    assert (drawn["scale"] == 1).all()
    assert (drawn["shift"] == 0).all()


def test_bases_of_one_channel_begin_as_the_mean_over_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"haba_single_channel": True, "haba_hallucinators": 3}
    config = resolve({"parameterization": "haba", "ipc": 1, **settings})
    assert config.haba_bases == 1
    images = noise(10, 3, 32, 32)
    monkeypatch.setattr(hallucinators, "initial_images", lambda *_: images)
    budget = nominal_budget("cifar10", 0, 1, False)
    for norm, expected in ((0.0, images.mean(dim=1, keepdim=True)), (2.0, None)):
        config = replace(config, init_norm=norm)
        drawn = hallucinators.initial_hallucinators(config, None, budget)  # pyright: ignore[reportArgumentType]
        assert drawn["bases"].shape == (10, 1, 32, 32)
        if expected is not None:
            assert torch.equal(drawn["bases"], expected)
        else:
            norms = drawn["bases"].flatten(1).norm(dim=1)
            torch.testing.assert_close(norms, torch.full_like(norms, norm))
        assert hallucinators.decode(**drawn).shape == (30, 3, 32, 32)
