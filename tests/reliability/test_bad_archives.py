"""A copy of a data set with something wrong in it is used, or refused in one line with exit status
2, and nothing in it lands outside the cache."""

import gzip
import random
import struct
import tarfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reliability.archives import (
    CONTENTS,
    FORMS,
    class_folders,
    copies,
    tarred,
    write_folder,
    zipped,
)
from tests.reliability.conftest import Try

PREPARE = ["bench.prepare", "data_root=data", "cache_root=cache", "download=false", "zca=false"]
PREPARE += ["selection=test"]  # which needs no held-out images: these sets have few


@pytest.mark.parametrize("dataset", FORMS)
def test_a_copy_of_a_data_set_is_used_or_refused_in_one_line(
    dataset: str, attempt: Try, figure: Callable[[str, object], None]
) -> None:
    ended: Counter[int] = Counter()

    @attempt.settings(some=15, all_of_them=250)
    @given(copies(dataset), st.sampled_from([0, 4]))
    def every_case(write: Callable[[Path], None], size: int) -> None:
        arguments = [f"dataset={dataset}", f"image_size={size}"]
        outcome = attempt.run(*PREPARE, *arguments, prepare=lambda here: write(here / "data"))
        ended[outcome.status] += 1

    every_case()
    figure(f"bad copies of `{dataset}`", f"{ended[0]} used, {ended[2]} refused in one line")


def bomb_in_a_zip(data: Path) -> None:
    """A zip that states 320 MiB for one of its images."""
    packed = zipped({**class_folders(), "train/a/3.png": bytes(54_321)}, "cifar10/", 8)
    stated = packed.replace(struct.pack("<L", 54_321), struct.pack("<L", 320 << 20))
    (data / "cifar10.zip").write_bytes(stated)


def bomb_in_a_tar(data: Path) -> None:
    """A tar of a likely size with an image of 320 MiB."""
    image = tarfile.TarInfo("cifar10/train/a/3.png")
    image.size = 320 << 20
    rest = tarred(class_folders(), "cifar10/")
    packed = gzip.compress(image.tobuf()) + zeros() * 5 + gzip.compress(rest)
    filler = random.Random(0).randbytes(4 << 20)
    (data / "cifar10.tar.gz").write_bytes(packed + gzip.compress(filler, 0))


def endless_tar(data: Path) -> None:
    """A complete tar, and after it 4 GiB of zeros in 4 MB."""
    packed = gzip.compress(tarred(class_folders(), "cifar10/")) + zeros() * 64
    (data / "cifar10.tar.gz").write_bytes(packed)


@cache
def zeros() -> bytes:
    """64 MiB of zeros, compressed. Such texts one after the other are one of all zeros."""
    return gzip.compress(bytes(64 << 20))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (bomb_in_a_zip, "train/a/3.png has 335,544,320 bytes"),
        (bomb_in_a_tar, "train/a/3.png has 335,544,320 bytes"),
        (endless_tar, "is a decompression bomb"),
    ],
)
def test_a_decompression_bomb_is_refused(
    write: Callable[[Path], None], message: str, attempt: Try
) -> None:
    def prepare(here: Path) -> None:
        (here / "data").mkdir()
        write(here / "data")

    outcome = attempt.run(*PREPARE, "dataset=cifar10", prepare=prepare)
    assert outcome.status == 2
    assert message in outcome.err


@pytest.mark.parametrize("image", ["bomb.png", "half a bomb.png"])
def test_an_image_of_endless_size_is_refused(image: str, attempt: Try) -> None:
    members = {**class_folders(), "train/a/3.png": CONTENTS[image]}
    outcome = attempt.run(
        *PREPARE,
        "dataset=cifar10",
        prepare=lambda here: write_folder(members, here / "data" / "cifar10"),
    )
    assert outcome.status == 2
    assert "cannot read the image train/a/3.png (Image size" in outcome.err


def test_what_is_no_file_is_not_read(attempt: Try) -> None:
    """A pipe, which nobody writes to, would be waited for."""
    members = {**class_folders(), "train/a/3.png": (tarfile.FIFOTYPE, "")}
    outcome = attempt.run(
        *PREPARE,
        "dataset=cifar10",
        prepare=lambda here: write_folder(members, here / "data" / "cifar10"),
    )
    assert "4 train, 0 validation, 4 test images" in outcome.out


def test_folders_that_link_to_each_other_are_read_once(attempt: Try) -> None:
    def prepare(here: Path) -> None:
        write_folder(class_folders(), here / "data" / "cifar10")
        for above in ("train", "test", "train/a", "train/b"):
            for name in ("x", "y"):
                (here / "data" / "cifar10" / above / name).symlink_to(here / "data")
        for name in "uvw":  # a way through these alone has no end either
            (here / "data" / "cifar10" / "train" / name).symlink_to("../test")
            (here / "data" / "cifar10" / "test" / name).symlink_to("../train")

    outcome = attempt.run(*PREPARE, "dataset=cifar10", prepare=prepare)
    assert "4 train, 0 validation, 4 test images" in outcome.out
