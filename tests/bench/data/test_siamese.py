"""Differentiable Siamese augmentation: each map against loops over pixels, draws, derivatives."""

from collections import Counter
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from bench.data import augment, siamese
from bench.data.augment import AugmentationDraw
from bench.system.choices import SHAPES

NAMES = [field.name for field in fields(AugmentationDraw)]
SHAPE = (3, 3, 32, 32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator(7), dtype=torch.float64)


def unit(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def chosen(draw: AugmentationDraw) -> str:
    (name,) = (name for name in NAMES if getattr(draw, name) is not None)
    return name


def draw_of(name: str, kind: str = "dsa_each", batch_size: int = 3) -> AugmentationDraw:
    """The first draw of a kind that is this map."""
    source = generator(1)
    draws = (augment.draw(kind, batch_size, source) for _ in range(1000))
    return next(draw for draw in draws if chosen(draw) == name)


def test_color_moves_brightness_saturation_and_contrast_in_this_order() -> None:
    before, numbers = images(*SHAPE), unit((0.1, 0.9, 0.3), (0.5, 0.5, 0.5), (1.0, 0.0, 0.0))
    after = siamese.color(before, numbers)
    for image, (bright, saturated, contrasted), found in zip(before, numbers, after, strict=True):
        image = image + (bright - 0.5)
        gray = image.mean(0)
        image = gray + 2 * saturated * (image - gray)
        expected = image.mean() + (contrasted + 0.5) * (image - image.mean())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("number", [0.0, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("shape", [SHAPE, (3, 1, 8, 8), (3, 2, 9, 17)])
def test_crop_shifts_by_up_to_an_eighth_of_a_side(number: float, shape: tuple[int, ...]) -> None:
    before = images(*shape)
    after = siamese.crop(before, unit((number, 0.5), (0.5, number), (number, number)))
    for which, (down, right) in enumerate([(number, 0.5), (0.5, number), (number, number)]):
        expected = torch.zeros(shape[1:], dtype=torch.float64)
        limits = [int(side / 8 + 0.5) for side in shape[2:]]
        shifts = [
            int(part * (2 * n + 1)) - n for part, n in zip((down, right), limits, strict=True)
        ]
        for y in range(shape[2]):
            for x in range(shape[3]):
                row, column = y + shifts[0], x + shifts[1]
                if 0 <= row < shape[2] and 0 <= column < shape[3]:
                    expected[:, y, x] = before[which, :, row, column]
        assert torch.equal(after[which], expected)


@pytest.mark.parametrize("shape", [SHAPE, (3, 1, 8, 8), (3, 2, 9, 17)])
def test_cutout_sets_a_square_of_half_a_side_to_zero(shape: tuple[int, ...]) -> None:
    numbers = [(0.5, 0.5), (0.0, 0.99), (0.3, 0.7)]
    after = siamese.cutout(torch.ones(shape, dtype=torch.float64), unit(*numbers))
    for image, pair in zip(after, numbers, strict=True):
        expected = torch.ones(shape[1:], dtype=torch.float64)
        lines = []
        for side, part in zip(shape[2:], pair, strict=True):
            size = int(side / 2 + 0.5)
            first = int(part * (side + 1 - size % 2)) - size // 2
            lines.append([at for at in range(first, first + size) if 0 <= at < side])
        for row in lines[0]:
            for column in lines[1]:
                expected[:, row, column] = 0
        assert torch.equal(image, expected)


def test_scale_by_one_changes_nothing_and_by_more_shrinks_about_the_center() -> None:
    same = (1 - 1 / 1.2) / (1.2 - 1 / 1.2)  # the number that means a factor of 1
    before = images(*SHAPE)
    after = siamese.scale(before, unit((same, same), (1.0, same), (0.0, same)))
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=1e-12)
    ones = siamese.scale(torch.ones(SHAPE, dtype=torch.float64), unit(*[(1.0, same)] * 3))
    filled = (ones[0, 0] > 0.5).sum(1)  # each row loses a sixth of its width
    assert set(filled.tolist()) == {26}
    assert siamese.scale(torch.ones(SHAPE), unit(*[(0.0, 0.0)] * 3)).min() == 1


def test_a_batch_gets_one_of_six_maps_each_as_often() -> None:
    source = generator()
    counts = Counter(chosen(augment.draw("dsa", 2, source)) for _ in range(3000))
    assert len(counts) == 6
    assert all(abs(count - 500) < 4 * (3000 * 5 / 36) ** 0.5 for count in counts.values())


@pytest.mark.parametrize("kind", ["dsa_no_flip", "dsa_each_no_flip"])
def test_digits_are_never_mirrored_and_get_the_other_maps_each_as_often(kind: str) -> None:
    source = generator()
    counts = Counter(chosen(augment.draw(kind, 2, source)) for _ in range(3000))
    assert set(counts) == set(NAMES) - {"flip"}
    assert all(abs(count - 600) < 4 * (3000 * 4 / 25) ** 0.5 for count in counts.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_shares_its_numbers_unless_each_image_has_its_own(name: str) -> None:
    shared, each = (getattr(draw_of(name, kind, 64), name) for kind in ("dsa", "dsa_each"))
    assert len(shared.unique(dim=0)) == 1
    assert len(each.unique(dim=0)) == (2 if name == "flip" else 64)


@pytest.mark.parametrize("name", NAMES)
def test_first_and_second_derivatives_equal_finite_differences(name: str) -> None:
    draw = draw_of(name, batch_size=2)
    before = images(2, 2, 8, 8)[:, :, :5, :5].contiguous().requires_grad_()

    def cubed(x: Tensor) -> Tensor:
        return augment.apply(x, draw) ** 3

    assert torch.autograd.gradcheck(cubed, before)
    assert torch.autograd.gradgradcheck(cubed, before)


@pytest.mark.parametrize("name", NAMES)
def test_many_cotangents_at_once_give_what_each_gives_alone(name: str) -> None:
    draw = draw_of(name)
    before, cotangents = images(3, 2, 6, 6), images(12, 2, 6, 6).view(4, 3, 2, 6, 6)
    back = torch.func.vjp(lambda x: augment.apply(x, draw), before)[1]
    expected = torch.stack([back(cotangent)[0] for cotangent in cotangents])
    torch.testing.assert_close(torch.func.vmap(lambda c: back(c)[0])(cotangents), expected)


def test_draws_of_several_maps_are_moved_together() -> None:
    draws = [draw_of(name) for name in NAMES]
    for before, after in zip(draws, augment.move(draws, "cpu"), strict=True):
        assert chosen(before) == chosen(after)
        assert torch.equal(getattr(before, chosen(before)), getattr(after, chosen(after)))


@pytest.mark.parametrize("data", SHAPES)
def test_every_data_sets_images_can_be_augmented(data: str) -> None:
    shape = SHAPES[data]
    before = images(3, shape.channels, shape.side, shape.side).float()
    for name in NAMES:
        after = augment.apply(before, draw_of(name))
        assert after.shape == before.shape
        assert after.dtype == before.dtype
        assert after.isfinite().all()
