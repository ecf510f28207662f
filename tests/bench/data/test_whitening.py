"""Whitening: the formula, its spectrum, the way back, and the cached target set."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data import load_target_set
from bench.data.whitening import Whitening
from bench.system.errors import UserError

LAMBDA = 0.1
Array = NDArray[np.floating]


def correlated_pixels(n: int, shape: tuple[int, int, int] = (3, 4, 4)) -> Tensor:
    """Images in [0, 1] whose neighbouring values are alike, as in photographs."""
    source = torch.Generator().manual_seed(0)
    dimension = shape[0] * shape[1] * shape[2]
    mixing = torch.randn(dimension, dimension, generator=source, dtype=torch.float64).cumsum(0)
    noise = torch.randn(n, dimension, generator=source, dtype=torch.float64)
    return torch.sigmoid(0.1 * noise @ mixing.T).view(n, *shape)


def reference(train: Array, images: Array) -> tuple[Array, Array]:
    """(whitened images, eigenvalues): the definition in plain numpy, by a matrix square root."""

    def normalize(x: Array) -> Array:
        flat = x.reshape(len(x), -1)
        flat = flat - flat.mean(axis=1, keepdims=True)
        return flat / np.sqrt((flat**2).sum(axis=1, keepdims=True))

    x = normalize(train)
    covariance = x.T @ x / len(x)
    eigenvalues = np.linalg.eigvalsh(covariance)
    regularised = covariance + LAMBDA * np.trace(covariance) / len(covariance) * np.eye(
        len(covariance)
    )
    u, s, vt = np.linalg.svd(regularised)  # another factorisation than the one under test
    whitened = normalize(images) @ (u @ np.diag(s**-0.5) @ vt)
    return whitened.reshape(images.shape), eigenvalues


def test_zca_equals_an_independent_numpy_reference() -> None:
    train, others = correlated_pixels(400).split([300, 100])
    whitening = Whitening.fit(train, zca=True, zca_lambda=LAMBDA)
    expected, _ = reference(train.numpy(), others.numpy())
    whitened = whitening.apply(others)
    assert whitened.dtype == torch.float32
    assert whitened.shape == others.shape
    np.testing.assert_allclose(whitened.numpy(), expected, rtol=0, atol=1e-5 * expected.std())


def test_zca_of_more_images_than_fit_one_chunk_equals_the_reference() -> None:
    train = correlated_pixels(11_003, (1, 2, 3))
    whitening = Whitening.fit(train, zca=True, zca_lambda=LAMBDA)
    expected, _ = reference(train.numpy(), train.numpy())
    np.testing.assert_allclose(whitening.apply(train).numpy(), expected, rtol=0, atol=1e-5)


def test_whitened_covariance_has_the_spectrum_that_the_regularisation_leaves() -> None:
    train = correlated_pixels(2_000)
    whitened = Whitening.fit(train, zca=True, zca_lambda=LAMBDA).apply(train).flatten(1).double()
    spectrum = torch.linalg.eigvalsh(whitened.T @ whitened / len(whitened)).numpy()
    _, eigenvalues = reference(train.numpy(), train.numpy())
    expected = eigenvalues / (eigenvalues + LAMBDA * eigenvalues.mean())
    assert expected.max() > 0.9
    assert expected.min() < 0.1
    np.testing.assert_allclose(spectrum, np.sort(expected), rtol=0, atol=1e-5)


def test_byte_and_float_pixels_whiten_alike() -> None:
    pixels = (correlated_pixels(50) * 255).round().to(torch.uint8)
    whitening = Whitening.fit(pixels, zca=True, zca_lambda=LAMBDA)
    torch.testing.assert_close(whitening.apply(pixels), whitening.apply(pixels.double() / 255))


@pytest.mark.parametrize("zca", [True, False])
def test_to_pixels_inverts_images_of_average_brightness_and_contrast(zca: bool) -> None:
    flat = correlated_pixels(200).flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    flat = 0.5 + 0.5 * flat / flat.norm(dim=1, keepdim=True)  # mean and norm 0.5: all are average
    pixels = flat.view(200, 3, 4, 4)
    assert pixels.min() > 0
    assert pixels.max() < 1
    whitening = Whitening.fit(pixels, zca=zca, zca_lambda=LAMBDA)
    assert whitening.mean == pytest.approx(0.5)
    assert whitening.norm == pytest.approx(0.5)
    restored_pixels = whitening.to_pixels(whitening.apply(pixels).double())
    torch.testing.assert_close(restored_pixels, pixels, rtol=0, atol=1e-5)


def test_to_pixels_stays_within_the_range_of_pixels() -> None:
    train = correlated_pixels(100)
    whitening = Whitening.fit(train, zca=True, zca_lambda=LAMBDA)
    restored_pixels = whitening.to_pixels(100 * whitening.apply(train))
    assert restored_pixels.min() == 0
    assert restored_pixels.max() == 1


def test_without_zca_images_have_mean_zero_and_standard_deviation_one() -> None:
    whitening = Whitening.fit(correlated_pixels(100), zca=False, zca_lambda=LAMBDA)
    flat = whitening.apply(correlated_pixels(100)).flatten(1)
    assert whitening.eigenvectors is None
    torch.testing.assert_close(flat.mean(1), torch.zeros(100), rtol=0, atol=1e-6)
    torch.testing.assert_close(flat.std(dim=1, correction=0), torch.ones(100))


@pytest.mark.parametrize("zca", [True, False])
def test_an_even_image_becomes_zeros_not_nan(zca: bool) -> None:
    train = correlated_pixels(100)
    train[3] = 0.7  # its mean is not exactly 0.7 in floating point
    whitening = Whitening.fit(train, zca=zca, zca_lambda=LAMBDA)
    whitened = whitening.apply(train)
    assert whitened.isfinite().all()
    assert (whitened[3] == 0).all()


def test_only_even_images_are_refused() -> None:
    with pytest.raises(UserError, match="no training image has any contrast"):
        Whitening.fit(torch.full((5, 1, 2, 2), 0.3), zca=True, zca_lambda=LAMBDA)


@pytest.mark.parametrize("zca_lambda", [0.0, -1.0, float("nan")])
def test_a_lambda_that_is_not_positive_is_refused(zca_lambda: float) -> None:
    with pytest.raises(UserError, match="zca_lambda"):
        Whitening.fit(correlated_pixels(10), zca=True, zca_lambda=zca_lambda)


@pytest.mark.parametrize("zca", [True, False])
def test_state_survives_a_safetensors_file_beside_other_tensors(zca: bool, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    train = correlated_pixels(60)
    whitening = Whitening.fit(train, zca=zca, zca_lambda=LAMBDA)
    save_file(whitening.state() | {"images": torch.zeros(2)}, tmp_path / "set.safetensors")
    restored = Whitening.from_state(load_file(tmp_path / "set.safetensors"))
    assert restored.image_shape == (3, 4, 4)
    assert torch.equal(restored.apply(train), whitening.apply(train))
    restored_pixels = whitening.to_pixels(whitening.apply(train))
    assert torch.equal(restored.to_pixels(whitening.apply(train)), restored_pixels)


# --- the target set, on the bundled digits ---


@pytest.fixture(scope="module")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_digits_are_real_whole_and_need_no_data_folder(cache_root: Path) -> None:
    digits = load_target_set("digits", data_root=Path("/nonexistent"), cache_root=cache_root)
    assert len(digits.train) + len(digits.validation) + len(digits.test) == 1_797
    assert len(digits.test) == 500
    assert digits.image_shape == (1, 8, 8)
    assert digits.classes == tuple("0123456789")
    assert digits.source == "scikit-learn digits, resplit"
    assert digits.train.images.dtype == torch.float32
    assert digits.train.labels.dtype == torch.int64
    # Nearest class mean is far above chance only if images and labels still belong together.
    x, y = digits.train.images.flatten(1), digits.train.labels
    means = torch.stack([x[y == label].mean(0) for label in range(10)])
    guess = torch.cdist(digits.test.images.flatten(1), means).argmin(1)
    assert (guess == digits.test.labels).float().mean() > 0.8


def test_the_validation_part_is_balanced_nested_and_taken_from_the_training_set(
    cache_root: Path,
) -> None:
    sets = {
        fraction: load_target_set(
            "digits",
            data_root=cache_root,
            cache_root=cache_root,
            validation_fraction=fraction,
        )
        for fraction in (0.0, 0.1, 0.3)
    }
    whole = sets[0.0].train
    assert len(sets[0.0].validation) == 0
    assert sets[0.0].validation.images.shape == (0, 1, 8, 8)
    for fraction, target_set in sets.items():
        train, validation = target_set.train, target_set.validation
        assert len(validation) == round(fraction * len(whole))
        assert torch.equal(torch.cat([train.images, validation.images]), whole.images)
        assert torch.equal(torch.cat([train.labels, validation.labels]), whole.labels)
        share = fraction * whole.labels.bincount(minlength=10)
        assert ((validation.labels.bincount(minlength=10) - share).abs() <= 1).all()
    small, large = sets[0.1].validation, sets[0.3].validation
    assert torch.equal(large.images[-len(small) :], small.images)


def test_the_whitening_does_not_depend_on_the_validation_part(cache_root: Path) -> None:
    one, other = (
        load_target_set(
            "digits", data_root=cache_root, cache_root=cache_root, validation_fraction=fraction
        )
        for fraction in (0.0, 0.5)
    )
    assert torch.equal(one.test.images, other.test.images)


def test_other_whitening_settings_give_other_images_not_the_cached_ones(cache_root: Path) -> None:
    settings = [(True, 0.1), (True, 0.2), (False, 0.1)]
    images = [
        load_target_set(
            "digits", data_root=cache_root, cache_root=cache_root, zca=zca, zca_lambda=zca_lambda
        ).test.images
        for zca, zca_lambda in settings
    ]
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    assert images[2].flatten(1).norm(dim=1).allclose(torch.full((500,), 8.0))  # of 64 pixels


@pytest.mark.parametrize("damage", ["flip_a_bit", "truncate", "empty", "garbage"])
@pytest.mark.parametrize("folder", ["decoded", "whitened"])
def test_a_damaged_cache_is_rebuilt_never_used(folder: str, damage: str, tmp_path: Path) -> None:
    good = load_target_set("digits", data_root=tmp_path, cache_root=tmp_path)
    images, labels = good.train.images.clone(), good.train.labels.clone()
    (path,) = (tmp_path / folder).glob("*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "flip_a_bit":
        content[len(content) // 2] ^= 1
    elif damage == "truncate":
        del content[-100:]
    elif damage == "empty":
        content.clear()
    else:
        content[:] = b"\xff" * len(content)
    path.unlink()  # the good file is still mapped by the test itself
    path.write_bytes(content)
    again = load_target_set("digits", data_root=tmp_path, cache_root=tmp_path)
    assert torch.equal(again.train.images, images)
    assert torch.equal(again.train.labels, labels)
    assert path.read_bytes() != bytes(content)


def test_to_converts_images_and_keeps_labels(cache_root: Path) -> None:
    digits = load_target_set("digits", data_root=cache_root, cache_root=cache_root)
    double = digits.to("cpu", torch.float64)
    assert double.test.images.dtype == torch.float64
    assert double.test.labels.dtype == torch.int64
    assert double.fingerprint == digits.fingerprint
    same = digits.to("cpu")  # no copy: processes go on sharing the mapped pages
    assert same.train.images.data_ptr() == digits.train.images.data_ptr()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 0.9999])
def test_a_validation_fraction_that_leaves_nothing_to_train_on_is_refused(
    fraction: float, cache_root: Path
) -> None:
    with pytest.raises(UserError, match="validation_fraction"):
        load_target_set(
            "digits", data_root=cache_root, cache_root=cache_root, validation_fraction=fraction
        )
