"""Finding, reading and caching raw images, on small synthetic copies and on the real ones."""

import io
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.data import DATASETS, download, find_source, load_raw, load_target_set
from bench.system import choices
from bench.system.errors import UserError
from tests.bench.data.small_copies import (
    CLASSES,
    encode,
    pictures,
    write_folder,
    write_torchvision,
    write_zip,
    zip_of,
)

_BESIDE_REPOSITORY = Path(__file__).resolve().parents[4] / "shared" / "data"


REAL_DATA = Path(os.environ.get("BENCH_DATA_ROOT") or _BESIDE_REPOSITORY)


def test_the_same_images_give_the_same_arrays_and_fingerprint_in_every_packaging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures()
    write_folder(tmp_path / "a", images)
    zip_of(tmp_path / "b", images)
    renamed = {path.replace(".png", ".webp"): encode(i, "webp") for path, i in images.items()}
    write_zip(tmp_path / "c", dict(reversed(renamed.items())))
    write_torchvision(tmp_path / "d", images, monkeypatch)
    copies = [load_raw("cifar10", tmp_path / root, tmp_path / f"cache_{root}") for root in "abcd"]
    for copy in copies:
        assert copy.fingerprint == copies[0].fingerprint
        assert copy.classes == CLASSES
        np.testing.assert_array_equal(copy.train_pixels, copies[0].train_pixels)
        np.testing.assert_array_equal(copy.train_labels, copies[0].train_labels)
        np.testing.assert_array_equal(copy.test_pixels, copies[0].test_pixels)
        np.testing.assert_array_equal(copy.test_labels, copies[0].test_labels)
    sizes = " (15 + 6 of 50000 + 10000)"
    assert [copy.source.removesuffix(sizes) for copy in copies] == [
        "class folders in cifar10/",
        "class folders in cifar10.zip",
        "class folders in cifar10.zip",
        "official files in cifar-10-batches-py",
    ]


def test_every_image_is_read_once_with_its_own_label(tmp_path: Path) -> None:
    images = pictures()
    zip_of(tmp_path, images)
    raw = load_raw("cifar10", tmp_path, tmp_path / "cache")
    for split, pixels, labels in (
        ("train", raw.train_pixels, raw.train_labels),
        ("test", raw.test_pixels, raw.test_labels),
    ):
        assert pixels.dtype == np.uint8
        assert labels.dtype == np.int64
        read = sorted((CLASSES[y], x.tobytes()) for x, y in zip(pixels, labels, strict=True))
        written = sorted(
            (path.split("/")[1], image.tobytes())
            for path, image in images.items()
            if path.startswith(split)
        )
        assert read == written


@pytest.mark.parametrize("change", ["pixel", "label", "split"])
def test_the_fingerprint_depends_on_pixels_labels_and_split(tmp_path: Path, change: str) -> None:
    images = pictures()
    zip_of(tmp_path / "before", images)
    if change == "pixel":
        images["train/bear/0000.png"][3, 4, 1] ^= 1
    elif change == "label":
        images["train/crab/0009.png"] = images.pop("train/bear/0000.png")
    else:
        images["test/bear/0009.png"] = images.pop("train/bear/0000.png")
    zip_of(tmp_path / "after", images)
    before, after = (load_raw("cifar10", tmp_path / d, tmp_path / "c") for d in ("before", "after"))
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("packaging", ["folder", "zip"])
def test_changed_bytes_of_one_image_are_read_not_the_stale_cache(
    tmp_path: Path, packaging: str
) -> None:
    images, write = pictures(), write_folder if packaging == "folder" else zip_of
    caches = tmp_path / "cache"
    write(tmp_path, images)
    before = load_target_set("cifar10", data_root=tmp_path, cache_root=caches, zca=False)
    changed = images["test/apple/0001.png"]
    changed[0, 0, 0] ^= 255
    path = write(tmp_path, images)
    os.utime(path, (0, 0))  # a modification time from before the cache was made must not help it
    after = load_target_set("cifar10", data_root=tmp_path, cache_root=caches, zca=False)
    assert before.fingerprint != after.fingerprint
    raw = load_raw("cifar10", tmp_path, caches)
    assert any(np.array_equal(image, changed) for image in raw.test_pixels)
    assert len(list((caches / "decoded").glob("*.safetensors"))) == 2
    assert len(list((caches / "whitened").glob("*.safetensors"))) == 2


def test_a_second_load_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zip_of(tmp_path, pictures())
    first = load_raw("cifar10", tmp_path, tmp_path / "cache")
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("decoded again"))
    assert load_raw("cifar10", tmp_path, tmp_path / "cache").fingerprint == first.fingerprint


