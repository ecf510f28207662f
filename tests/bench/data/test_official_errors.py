"""What is wrong with a copy of CUB-200-2011 or Tiny-ImageNet in its official layout is named."""

from pathlib import Path

import numpy as np
import pytest

from tests.bench.data.official_copies import (
    CUB,
    PACKED,
    SETS,
    TINY,
    WNIDS,
    birds,
    jpeg,
    tiny_imagenet,
    write_folder,
    write_tgz,
)
from tests.bench.data.small_copies import failure

TABLES = [
    ("cub200", "images.txt"),
    ("cub200", "image_class_labels.txt"),
    ("cub200", "train_test_split.txt"),
    ("cub200", "classes.txt"),
    ("tiny_imagenet", "wnids.txt"),
    ("tiny_imagenet", "val/val_annotations.txt"),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("name", "table"), TABLES)
def test_a_missing_annotation_file_is_named(
    tmp_path: Path, name: str, table: str, packed: bool
) -> None:
    folder, make = SETS[name]
    contents = make()
    del contents[table]
    path = (PACKED[name] if packed else write_folder)(tmp_path, contents, folder)
    message = failure(tmp_path, name)
    assert str(path) in message
    assert table in message


@pytest.mark.parametrize(
    ("name", "table", "old", "new", "message"),
    [
        ("cub200", "images.txt", "7 ", "7\n7 ", "images.txt, line 1 is damaged: '7'"),
        ("cub200", "images.txt", "\n9 ", "\n8 ", "images.txt, line 3 is damaged"),
        ("cub200", "image_class_labels.txt", "\n9 ", "\n99 ", "labels.txt has no line for 9"),
        ("cub200", "image_class_labels.txt", " 10\n", " 77\n", "classes.txt has no line for 77"),
        ("cub200", "train_test_split.txt", "\n9 ", "\n99 ", "split.txt has no line for 9"),
        ("cub200", "train_test_split.txt", " 1\n", " 2\n", "is not 0 or 1"),
        ("cub200", "train_test_split.txt", " 0\n", " 1\n", "has no test images"),
        ("tiny_imagenet", "wnids.txt", WNIDS[1], "", f"unknown class {WNIDS[1]}"),
        ("tiny_imagenet", "wnids.txt", WNIDS[1], f"{WNIDS[1]} n1", "class n1 has no train images"),
        ("tiny_imagenet", "val/val_annotations.txt", f"\t{WNIDS[0]}", "", "unknown class 0"),
        ("tiny_imagenet", "val/val_annotations.txt", "\nval", "\n\nval", "line 2 is damaged"),
        ("tiny_imagenet", "val/val_annotations.txt", "val_2.J", "val_77.J", "val_77.JPEG"),
    ],
)
def test_a_damaged_annotation_is_told(
    tmp_path: Path, name: str, table: str, old: str, new: str, message: str
) -> None:
    folder, make = SETS[name]
    contents = make()
    text = contents[table].decode()
    assert old in text
    once = "no test images" not in message
    contents[table] = text.replace(old, new, 1 if once else -1).encode()
    write_folder(tmp_path, contents, folder)
    assert message in failure(tmp_path, name)


def test_an_image_listed_twice_is_told(tmp_path: Path) -> None:
    contents = birds()
    lines = contents["images.txt"].decode().splitlines()
    lines[1] = f"{lines[1].split()[0]} {lines[0].split()[1]}"
    contents["images.txt"] = "\n".join(lines).encode()
    write_folder(tmp_path, contents, CUB)
    assert "images.txt lists an image twice" in failure(tmp_path, "cub200")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_missing_or_damaged_image_is_named(
    tmp_path: Path, name: str, packed: bool, damage: str
) -> None:
    folder, make = SETS[name]
    contents = make()
    image = next(key for key in contents if key.startswith(("images/", "val/images/")))
    if damage == "missing":
        del contents[image]
    else:
        contents[image] = contents[image][: len(contents[image]) // 2] if damage == "cut" else b""
    path = (PACKED[name] if packed else write_folder)(tmp_path, contents, folder)
    message = failure(tmp_path, name)
    assert str(path) in message
    assert image in message


def test_an_image_of_another_size_in_tiny_imagenet_is_named(tmp_path: Path) -> None:
    name = f"train/{WNIDS[0]}/images/{WNIDS[0]}_1.JPEG"
    write_folder(tmp_path, {**tiny_imagenet(), name: jpeg(64, 32, 1)}, TINY)
    message = failure(tmp_path, "tiny_imagenet")
    assert name in message
    assert "64x32, not 64x64" in message


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("cut", [10, 1000, 0.5])
def test_a_truncated_archive_is_told(tmp_path: Path, name: str, cut: float) -> None:
    folder, make = SETS[name]
    path = PACKED[name](tmp_path, make(), folder)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut) if cut < 1 else -int(cut)])
    message = failure(tmp_path, name)
    assert str(path) in message
    assert "not a complete" in message


def test_a_changed_byte_anywhere_in_the_tgz_is_told(tmp_path: Path) -> None:
    path = write_tgz(tmp_path, birds(), CUB)
    content = path.read_bytes()
    for place in np.linspace(30, len(content) - 5, 12).astype(int):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        assert str(path) in failure(tmp_path, "cub200")
