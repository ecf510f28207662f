"""Images resized before they are whitened."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.data import TargetSet, Whitening, load_raw, load_target_set
from bench.data.target_set import resize


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def digits(root: Path, **settings: Any) -> TargetSet:
    return load_target_set("digits", data_root=root, cache_root=root, **settings)


def row(*pixels: int) -> Tensor:
    """Images [1, 1, 2, n] of two equal rows."""
    return torch.tensor([[[pixels, pixels]]], dtype=torch.uint8)


def test_values_between_two_pixels_are_those_of_the_line_through_them() -> None:
    enlarged = resize(row(0, 100), 4)
    assert enlarged.shape == (1, 1, 4, 4)
    assert enlarged[0, 0].tolist() == [[0, 25, 75, 100]] * 4


def test_every_pixel_counts_where_images_get_smaller() -> None:
    # Each new pixel is 4 wide, its triangle reaches 4 to either side of its middle, at 2 and 6. The
    # bright pixel's middle is at 2.5. A triangle cut off at the border weighs 3.5.
    half = resize(row(0, 0, 240, 0, 0, 0, 0, 0), 2)
    weights = [(1 - 0.5 / 4) / 3.5, (1 - 3.5 / 4) / 3.5]
    assert half[0, 0].tolist() == [[round(240 * weight) for weight in weights]] * 2


def test_many_images_are_resized_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    alone = torch.cat([resize(image[None], 9) for image in images])
    monkeypatch.setattr("bench.data.target_set._CHUNK", 2)
    assert torch.equal(resize(images, 9), alone)


def test_resized_images_are_told_cached_apart_and_whitened_after(root: Path) -> None:
    plain, enlarged = digits(root), digits(root, image_size=12)
    assert plain.image_shape == (1, 8, 8)
    assert enlarged.image_shape == (1, 12, 12)
    assert enlarged.source == f"{plain.source} (resized to 12x12)"
    assert enlarged.fingerprint == plain.fingerprint
    assert torch.equal(enlarged.train.labels, plain.train.labels)
    assert len(list((root / "whitened").glob("*.safetensors"))) == 2
    assert torch.equal(digits(root).test.images, plain.test.images)
    assert torch.equal(digits(root, image_size=12).test.images, enlarged.test.images)

    raw = load_raw("digits", root, root)
    train, test = (
        resize(torch.from_numpy(pixels).permute(0, 3, 1, 2), 12)
        for pixels in (raw.train_pixels, raw.test_pixels)
    )
    expected = Whitening.fit(train, zca=True, zca_lambda=0.1).apply(test)
    torch.testing.assert_close(enlarged.test.images, expected)


def test_images_that_have_the_size_are_left_as_they_are(root: Path) -> None:
    plain, same = digits(root, zca=False), digits(root, zca=False, image_size=8)
    assert same.source == plain.source
    assert torch.equal(same.test.images, plain.test.images)
    assert len(list((root / "whitened").glob("*.safetensors"))) == 1