def test_copies_are_tried_in_the_stated_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_source("cifar10", tmp_path) is None
    readers = []
    for write in (zip_of, write_folder):
        write(tmp_path, pictures())
        readers.append(find_source("cifar10", tmp_path))
    write_torchvision(tmp_path, pictures(), monkeypatch)
    readers.append(find_source("cifar10", tmp_path))
    assert [reader.description for reader in readers if reader] == [
        "class folders in cifar10.zip",
        "class folders in cifar10/",
        "official files in cifar-10-batches-py",
    ]


def test_cifar100_from_class_folders_is_called_resplit(tmp_path: Path) -> None:
    zip_of(tmp_path / "a", pictures(), "cifar100")
    write_folder(tmp_path / "b", pictures(), "cifar100")
    for root in "ab":
        assert "(resplit)" in load_raw("cifar100", tmp_path / root, tmp_path / "cache").source


def test_files_that_are_no_images_of_the_set_are_passed_over(tmp_path: Path) -> None:
    members = {path: encode(image) for path, image in pictures().items()}
    zip_of(tmp_path / "plain", pictures())
    extra = {"lossy.txt": b"x", "train/bear/notes.txt": b"x", "train/bear/._0000.png": b"x"}
    write_zip(tmp_path / "extra", members | extra | {"train/odd.png": b"x"})
    plain, more = (load_raw("cifar10", tmp_path / d, tmp_path / "c") for d in ("plain", "extra"))
    assert plain.fingerprint == more.fingerprint


def test_names_that_are_not_utf8_are_used_and_shown_escaped(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, pictures())
    for split in ("train", "test"):
        (folder / split / "crab").rename(folder / split / os.fsdecode(b"crab\xff"))
    raw = load_raw("cifar10", tmp_path, tmp_path / "cache")
    assert raw.classes == ("apple", "bear", "crab\\udcff")
    assert np.bincount(raw.train_labels).tolist() == [5, 5, 5]


def test_grey_files_have_one_channel_and_palette_files_three(tmp_path: Path) -> None:
    def members(mode: str) -> dict[str, bytes]:
        def converted(image: NDArray[np.uint8]) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(image).convert(mode).save(buffer, "png")
            return buffer.getvalue()

        return {path: converted(image) for path, image in pictures().items()}

    write_zip(tmp_path / "grey", members("L"))
    write_zip(tmp_path / "palette", members("P"))
    shapes = [
        load_raw("cifar10", tmp_path / root, tmp_path / "cache").train_pixels.shape
        for root in ("grey", "palette")
    ]
    assert shapes == [(15, 32, 32, 1), (15, 32, 32, 3)]


def test_downloading_digits_needs_nothing(tmp_path: Path) -> None:
    download("digits", tmp_path / "never_made")
    assert not (tmp_path / "never_made").exists()


def test_no_network_is_one_line_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(UserError, match=r"could not be downloaded.*Name or service not known.*zip"):
        download("cifar10", tmp_path)


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real_cache")


@pytest.mark.parametrize("name", choices.SHAPES)
def test_every_data_set_that_a_run_may_name_is_known_here(name: str, tmp_path: Path) -> None:
    assert (find_source(name, tmp_path) is not None) == (name == "digits")


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_real_copy_lists_all_its_images(name: str) -> None:
    path = REAL_DATA / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"{path} is not there (set BENCH_DATA_ROOT)")
    reader = find_source(name, REAL_DATA)
    assert reader is not None
    assert len(reader.content_hash()) == 64
    with zipfile.ZipFile(path) as archive:
        images = [member for member in archive.namelist() if member.endswith(".webp")]
    assert len(images) == sum(DATASETS[name].sizes)


@pytest.mark.real_data
@pytest.mark.slow  # decodes 60,000 images: about 15 seconds on two cores, 180 MB of cache
def test_the_real_cifar10_is_whole_balanced_and_labelled(real_cache: Path) -> None:
    if find_source("cifar10", REAL_DATA) is None:
        pytest.skip(f"no cifar10 in {REAL_DATA} (set BENCH_DATA_ROOT)")
    raw = load_raw("cifar10", REAL_DATA, real_cache)
    assert raw.train_pixels.shape == (50_000, 32, 32, 3)
    assert np.bincount(raw.train_labels).tolist() == [5_000] * 10
    assert np.bincount(raw.train_labels[-5_000:]).tolist() == [500] * 10  # the validation part
    assert np.bincount(raw.test_labels).tolist() == [1_000] * 10
    assert raw.classes[0] == "airplane"
    assert raw.classes[9] == "truck"
    assert "of 50000" not in raw.source
    # The channel means that every CIFAR-10 recipe quotes.
    means = raw.train_pixels.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=2e-4)
    shutil.rmtree(real_cache)
