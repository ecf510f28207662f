"""CUB-200-2011 and Tiny-ImageNet in their official layouts, on small copies that are made here."""

import io
import os
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.data import load_raw, load_target_set
from bench.data.sources import RawImages
from bench.system.errors import UserError

BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")
WNIDS = ("n01443537", "n02124075", "n04486054")
CUB, TINY = "CUB_200_2011", "tiny-imagenet-200"
SIZES = [(50, 33), (32, 32), (20, 71), (120, 40), (31, 64)]  # width, height
Contents = dict[str, bytes]


def jpeg(width: int, height: int, seed: int, mode: str = "RGB") -> bytes:
    """Smooth patches, so that JPEG keeps them apart."""
    patches = np.random.RandomState(seed).randint(0, 256, (4, 4, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(patches).resize((width, height)).convert(mode).save(buffer, "jpeg")
    return buffer.getvalue()


def birds() -> Contents:
    """Name below CUB_200_2011/ -> bytes: five images a class, the last two of them for testing; the
    first of each class is grey. Lines are in no order, and ids are not positions."""
    images = [
        (f"{bird}/{bird[4:]}_{k:04}.jpg", label, k)
        for label, bird in enumerate(BIRDS)
        for k in range(5)
    ]
    np.random.RandomState(0).shuffle(images)  # type: ignore[arg-type]
    contents: Contents = {"README": b"The Caltech-UCSD Birds-200-2011 Dataset\n"}
    lines: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "train_test_split")
    }
    for number, (name, label, k) in enumerate(images, start=7):
        contents[f"images/{name}"] = jpeg(*SIZES[k], 10 * label + k, "RGB" if k else "L")
        lines["images"].append(f"{number} {name}")
        lines["image_class_labels"].append(f"{number} {int(BIRDS[label][:3])}")
        lines["train_test_split"].append(f"{number} {int(k < 3)}")
    lines["image_class_labels"].reverse()
    lines["classes"] = [f"{int(bird[:3])} {bird}" for bird in BIRDS]
    for name, rows in lines.items():
        contents[f"{name}.txt"] = "".join(f"{row}\n" for row in rows).encode()
    return contents


def tiny_imagenet() -> Contents:
    """Name below tiny-imagenet-200/ -> bytes: four training images a class, two of val."""
    contents: Contents = {
        "wnids.txt": "".join(f"{wnid}\n" for wnid in reversed(WNIDS)).encode(),
        "words.txt": b"n01443537\tgoldfish, Carassius auratus\n",
        "test/images/test_0.JPEG": jpeg(64, 64, 999),
    }
    rows = []
    for label, wnid in enumerate(WNIDS):
        contents[f"train/{wnid}/{wnid}_boxes.txt"] = f"{wnid}_0.JPEG\t0\t10\t63\t58\n".encode()
        for k in range(4):
            content = jpeg(64, 64, 10 * label + k, "RGB" if k else "L")
            contents[f"train/{wnid}/images/{wnid}_{k}.JPEG"] = content
        for k in range(2):
            name = f"val_{3 * k + 2 - label}.JPEG"
            contents[f"val/images/{name}"] = jpeg(64, 64, 10 * label + 5 + k)
            rows.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    contents["val/val_annotations.txt"] = "".join(rows).encode()
    return contents


def write_folder(root: Path, contents: Contents, folder: str) -> Path:
    for name, content in contents.items():
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root / folder


def write_tgz(root: Path, contents: Contents, folder: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / f"{folder}.tgz", "w:gz") as archive:
        for name, content in {"attributes.txt": b"x", **contents}.items():
            # The official archive holds one file beside its folder.
            member = tarfile.TarInfo(name if name == "attributes.txt" else f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return root / f"{folder}.tgz"


def write_zip(root: Path, contents: Contents, folder: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / f"{folder}.zip", "w") as archive:
        archive.mkdir(folder)
        for name, content in contents.items():
            archive.writestr(f"{folder}/{name}", content)
    return root / f"{folder}.zip"


Write = Callable[[Path, Contents, str], Path]
SETS = {"cub200": (CUB, birds), "tiny_imagenet": (TINY, tiny_imagenet)}
PACKED: dict[str, Write] = {"cub200": write_tgz, "tiny_imagenet": write_zip}


def listed(raw: RawImages) -> list[tuple[str, str, bytes]]:
    """(split, class, pixels) of every image."""
    parts = (
        ("train", raw.train_pixels, raw.train_labels),
        ("test", raw.test_pixels, raw.test_labels),
    )
    return sorted(
        (split, raw.classes[label], image.tobytes())
        for split, pixels, labels in parts
        for image, label in zip(pixels, labels, strict=True)
    )


def decoded(content: bytes, size: int) -> NDArray[np.uint8]:
    """As torchvision resizes images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchvision.transforms import Resize
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return np.asarray(Resize((size, size))(image))


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


# --- errors ---


def failure(name: str, root: Path) -> str:
    """The message of the UserError that loading ends with: one line, and no cache left behind."""
    with pytest.raises(UserError) as caught:
        load_raw(name, root, root / "cache")
    assert not list(root.glob("cache/**/*.safetensors"))
    message = str(caught.value)
    assert "\n" not in message
    return message


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
    message = failure(name, tmp_path)
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
    assert message in failure(name, tmp_path)


def test_an_image_listed_twice_is_told(tmp_path: Path) -> None:
    contents = birds()
    lines = contents["images.txt"].decode().splitlines()
    lines[1] = f"{lines[1].split()[0]} {lines[0].split()[1]}"
    contents["images.txt"] = "\n".join(lines).encode()
    write_folder(tmp_path, contents, CUB)
    assert "images.txt lists an image twice" in failure("cub200", tmp_path)


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
    message = failure(name, tmp_path)
    assert str(path) in message
    assert image in message


def test_an_image_of_another_size_in_tiny_imagenet_is_named(tmp_path: Path) -> None:
    name = f"train/{WNIDS[0]}/images/{WNIDS[0]}_1.JPEG"
    write_folder(tmp_path, {**tiny_imagenet(), name: jpeg(64, 32, 1)}, TINY)
    message = failure("tiny_imagenet", tmp_path)
    assert name in message
    assert "64x32, not 64x64" in message


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("cut", [10, 1000, 0.5])
def test_a_truncated_archive_is_told(tmp_path: Path, name: str, cut: float) -> None:
    folder, make = SETS[name]
    path = PACKED[name](tmp_path, make(), folder)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut) if cut < 1 else -int(cut)])
    message = failure(name, tmp_path)
    assert str(path) in message
    assert "not a complete" in message


def test_a_changed_byte_anywhere_in_the_tgz_is_told(tmp_path: Path) -> None:
    path = write_tgz(tmp_path, birds(), CUB)
    content = path.read_bytes()
    for place in np.linspace(30, len(content) - 5, 12).astype(int):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        assert str(path) in failure("cub200", tmp_path)


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
