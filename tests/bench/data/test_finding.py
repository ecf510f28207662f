"""Data sets as people have them: sorted, nested, packed again, pointed at from the wrong folder."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data import find_source, load_raw
from bench.data.sources import RawImages
from bench.system.errors import UserError
from tests.bench.data.official_copies import (
    CUB,
    TINY,
    WNIDS,
    Contents,
    birds,
    jpeg,
    tiny_imagenet,
)
from tests.bench.data.small_copies import encode, pictures, write_torchvision


def write(root: Path, contents: Contents, below: str = "") -> Path:
    for name, content in contents.items():
        path = root / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def zipped(path: Path, contents: Contents, below: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"{below}{name}", content)
    return path


def tarred(path: Path, contents: Contents, below: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".bz2": "bz2", ".xz": "xz", ".tar": ""}.get(path.suffix, "gz")
    with tarfile.open(path, f"w:{kind}") as archive:  # type: ignore[call-overload]
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{below}{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def load(name: str, data_root: Path) -> RawImages:
    """Without help from what was decoded before."""
    return load_raw(name, data_root, data_root.parent / f"cache-{os.urandom(4).hex()}")


# --- Tiny-ImageNet


def sorted_val(contents: Contents, images: str = "") -> Contents:
    """The `val` images in class folders, as the usual scripts leave them, with the annotations."""
    rows = contents["val/val_annotations.txt"].decode().splitlines()
    class_of = {row.split("\t")[0]: row.split("\t")[1] for row in rows}

    def moved(name: str) -> str:
        if not name.startswith("val/images/"):
            return name
        image = name.rpartition("/")[2]
        return f"val/{class_of[image]}/{images}{image}"

    return {moved(name): content for name, content in contents.items()}


def without(contents: Contents, *parts: str) -> Contents:
    return {name: x for name, x in contents.items() if not any(part in name for part in parts)}


def without_images_folder(contents: Contents) -> Contents:
    return {name.replace("/images/", "/"): content for name, content in contents.items()}


def half_sorted(contents: Contents) -> Contents:
    """The script was interrupted: half of the images are in their class folders."""
    done = sorted_val(contents)
    left = sorted(name for name in contents if name.startswith("val/images/"))[::2]
    moved = [
        name for name in done if name.rpartition("/")[2] in {n.rpartition("/")[2] for n in left}
    ]
    return without(done, *moved) | {name: contents[name] for name in left}


def copied(contents: Contents) -> Contents:
    """The script copied instead of moving."""
    return contents | sorted_val(contents)


def shouting(contents: Contents) -> Contents:
    """Another system's file names; the annotations name the files as they are now."""
    renamed = {name.replace(".JPEG", ".JPG"): content for name, content in contents.items()}
    key = "val/val_annotations.txt"
    return renamed | {key: contents[key].replace(b".JPEG", b".JPG")}


def littered(contents: Contents) -> Contents:
    junk = {
        ".DS_Store": b"x",
        f"train/{WNIDS[0]}/images/._{WNIDS[0]}_0.JPEG": b"x",
        f"val/{WNIDS[0]}/.DS_Store": b"x",
        "__MACOSX/val/images/._val_0.JPEG": b"x",
    }
    return {**junk, **contents}


