"""CUB-200-2011 and Tiny-ImageNet in their official layouts, on small copies that are made here."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

from bench.data import load_raw, load_target_set
from tests.bench.data.official_copies import (
    BIRDS,
    CUB,
    PACKED,
    SETS,
    TINY,
    WNIDS,
    Write,
    birds,
    decoded,
    jpeg,
    listed,
    tiny_imagenet,
    write_folder,
    write_tgz,
    write_zip,
)


@pytest.mark.parametrize("pack", [write_folder, write_tgz, write_zip])
def test_every_bird_is_read_once_with_its_class_and_split_resized_as_torchvision_does(
    tmp_path: Path, pack: Write
) -> None:
    contents = birds()
    pack(tmp_path, contents, CUB)
    raw = load_raw("cub200", tmp_path, tmp_path / "cache")
    assert raw.train_pixels.shape == (9, 32, 32, 3)
    assert raw.test_pixels.shape == (6, 32, 32, 3)
    assert raw.classes == BIRDS
    assert listed(raw) == sorted(
        (
            "train" if int(name[-8:-4]) < 3 else "test",
            name.split("/")[1],
            decoded(content, 32).tobytes(),
        )
        for name, content in contents.items()
        if name.startswith("images/")
    )


@pytest.mark.parametrize("tables", [True, False])
def test_a_class_folder_whose_name_is_not_utf8_is_its_class(tmp_path: Path, tables: bool) -> None:
    folder = write_folder(tmp_path, tiny_imagenet(), TINY)
    odd = WNIDS[0].encode() + b"\xff"
    (folder / "train" / WNIDS[0]).rename(folder / "train" / os.fsdecode(odd))
    for name in ("wnids.txt", "val/val_annotations.txt"):
        content = (folder / name).read_bytes().replace(WNIDS[0].encode(), odd)
        (folder / name).write_bytes(content)
    if not tables:
        shutil.rmtree(folder / "val")
        shutil.copytree(folder / "train", folder / "val")
        (folder / "wnids.txt").unlink()
    raw = load_raw("tiny_imagenet", tmp_path, tmp_path / "cache")
    assert raw.classes == tuple(sorted([f"{WNIDS[0]}\\udcff", *WNIDS[1:]]))
    assert set(raw.test_labels.tolist()) == set(range(len(WNIDS)))


@pytest.mark.parametrize("pack", [write_folder, write_tgz, write_zip])
def test_every_image_of_tiny_imagenet_is_read_once_and_val_is_the_test_set(
    tmp_path: Path, pack: Write
) -> None:
    contents = tiny_imagenet()
    pack(tmp_path, contents, TINY)
    raw = load_raw("tiny_imagenet", tmp_path, tmp_path / "cache")
    assert raw.train_pixels.shape == (12, 64, 64, 3)
    assert raw.test_pixels.shape == (6, 64, 64, 3)
    assert raw.classes == WNIDS
    rows = contents["val/val_annotations.txt"].decode().splitlines()
    class_of = {row.split("\t")[0]: row.split("\t")[1] for row in rows}
    expected = [
        (
            "train" if name.startswith("train") else "test",
            name.split("/")[1] if name.startswith("train") else class_of[name.split("/")[2]],
            np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).tobytes(),
        )
        for name, content in contents.items()
        if name.endswith(".JPEG") and not name.startswith("test/")
    ]
    assert listed(raw) == sorted(expected)


@pytest.mark.parametrize("name", SETS)
def test_the_same_images_have_the_same_fingerprint_and_arrays_in_every_packaging(
    tmp_path: Path, name: str
) -> None:
    folder, make = SETS[name]
    contents = make()
    write_folder(tmp_path / "a", contents, folder)
    write_zip(tmp_path / "b", contents, folder)
    write_tgz(tmp_path / "c", dict(reversed(contents.items())), folder)
    copies = [load_raw(name, tmp_path / root, tmp_path / f"cache_{root}") for root in "abc"]
    for copy in copies:
        assert copy.fingerprint == copies[0].fingerprint
        np.testing.assert_array_equal(copy.train_pixels, copies[0].train_pixels)
        np.testing.assert_array_equal(copy.test_labels, copies[0].test_labels)
    for copy, ending in zip(copies, ("", ".zip", ".tgz"), strict=True):
        assert copy.source.startswith(f"official images in {folder}{ending}")
        assert " of " in copy.source  # not the whole set, and labelled so


def test_a_photograph_is_squeezed_as_a_whole(tmp_path: Path) -> None:
    contents = birds()
    picture = np.zeros((40, 160, 3), np.uint8)
    picture[:, :80, 0] = 255  # left half red, right half blue
    picture[:, 80:, 2] = 255
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg", quality=100, subsampling=0)
    name = next(name for name in contents if name.startswith(f"images/{BIRDS[0]}"))
    contents[name] = buffer.getvalue()
    write_folder(tmp_path, contents, CUB)
    raw = load_raw("cub200", tmp_path, tmp_path / "cache")
    images = [*raw.train_pixels, *raw.test_pixels]
    red, blue = np.array([255, 0, 0]), np.array([0, 0, 255])
    assert any(
        np.abs(image[:, :15].astype(int) - red).max() < 8
        and np.abs(image[:, 17:].astype(int) - blue).max() < 8
        for image in images
    )


@pytest.mark.parametrize("name", SETS)
def test_a_grey_image_has_three_equal_channels(tmp_path: Path, name: str) -> None:
    folder, make = SETS[name]
    write_folder(tmp_path, make(), folder)
    pixels = load_raw(name, tmp_path, tmp_path / "cache").train_pixels.astype(int)
    gray = [len(np.unique(np.diff(image, axis=2))) == 1 for image in pixels]
    assert sum(gray) == 3


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("packed", [False, True])
def test_changed_bytes_of_one_image_are_read_not_the_stale_cache(
    tmp_path: Path, name: str, packed: bool
) -> None:
    folder, make = SETS[name]
    contents = make()
    write = PACKED[name] if packed else write_folder
    write(tmp_path, contents, folder)
    before = load_raw(name, tmp_path, tmp_path / "cache")
    image = next(key for key in contents if "images/" in key and not key.startswith("test/"))
    path = write(tmp_path, {**contents, image: jpeg(64, 64, 500)}, folder)
    os.utime(path, (0, 0))
    after = load_raw(name, tmp_path, tmp_path / "cache")
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("name", SETS)
def test_a_second_load_decodes_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, make = SETS[name]
    PACKED[name](tmp_path, make(), folder)
    first = load_raw(name, tmp_path, tmp_path / "cache")
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("decoded again"))
    assert load_raw(name, tmp_path, tmp_path / "cache").fingerprint == first.fingerprint


def test_they_become_target_sets_of_the_stated_shapes(tmp_path: Path) -> None:
    for name, shape in (("cub200", (3, 32, 32)), ("tiny_imagenet", (3, 64, 64))):
        folder, make = SETS[name]
        PACKED[name](tmp_path, make(), folder)
        target_set = load_target_set(
            name, data_root=tmp_path, cache_root=tmp_path / "cache", zca=False
        )
        assert target_set.image_shape == shape
        assert len(target_set.classes) == 3


@pytest.mark.parametrize(
    ("name", "archive", "address"),
    [
        ("cub200", "CUB_200_2011.tgz", "https://www.vision.caltech.edu/datasets/cub_200_2011/"),
        ("tiny_imagenet", "tiny-imagenet-200.zip", "http://cs231n.stanford.edu/"),
    ],
)
def test_prepare_says_what_to_download_from_where_and_where_to_put_it(
    tmp_path: Path,
    command: Callable[..., CompletedProcess[str]],
    name: str,
    archive: str,
    address: str,
) -> None:
    (tmp_path / "images").mkdir()
    done = command("bench.prepare", f"dataset={name}", "data_root=images")
    assert done.returncode == 2
    assert "downloading" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert f"download {archive} from {address}" in line
    assert "data folder images" in line
    assert f"{archive.rpartition('.')[0]}/" in line  # the unpacked form is named too


def test_prepare_reads_what_was_put_there(
    tmp_path: Path, command: Callable[..., CompletedProcess[str]]
) -> None:
    write_tgz(tmp_path / "images", birds(), CUB)
    done = command("bench.prepare", "dataset=cub200", "data_root=images", "zca=false")
    assert done.returncode == 0
    assert "official images in CUB_200_2011.tgz, resized to 32x32 (9 + 6 of 5994 + 5794)" in (
        done.stdout
    )
    assert "6 test images of 3x32x32, 3 classes" in done.stdout
    shutil.rmtree(tmp_path / "images")
