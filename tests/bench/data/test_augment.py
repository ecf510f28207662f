"""Augmentation: the right map, the right distribution, derivatives of every kind."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data import augment
from bench.data.augment import AugmentationDraw
from bench.system.choices import AUGMENTATIONS
from bench.system.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=generator(7), dtype=dtype)


def rotation(batch_size: int) -> AugmentationDraw:
    return augment.draw("rotate", batch_size, generator(1))


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (3, 1, 32, 32), (4, 2, 6, 11)])
def test_rotation_by_the_drawn_angles_equals_torchvisions_counter_clockwise_one(
    shape: tuple[int, int, int, int],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transforms = pytest.importorskip("torchvision.transforms")
    before, draw = images(*shape), rotation(shape[0])
    assert draw.angles is not None
    bilinear = transforms.InterpolationMode.BILINEAR
    expected = torch.stack(
        [
            transforms.functional.rotate(image, math.degrees(angle), bilinear)  # positive: ccw
            for image, angle in zip(before, draw.angles.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(augment.apply(before, draw), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotation_equals_affine_grid_and_grid_sample(dtype: torch.dtype) -> None:
    before, draw = images(6, 3, 16, 16, dtype=dtype), rotation(6)
    assert draw.angles is not None
    cos, sin, zero = draw.angles.cos(), draw.angles.sin(), torch.zeros(6)
    rows = [torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)]
    grid = F.affine_grid(torch.stack(rows, 1).to(dtype), [6, 3, 16, 16], align_corners=False)
    expected = F.grid_sample(before, grid, padding_mode="zeros", align_corners=False)
    after = augment.apply(before, draw)
    assert after.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(after, expected, rtol=0, atol=tolerance)


def test_rotation_by_a_quarter_turn_and_by_nothing_moves_whole_pixels() -> None:
    before = images(2, 3, 8, 8)
    draw = AugmentationDraw(angles=torch.tensor([math.pi / 2, 0.0], dtype=torch.float64))
    after = augment.apply(before, draw)
    torch.testing.assert_close(after[0], torch.rot90(before[0], 1, (-2, -1)), rtol=0, atol=1e-12)
    assert torch.equal(after[1], before[1])


def test_rotation_fills_with_zeros_from_outside() -> None:
    draw = AugmentationDraw(angles=torch.full((1,), math.radians(15), dtype=torch.float64))
    after = augment.apply(torch.ones(1, 1, 32, 32), draw)
    assert after[0, 0, 0, 0] == 0
    assert after[0, 0, 16, 16] == pytest.approx(1)


def test_flip_mirrors_exactly_the_drawn_images() -> None:
    before = images(64, 3, 8, 8, dtype=torch.float32)
    draw = augment.draw("flip", 64, generator())
    assert draw.flip is not None
    assert draw.angles is None
    after = augment.apply(before, draw)
    for index, flipped in enumerate(draw.flip.tolist()):
        assert torch.equal(after[index], before[index].flip(-1) if flipped else before[index])


def test_none_leaves_the_batch_as_it_is() -> None:
    before = images(3, 1, 4, 4)
    assert augment.apply(before, augment.draw("none", 3, generator())) is before


def test_half_of_the_images_are_flipped() -> None:
    draw = augment.draw("flip", 20_000, generator())
    assert draw.flip is not None
    assert draw.flip.double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(20_000))


def test_angles_are_uniform_within_fifteen_degrees() -> None:
    angles = augment.draw("rotate", 20_000, generator()).angles
    assert angles is not None
    degrees = angles.rad2deg().sort().values
    uniform = torch.linspace(-15, 15, 20_000, dtype=torch.float64)
    assert degrees[0] >= -15
    assert degrees[-1] <= 15
    # Kolmogorov-Smirnov distance, in degrees of a 30 degree range; 1.95/sqrt(n) is p = 0.001.
    assert (degrees - uniform).abs().max().item() < 30 * 1.95 / math.sqrt(20_000)


def test_flip_or_rotate_does_one_of_the_two_to_a_whole_batch_each_half_of_the_time() -> None:
    source = generator()
    draws = [augment.draw("flip_or_rotate", 2, source) for _ in range(2_000)]
    assert all((draw.flip is None) != (draw.angles is None) for draw in draws)
    flips = sum(draw.flip is not None for draw in draws)
    assert flips / 2_000 == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2_000))


def numbers(draw: AugmentationDraw) -> list[list[float] | None]:
    return [None if part is None else part.tolist() for part in (draw.flip, draw.angles)]


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_draw_is_a_function_of_the_generators_state_alone(kind: str) -> None:
    torch.manual_seed(1)
    first = augment.draw(kind, 8, generator(3))
    torch.manual_seed(2)
    torch.set_default_dtype(torch.float64)
    try:
        second = augment.draw(kind, 8, generator(3))
    finally:
        torch.set_default_dtype(torch.float32)
    assert numbers(first) == numbers(second)


def test_an_unknown_kind_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"unknown augmentation shear.*flip_or_rotate"):
        augment.draw("shear", 2, generator())


@pytest.mark.parametrize("kind", ["flip", "rotate"])
def test_first_and_second_derivatives_equal_finite_differences(kind: str) -> None:
    draw = augment.draw(kind, 2, generator(1))
    before = images(2, 1, 4, 4).requires_grad_()

    def cubed(x: Tensor) -> Tensor:
        return augment.apply(x, draw) ** 3

    assert torch.autograd.gradcheck(cubed, before)
    assert torch.autograd.gradgradcheck(cubed, before)


@pytest.mark.parametrize("kind", ["flip", "rotate"])
def test_the_vjp_is_the_transpose_of_the_map(kind: str) -> None:
    draw = augment.draw(kind, 4, generator(1))
    before, cotangent = images(4, 3, 8, 8), images(4, 3, 8, 8).flip(0)
    after = augment.apply(before, draw)
    back = torch.func.vjp(lambda x: augment.apply(x, draw), before)[1](cotangent)[0]
    torch.testing.assert_close((back * before).sum(), (cotangent * after).sum())


@pytest.mark.parametrize("kind", ["flip", "rotate"])
def test_many_cotangents_at_once_give_what_each_gives_alone(kind: str) -> None:
    draw = augment.draw(kind, 3, generator(1))
    before, cotangents = images(3, 2, 6, 6), images(12, 2, 6, 6).view(4, 3, 2, 6, 6)
    back = torch.func.vjp(lambda x: augment.apply(x, draw), before)[1]
    expected = torch.stack([back(cotangent)[0] for cotangent in cotangents])
    torch.testing.assert_close(torch.func.vmap(lambda c: back(c)[0])(cotangents), expected)
