"""Strategies for copies of data sets with something wrong in them: folders and archives."""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

Members = dict[str, bytes]
# A file of a tar that is none: its kind, and where it points to.
Special = tuple[bytes, str]


def picture(mode: str = "RGB", size: tuple[int, int] = (4, 4), kind: str = "png") -> bytes:
    """An encoded image."""
    random = np.random.default_rng(0)
    pixels = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype="u1"))
    buffer = io.BytesIO()
    image = pixels.convert("L").convert("I;16") if mode == "I;16" else pixels.convert(mode)
    image.save(buffer, kind)
    return buffer.getvalue()


def huge_picture(side: int) -> bytes:
    """A PNG of a few kB that states side x side black pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    row = zlib.compress(bytes(side + 1) * min(side, 200), 9)
    chunks = ((b"IHDR", header), (b"IDAT", row), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


CONTENTS: dict[str, bytes] = {
    **{f"{mode}.png": picture(mode) for mode in ("RGB", "L", "RGBA", "P", "1", "LA", "I;16")},
    "cmyk.jpg": picture("CMYK", kind="jpeg"),
    "gray.jpg": picture("L", kind="jpeg"),
    "float.tiff": picture("F", kind="tiff"),
    "color.webp": picture(kind="webp"),
    "color.gif": picture("P", kind="gif"),
    "wide.png": picture(size=(8, 4)),
    "one.png": picture(size=(1, 1)),
    "large.png": picture(size=(70, 70)),
    "cut.png": picture()[:60],
    "bomb.png": huge_picture(60_000),
    "half a bomb.png": huge_picture(11_000),
    "empty": b"",
    "text": b"0 1 2\n" * 9,
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94.",
    "zeros": bytes(3 << 20),
}
NAMES = [
    *("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png", "test/a/2.png"),
    *("../up.png", "../../train/a/up.png", "/train/a/root.png", "train/../../../up.png", "/tmp/x"),
    *("train/a/../b/3.png", "./train/a/3.png", "train//a/3.png", "train/a/", "train", "test/c/"),
    *("C:\\train\\a\\1.png", "train\\a\\4.png", "train/a/é\U0001f600.png", "train/\u202e/1.png"),
    *("train/a b/1.png", "train/a\nb/1.png", "train/\x1b[31m/1.png", f"train/{'x' * 200}/1.png"),
    *(
        "train/a/1.PNG",
        "train/a/1.jpeg",
        "train/a/.png",
        "train/.a/1.png",
        "__MACOSX/train/a/1.png",
    ),
    *("train/c/1.png", "val/a/1.png", "train/a/b/1.png", "train/1.png", "TRAIN/a/9.png", "read me"),
    *("batches.meta", "data_batch_1", "test_batch", "meta", "wnids.txt", "images.txt", "words.txt"),
    *(
        "val/val_annotations.txt",
        "val/images/v.png",
        "images/1.jpg",
        "classes.txt",
        "train/\udcff/1.png",
    ),
]
SPECIAL: list[Special] = [
    *(
        (kind, to)
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
        for to in ("/etc/passwd", "..", "x")
    ),
    *((kind, "") for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, b"Z")),
]


def class_folders() -> Members:
    """A valid copy of two classes."""
    places = [f"{split}/{name}/{k}" for split in ("train", "test") for name in "ab" for k in (1, 2)]
    return {f"{place}.png": CONTENTS["RGB.png"] for place in places}


def birds() -> Members:
    """A valid copy of CUB-200-2011 in its authors' form."""
    numbers = range(1, 9)
    return {
        "images.txt": b"".join(b"%d %d.jpg\n" % (k, k) for k in numbers),
        "image_class_labels.txt": b"".join(b"%d %d\n" % (k, 1 + k % 2) for k in numbers),
        "train_test_split.txt": b"".join(b"%d %d\n" % (k, k > 4) for k in numbers),
        "classes.txt": b"1 a\n2 b\n",
        **{f"images/{k}.jpg": CONTENTS["gray.jpg"] for k in numbers},
    }


def tiny_images() -> Members:
    """A valid copy of Tiny-ImageNet in its authors' form."""
    image = picture(size=(64, 64))
    return {
        "wnids.txt": b"a\nb\n",
        "val/val_annotations.txt": b"v.png a\nw.png b\n",
        **{f"val/images/{name}.png": image for name in "vw"},
        **{f"train/{name}/images/{k}.png": image for name in "ab" for k in (1, 2)},
    }


