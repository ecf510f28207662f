"""Small copies of CUB-200-2011 and Tiny-ImageNet in their official layouts."""

import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.sources import RawImages

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
