"""Small synthetic copies of CIFAR-10: class folders, a zip, and the files of its authors."""

import hashlib
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.data import load_raw
from bench.data.readers import torchvision_dataset
from bench.system.errors import UserError

CLASSES = ("apple", "bear", "crab")
COUNTS = {"train": 5, "test": 2}


def pictures(seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Path below the data set's folder -> 32x32 RGB image."""
    random = np.random.RandomState(seed)
    return {
        f"{split}/{name}/{index:04}.png": random.randint(0, 256, (32, 32, 3)).astype(np.uint8)
        for split, count in COUNTS.items()
        for name in CLASSES
        for index in range(count)
    }


def encode(image: NDArray[np.uint8], kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, lossless=True)
    return buffer.getvalue()


def write_folder(root: Path, images: dict[str, NDArray[np.uint8]], name: str = "cifar10") -> Path:
    for path, image in images.items():
        file = root / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(image))
    return root / name


def write_zip(root: Path, members: dict[str, bytes], name: str = "cifar10") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
        for path, content in members.items():
            archive.writestr(f"{name}/{path}", content)
    return root / f"{name}.zip"


def zip_of(root: Path, images: dict[str, NDArray[np.uint8]], name: str = "cifar10") -> Path:
    return write_zip(root, {path: encode(image) for path, image in images.items()}, name)


def write_torchvision(
    root: Path, images: dict[str, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The CIFAR-10 authors' format, shuffled; torchvision gets the checksums of these files."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: object) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    sums = {}
    for split, file in (("train", "data_batch_1"), ("test", "test_batch")):
        paths = [path for path in images if path.startswith(split)]
        np.random.RandomState(5).shuffle(paths)
        data = np.stack([images[path].transpose(2, 0, 1).reshape(-1) for path in paths])
        labels = [CLASSES.index(path.split("/")[1]) for path in paths]
        sums[split] = [[file, write(file, {"data": data, "labels": labels})]]
    meta = {"filename": "batches.meta", "key": "label_names"}
    meta["md5"] = write("batches.meta", {"label_names": list(CLASSES)})
    dataset_class = torchvision_dataset("CIFAR10")
    monkeypatch.setattr(dataset_class, "train_list", sums["train"])
    monkeypatch.setattr(dataset_class, "test_list", sums["test"])
    monkeypatch.setattr(dataset_class, "meta", meta)
    return folder


def failure(root: Path, name: str = "cifar10") -> str:
    """The message of the UserError that loading ends with: one line, and no cache left behind."""
    with pytest.raises(UserError) as caught:
        load_raw(name, root, root / "cache")
    assert not list(root.glob("cache/**/*.safetensors"))
    message = str(caught.value)
    assert "\n" not in message
    return message