FORMS: dict[str, tuple[str, Callable[[], Members]]] = {
    "cifar10": ("cifar10", class_folders),
    "cifar100": ("cifar-100-python", class_folders),
    "cub200": ("CUB_200_2011", birds),
    "tiny_imagenet": ("tiny-imagenet-200", tiny_images),
}
LINES = [
    b"1 1",
    b"1 2 3",
    b"9 9",
    b"1",
    b"",
    b"-1 x",
    b"1 nan",
    b"\xff\xfe",
    b"../x a",
    b"1 ../../x.jpg",
]


@st.composite
def members(draw: Any, form: Members) -> dict[str, bytes | Special]:
    """Members of an archive: those of a valid one with some changed, left out or added."""
    content: dict[str, bytes | Special] = dict(form)
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from([*form, *NAMES]))
        match draw(st.integers(0, 5)):
            case 0:
                content.pop(name, None)
            case 1:
                content[name] = draw(st.sampled_from(SPECIAL))
            case 2 if name.endswith(".txt"):
                lines = form.get(name, b"").splitlines()
                lines[draw(st.integers(0, len(lines))) :] = draw(st.lists(st.sampled_from(LINES)))
                content[name] = b"\n".join(lines)
            case 3:
                prefix = name.split("/")[0]
                content = {
                    key: value for key, value in content.items() if not key.startswith(prefix)
                }
            case _:
                content[name] = CONTENTS[draw(st.sampled_from(sorted(CONTENTS)))]
    return content


def zipped(content: Mapping[str, bytes | Special], folder: str, method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, value in content.items():
            place = name if name.startswith("/") else f"{folder}{name}"
            member = zipfile.ZipInfo(place.encode(errors="replace").decode())
            if isinstance(value, tuple):
                member.external_attr = 0o120777 << 16  # a symbolic link
                value = value[1].encode()
            archive.writestr(member, value, method)
    return buffer.getvalue()


def tarred(content: Mapping[str, bytes | Special], folder: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, value in content.items():
            member = tarfile.TarInfo(name if name.startswith("/") else f"{folder}{name}")
            if isinstance(value, tuple):
                member.type, member.linkname = value
                archive.addfile(member)
            else:
                member.size = len(value)
                archive.addfile(member, io.BytesIO(value))
    return buffer.getvalue()


def write_folder(content: Mapping[str, bytes | Special], folder: Path) -> None:
    """As unpacked by a program that takes care: nothing outside `folder`."""
    for name, value in content.items():
        path = folder / os.path.normpath(f"/{name}").removeprefix("/")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(value, bytes):
                path.write_bytes(value)
            elif value[0] == tarfile.FIFOTYPE:
                os.mkfifo(path)
            elif value[1]:
                path.symlink_to(value[1])
        except OSError:
            continue  # a file and a folder of one name


KINDS = ("folder", "zip", "deflated.zip", "tar", "tar.gz", "tgz", "tar.xz", "tar.bz2")


@st.composite
def copies(draw: Any, dataset: str) -> Callable[[Path], None]:
    """What writes a copy of a data set into a folder."""
    name, form = FORMS[dataset]
    content = draw(members(form()))
    kind = draw(st.sampled_from(KINDS))
    folder = draw(st.sampled_from([f"{name}/"] * 4 + ["", "flowers/", "./", f"a/{name}/"]))
    damage = draw(st.sampled_from([None] * 4 + ["cut", "flipped", "empty", "text"]))
    where = draw(st.floats(0, 1))

    def write(data: Path) -> None:
        data.mkdir()
        if kind == "folder":
            return write_folder(content, data / (folder or name))
        if kind.endswith("zip"):
            packed = zipped(content, folder, 8 if kind.startswith("deflated") else 0)
        else:
            packed = tarred(content, folder)
            packers = {
                "gz": gzip.compress,
                "tgz": gzip.compress,
                "xz": lzma.compress,
                "bz2": bz2.compress,
            }
            pack = packers.get(kind.rpartition(".")[2])
            packed = pack(packed) if pack else packed
        (data / f"{name}.{kind.removeprefix('deflated.')}").write_bytes(
            damaged(packed, damage, where)
        )

    return write


def damaged(content: bytes, damage: str | None, where: float) -> bytes:
    place = int(where * (len(content) - 1))
    match damage:
        case "cut":
            return content[:place]
        case "flipped":
            return content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]
        case "empty":
            return b""
        case "text":
            return b"<html>404</html>"
    return content
