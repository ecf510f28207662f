"""What is wrong with a copy of a data set is named in one line."""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.bench.data.small_copies import (
    encode,
    failure,
    pictures,
    write_folder,
    write_torchvision,
    write_zip,
    zip_of,
)


def test_an_unknown_name_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    assert "did you mean cifar10?" in failure(tmp_path, "cifra10")


def test_a_missing_data_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    message = failure(tmp_path / "nowhere")
    assert f"{tmp_path}/nowhere" in message
    assert "does not exist" in message
    assert "python -m bench.prepare dataset=cifar10" in message
    assert "BENCH_DATA_ROOT" in message


def test_a_folder_without_the_set_is_answered_with_all_that_was_looked_for(tmp_path: Path) -> None:
    message = failure(tmp_path)
    for form in ("cifar-10-batches-py/", "cifar10/{train,test}/<class>/", "cifar10.zip"):
        assert form in message
    assert f"data_root={tmp_path}" in message


def test_a_zip_of_a_newer_version_is_named(tmp_path: Path) -> None:
    path = zip_of(tmp_path, pictures())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 255  # the version needed to extract
    path.write_bytes(content)
    assert "not a complete zip (zip file version 25.5)" in failure(tmp_path)


def test_a_truncated_zip_is_named(tmp_path: Path) -> None:
    path = zip_of(tmp_path, pictures())
    path.write_bytes(path.read_bytes()[:-40])
    assert str(path) in failure(tmp_path)
    assert "not a complete zip" in failure(tmp_path)


def test_a_member_with_a_wrong_checksum_is_named(tmp_path: Path) -> None:
    path = zip_of(tmp_path, pictures())
    content = bytearray(path.read_bytes())
    content[content.index(b"cifar10/train/bear/0002.png") + 200] ^= 255  # inside its image data
    path.write_bytes(content)
    message = failure(tmp_path)
    assert str(path) in message
    assert "train/bear/0002.png" in message
    assert "CRC" in message


@pytest.mark.parametrize(
    "content", [b"", b"not an image", encode(pictures()["train/bear/0000.png"])[:300]]
)
@pytest.mark.parametrize("packaging", ["folder", "zip"])
def test_a_damaged_image_is_named(tmp_path: Path, packaging: str, content: bytes) -> None:
    members = {path: encode(image) for path, image in pictures().items()}
    if packaging == "zip":
        place = write_zip(tmp_path, members | {"test/crab/0001.png": content})
    else:
        place = write_folder(tmp_path, pictures())
        (place / "test/crab/0001.png").write_bytes(content)
    message = failure(tmp_path)
    assert str(place) in message
    assert "test/crab/0001.png" in message


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    images = pictures()
    images["train/bear/0001.png"] = images["train/bear/0001.png"][:16]
    zip_of(tmp_path, images)
    message = failure(tmp_path)
    assert "train/bear/0001.png" in message
    assert "(16, 32, 3)" in message


def test_a_sixteen_bit_image_is_refused_rather_than_clipped(tmp_path: Path) -> None:
    members = {path: encode(image) for path, image in pictures().items()}
    deep = encode(np.full((32, 32), 40_000, dtype=np.uint16))  # type: ignore[arg-type]
    write_zip(tmp_path, members | {"train/bear/0001.png": deep})
    assert "not 8-bit" in failure(tmp_path)


def test_a_file_that_was_appended_to_a_tar_again_is_named(tmp_path: Path) -> None:
    members = [(f"cifar10/{path}", encode(image)) for path, image in pictures().items()]
    with tarfile.open(tmp_path / "cifar10.tar", "w") as archive:
        for name, content in [*members, members[0]]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    assert f"cifar10.tar holds {members[0][0].removeprefix('cifar10/')} twice" in failure(tmp_path)


@pytest.mark.parametrize("missing", ["test/crab/", "test/"])
def test_classes_or_splits_without_images_are_named(tmp_path: Path, missing: str) -> None:
    zip_of(tmp_path, {p: image for p, image in pictures().items() if not p.startswith(missing)})
    message = failure(tmp_path)
    assert ("class crab" if missing == "test/crab/" else "no images in test/<class>/") in message


def test_a_zip_of_something_else_is_named(tmp_path: Path) -> None:
    zip_of(tmp_path, pictures(), "flowers").rename(tmp_path / "cifar10.zip")
    message = failure(tmp_path)
    assert "cifar10.zip has class folders in flowers/, 3 of them, not the 10 of cifar10" in message
    assert "rename their folder to cifar10/" in message


def test_damaged_torchvision_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_torchvision(tmp_path, pictures(), monkeypatch)
    with open(folder / "data_batch_1", "ab") as file:
        file.write(b"x")
    assert f"{folder} are damaged or incomplete" in failure(tmp_path)


def test_a_torchvision_that_cannot_be_imported_is_said_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_torchvision(tmp_path, pictures(), monkeypatch)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    message = failure(tmp_path)
    assert "torchvision cannot be imported" in message
    assert "installed torch" in message