LAYOUTS: dict[str, Callable[[Contents], Contents]] = {
    "val sorted": sorted_val,
    "val sorted, with images/": lambda contents: sorted_val(contents, "images/"),
    "val sorted, annotations gone": lambda c: without(sorted_val(c), "val_annotations"),
    "val sorted, all lists gone": lambda c: without(sorted_val(c), ".txt"),
    "no images/ anywhere": lambda contents: without_images_folder(sorted_val(contents)),
    "half sorted": half_sorted,
    "copied, not moved": copied,
    "upper-case endings": shouting,
    "hidden files of a Mac": littered,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiny_imagenet_sorted_by_any_script_is_the_same_set(tmp_path: Path, layout: str) -> None:
    contents = tiny_imagenet()
    official = load("tiny_imagenet", write(tmp_path / "official", contents, TINY))
    changed = LAYOUTS[layout](contents)
    assert changed != contents
    loaded = load("tiny_imagenet", write(tmp_path / "changed", changed, TINY))
    assert loaded.fingerprint == official.fingerprint
    zipped(tmp_path / "zip" / f"{TINY}.zip", changed, f"{TINY}/")
    assert load("tiny_imagenet", tmp_path / "zip").fingerprint == official.fingerprint


@pytest.mark.parametrize("damage", ["another class", "two classes", "unknown class"])
def test_a_val_image_in_the_wrong_class_folder_is_named(tmp_path: Path, damage: str) -> None:
    contents = sorted_val(tiny_imagenet())
    name = next(name for name in contents if name.startswith(f"val/{WNIDS[0]}/"))
    image = name.rpartition("/")[2]
    other = f"val/{'n99999999' if damage == 'unknown class' else WNIDS[1]}/{image}"
    content = contents[name] if damage == "two classes" else contents.pop(name)
    write(tmp_path, contents | {other: content}, TINY)
    with pytest.raises(UserError, match=f"{image}|n99999999"):
        load("tiny_imagenet", tmp_path)


# --- where it lies


def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Contents:
    """The files of the CIFAR authors, by name."""
    folder = write_torchvision(tmp_path / "made", pictures(), monkeypatch)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def class_folders() -> Contents:
    return {name: encode(image) for name, image in pictures().items()}


BATCHES = "cifar-10-batches-py"
Put = Callable[[Path, Contents], Path]
# What is put where; returned is data_root.
CIFAR_PLACES: dict[str, Put] = {
    "the folder": lambda root, c: write(root, c, BATCHES),
    "the folder of batches itself": lambda root, c: write(root, c, BATCHES) / BATCHES,
    "renamed, and itself": lambda root, c: write(root, c, "batches") / "batches",
    "within the set's folder": lambda root, c: write(root, c, f"cifar10/{BATCHES}"),
    "nested": lambda root, c: write(root, c, f"{BATCHES}/{BATCHES}"),
    "nested in the archive's name": lambda root, c: write(root, c, f"cifar-10-python/{BATCHES}"),
    "the tar": lambda root, c: tarred(root / "cifar-10-python.tar.gz", c, f"{BATCHES}/").parent,
    "the tar itself": lambda root, c: tarred(root / "cifar-10-python.tar.gz", c, f"{BATCHES}/"),
    "a tgz": lambda root, c: tarred(root / "cifar-10-python.tgz", c, f"{BATCHES}/").parent,
    "unzipped tar": lambda root, c: tarred(root / "cifar-10-python.tar", c, f"./{BATCHES}/").parent,
    "bzip2": lambda root, c: tarred(root / "cifar10.tar.bz2", c, f"{BATCHES}/").parent,
    "xz": lambda root, c: tarred(root / "cifar10.tar.xz", c, f"{BATCHES}/").parent,
    "the tar in its folder": lambda root, c: (
        tarred(root / "cifar10" / "cifar-10-python.tar.gz", c, f"{BATCHES}/").parent.parent
    ),
    "a zip of the folder": lambda root, c: zipped(root / f"{BATCHES}.zip", c, f"{BATCHES}/").parent,
    "a zip without a folder": lambda root, c: zipped(root / "cifar10.zip", c).parent,
    "a zip with a folder more": lambda root, c: (
        zipped(root / "cifar10.zip", c, f"data/{BATCHES}/").parent
    ),
}
FOLDER_PLACES: dict[str, Put] = {
    "the folder itself": lambda root, c: write(root, c, "cifar10") / "cifar10",
    "another spelling": lambda root, c: write(root, c, "CIFAR-10"),
    "nested": lambda root, c: write(root, c, "cifar10/cifar10"),
    "the zip itself": lambda root, c: zipped(root / "cifar10.zip", c, "cifar10/"),
    "any zip, itself": lambda root, c: zipped(root / "mine.zip", c, "CIFAR-10-images-master/"),
    "a zip without a folder": lambda root, c: zipped(root / "cifar10.zip", c).parent,
    "a zip with a folder more": lambda root, c: (
        zipped(root / "cifar10.zip", c, "archive/cifar10/").parent
    ),
    "a zip from a Mac": lambda root, c: (
        zipped(
            root / "cifar10.zip",
            {f"__MACOSX/cifar10/train/bear/._{k}.png": b"x" for k in "ab"}
            | {"cifar10/.DS_Store": b"x"}
            | {f"cifar10/{name}": content for name, content in c.items()},
        ).parent
    ),
    "a tgz": lambda root, c: tarred(root / "cifar10.tgz", c, "cifar10/").parent,
    "upper-case endings": lambda root, c: write(
        root, {name.replace(".png", ".PNG"): content for name, content in c.items()}, "cifar10"
    ),
}


@pytest.mark.parametrize("place", CIFAR_PLACES)
def test_the_published_cifar_is_read_wherever_it_lies(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = cifar(tmp_path, monkeypatch)
    expected = load("cifar10", write(tmp_path / "plain", class_folders(), "cifar10"))
    loaded = load("cifar10", CIFAR_PLACES[place](tmp_path / "data", contents))
    assert loaded.fingerprint == expected.fingerprint
    assert loaded.source.startswith("official files in ")


@pytest.mark.parametrize("place", FOLDER_PLACES)
def test_class_folders_are_read_wherever_they_lie(tmp_path: Path, place: str) -> None:
    expected = load("cifar10", write(tmp_path / "plain", class_folders(), "cifar10"))
    loaded = load("cifar10", FOLDER_PLACES[place](tmp_path / "data", class_folders()))
    assert loaded.fingerprint == expected.fingerprint
    assert loaded.source.startswith("class folders in ")


PUBLISHED = {"cub200": (CUB, birds), "tiny_imagenet": (TINY, tiny_imagenet)}
PUBLISHED_PLACES: dict[str, Callable[[Path, Contents, str], Path]] = {
    "itself": lambda root, c, folder: write(root, c, folder) / folder,
    "renamed, and itself": lambda root, c, folder: write(root, c, "images") / "images",
    "nested": lambda root, c, folder: write(root, c, f"{folder}/{folder}"),
    "a nested zip": lambda root, c, folder: (
        zipped(root / f"{folder}.zip", c, f"{folder}/{folder}/").parent
    ),
    "the zip itself, of any name": lambda root, c, folder: zipped(
        root / "archive.zip", c, f"{folder}/"
    ),
    "a zip without a folder": lambda root, c, folder: zipped(root / f"{folder}.zip", c).parent,
    "a tar.gz": lambda root, c, folder: tarred(root / f"{folder}.tar.gz", c, f"{folder}/").parent,
    "another spelling": lambda root, c, folder: write(root, c, folder.lower().replace("_", "-")),
}


@pytest.mark.parametrize("place", PUBLISHED_PLACES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_fetched_by_hand_is_read_wherever_it_lies(
    tmp_path: Path, name: str, place: str
) -> None:
    folder, make = PUBLISHED[name]
    expected = load(name, write(tmp_path / "plain", make(), folder))
    loaded = load(name, PUBLISHED_PLACES[place](tmp_path / "data", make(), folder))
    assert loaded.fingerprint == expected.fingerprint


def test_birds_and_tiny_images_in_class_folders_are_the_same_set(tmp_path: Path) -> None:
    contents = birds()
    split_of = dict(line.split() for line in contents["train_test_split.txt"].decode().splitlines())
    sorted_birds = {
        f"{'train' if split_of[number] == '1' else 'test'}/{name}": contents[f"images/{name}"]
        for number, name in (line.split() for line in contents["images.txt"].decode().splitlines())
    }
    tiny = without_images_folder(without(sorted_val(tiny_imagenet()), ".txt", "test/"))
    sorted_tiny = {name.replace("val/", "test/"): content for name, content in tiny.items()}
    for name, folders in (("cub200", sorted_birds), ("tiny_imagenet", sorted_tiny)):
        folder, make = PUBLISHED[name]
        expected = load(name, write(tmp_path / f"plain-{name}", make(), folder))
        assert load(name, write(tmp_path / "sorted", folders, name)).fingerprint == (
            expected.fingerprint
        )


def test_grey_files_among_coloured_ones_have_three_equal_channels(tmp_path: Path) -> None:
    contents = {
        f"{split}/{name}/{k}.jpg": jpeg(32, 32, 10 * k + len(name), "L" if k == 1 else "RGB")
        for split in ("train", "test")
        for name in ("ape", "bears")
        for k in range(3)
    }
    raw = load("cifar10", write(tmp_path / "data", contents, "cifar10"))
    assert raw.train_pixels.shape == (6, 32, 32, 3)
    assert sum((image[..., 0] == image[..., 1]).all() for image in raw.train_pixels) == 2


# --- refused, naming the way out


def test_a_folder_of_another_set_is_not_taken_for_the_one_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, class_folders(), "cifar10") / "cifar10"
    assert find_source("cifar100", tmp_path) is None
    assert find_source("cifar100", folder) is None  # three classes, and called cifar10
    hundred = {name.replace("bear", f"c{k}"): b"x" for name in class_folders() for k in range(97)}
    write(tmp_path / "hundred", class_folders() | hundred, "any")
    assert find_source("cifar100", tmp_path / "hundred" / "any") is not None
    assert find_source("cifar10", tmp_path / "hundred" / "any") is None
    batches = write(tmp_path / "b", cifar(tmp_path, monkeypatch), "cifar-10-batches-py")
    with pytest.raises(UserError, match=r"it holds cifar10.*bench\.prepare"):
        load("cifar100", batches / "cifar-10-batches-py")


def test_what_sounds_like_the_set_but_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"cifar-10-binary.tar.gz.part": b"x"})
    with pytest.raises(
        UserError, match=r"cifar-10-binary\.tar\.gz\.part is there, but has none of"
    ):
        load("cifar10", tmp_path)
    with pytest.raises(UserError, match=r"there is no cifar100 in(?!.*is there)"):
        load("cifar100", tmp_path)
    write(tmp_path, {"cifar-10-python.tar.gz": b"\x1f\x8b half"})
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz is not a complete gz"):
        load("cifar10", tmp_path)
    with pytest.raises(UserError, match="is a file that does not hold cifar10"):
        load("cifar10", write(tmp_path, {"notes.txt": b"x"}) / "notes.txt")


def test_batches_whose_bytes_are_not_the_published_ones_are_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = cifar(tmp_path, monkeypatch)
    evil = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    tarred(tmp_path / "data" / "cifar-10-python.tar.gz", contents | {"test_batch": evil}, "a/")
    with pytest.raises(UserError, match="test_batch is not the published file"):
        load("cifar10", tmp_path / "data")
    assert not (tmp_path / "ran").exists()
