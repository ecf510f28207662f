"""The known data sets, and their raw images: found, decoded once, cached, fingerprinted."""

import difflib
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.cache import Stored, load_or_build
from bench.data.class_folders import ClassFolders
from bench.data.finding import Packaging, Wanted, find, similar_names
from bench.data.official import CifarBatches, Cub200, TinyImageNet, as_bird, as_tiny_image
from bench.data.order import balanced_order, fingerprint
from bench.data.readers import BundledDigits, Reader, torchvision_dataset
from bench.system.choices import SHAPES
from bench.system.errors import UserError
from bench.system.text import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

_CACHE_VERSION = 1  # of the decoding, the order and the layout of the cached file


@dataclass(frozen=True)
class Dataset:
    """Facts about a data set, independent of any file.

    Attributes:
        sizes: train and test images of the whole set; the source of a copy states other numbers.
        names: further names of folders and archives that may hold it.
        bundled: a reader that needs no files under the data root.
        packaging: the form in which its authors publish it.
        torchvision: the class in `torchvision.datasets` that downloads this form.
        archive, address: for a download by hand, if torchvision has none.
        decode_one: converts an image in class folders; by default images are unchanged.
        resplit_copies: whether copies in class folders may have another split.
    """

    sizes: tuple[int, int]
    names: tuple[str, ...] = ()
    bundled: Reader | None = None
    packaging: Packaging | None = None
    torchvision: str = ""
    archive: str = ""
    address: str = ""
    decode_one: "Callable[[Image], NDArray[np.uint8]] | None" = None
    resplit_copies: bool = False


# A new data set in class folders, or an archive of them, needs an entry here and its shape in
# `choices.SHAPES`.
DATASETS: dict[str, Dataset] = {
    "digits": Dataset(sizes=(1_297, 500), bundled=BundledDigits()),
    "cifar10": Dataset(
        sizes=(50_000, 10_000),
        names=("cifar-10-python",),
        torchvision="CIFAR10",
        packaging=Packaging(
            "cifar-10-batches-py",
            ("batches.meta", "data_batch_1", "test_batch"),
            partial(CifarBatches, class_name="CIFAR10"),
        ),
    ),
    "cifar100": Dataset(
        sizes=(50_000, 10_000),
        torchvision="CIFAR100",
        packaging=Packaging(
            "cifar-100-python",
            ("meta", "train", "test"),
            partial(CifarBatches, class_name="CIFAR100"),
        ),
        # Copies as image files derive from collections with all original images, but with train
        # and test parts merged and split again, so results must say so.
        resplit_copies=True,
    ),
    "cub200": Dataset(
        sizes=(5_994, 5_794),
        packaging=Packaging("CUB_200_2011", Cub200.tables, Cub200, images="images"),
        archive="CUB_200_2011.tgz",
        address="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        decode_one=as_bird,
    ),
    "tiny_imagenet": Dataset(
        sizes=(100_000, 10_000),
        names=("tiny-imagenet",),
        packaging=Packaging(
            "tiny-imagenet-200",
            (*TinyImageNet.tables, "words.txt"),
            TinyImageNet,
            images="val",
        ),
        archive="tiny-imagenet-200.zip",
        address="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        decode_one=as_tiny_image,
    ),
}


@dataclass(frozen=True, eq=False)
class RawImages:
    """Decoded images in the canonical order (`bench/data/order.py`).

    Attributes:
        train_pixels, test_pixels: uint8 `[n, H, W, C]`, values 0..255.
        train_labels, test_labels: int64 `[n]`, indices into `classes`.
        classes: names, sorted.
        source: which copy this is, shown beside every result.
        fingerprint: 16 hex digits over pixels, labels, class names and split; the same for the
            same images in any form.
    """

    train_pixels: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_pixels: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]
    source: str
    fingerprint: str


def load_raw(name: str, data_root: Path, cache_root: Path) -> RawImages:
    """The images of data set `name`, from the cache if the same content was decoded before.

    Args:
        name: a key of `DATASETS`.
        data_root: folder to search for copies; ignored for bundled data.
        cache_root: folder for decoded arrays (as large as the uncompressed images).

    Raises:
        UserError: unknown name, no copy found, a damaged copy, a cache that cannot be written.
    """
    reader = find_source(name, data_root)
    if reader is None:
        raise UserError(not_found(name, data_root))
    try:
        content = reader.content_hash()
    except OSError as error:
        raise UserError(f"cannot read {name} in {data_root}: {error}") from error
    path = cache_root / "decoded" / f"{name}-{content[:24]}-v{_CACHE_VERSION}.safetensors"
    stored = load_or_build(path, lambda: _decode(reader))
    arrays = {key: tensor.numpy() for key, tensor in stored.tensors.items()}
    return RawImages(
        **arrays,
        classes=tuple(stored.facts["classes"]),
        source=_source(name, reader, len(arrays["train_labels"]), len(arrays["test_labels"])),
        fingerprint=stored.facts["fingerprint"],
    )


def find_source(name: str, data_root: Path) -> Reader | None:
    """The first copy of `name` under `data_root`; None if there is none.

    Tried in this order: the form of its authors, class folders, archives of either (`finding.py`).

    Raises:
        UserError: an unknown data set, or a file with its name holds something else.
    """
    bundled = _dataset(name).bundled
    return bundled if bundled is not None else find(data_root, _wanted(name))


def _wanted(name: str) -> Wanted:
    dataset = _dataset(name)
    published = (dataset.packaging.folder,) if dataset.packaging else ()
    return Wanted(
        name,
        (*published, name, *dataset.names),
        dataset.packaging,
        partial(ClassFolders, decode=dataset.decode_one),
        SHAPES[name].classes,
    )


def download(name: str, data_root: Path) -> None:
    """Download `name` into `data_root` through torchvision; does nothing for bundled data.

    torchvision checks the hashes after the download and whenever the data are loaded, so an
    interrupted download is never used.

    Raises:
        UserError: an unknown data set, one that torchvision does not have, no network, no space.
    """
    dataset = _dataset(name)
    if dataset.bundled is not None:
        return
    if not dataset.torchvision:
        raise UserError(not_found(name, data_root))
    dataset_class = torchvision_dataset(dataset.torchvision)
    try:
        data_root.mkdir(parents=True, exist_ok=True)
        dataset_class(data_root, download=True)
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{name} could not be downloaded to {data_root}: {reason}; without a network, copy "
            f"{name}.zip (class folders) or torchvision's folder there"
        ) from error


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.0)[0]
        raise UserError(f"unknown dataset {name}: did you mean {near}? ({', '.join(DATASETS)})")
    return DATASETS[name]


def _decode(reader: Reader) -> Stored:
    """Decode, sort the classes by name and the images into the canonical order."""
    decoded = reader.decode()
    classes = tuple(sorted(decoded.classes))
    relabel = np.array([classes.index(name) for name in decoded.classes], dtype=np.int64)
    train_labels, test_labels = relabel[decoded.train_labels], relabel[decoded.test_labels]
    train = balanced_order(decoded.train_pixels, train_labels)
    test = balanced_order(decoded.test_pixels, test_labels)
    arrays = {
        "train_pixels": decoded.train_pixels[train],
        "train_labels": train_labels[train],
        "test_pixels": decoded.test_pixels[test],
        "test_labels": test_labels[test],
    }
    return Stored(
        {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()},
        {
            "classes": tuple(map(one_line, classes)),
            "fingerprint": fingerprint(**arrays, classes=classes),
        },
    )


def _source(name: str, reader: Reader, train_count: int, test_count: int) -> str:
    dataset = _dataset(name)
    source = reader.description
    if dataset.resplit_copies and isinstance(reader, ClassFolders):
        source += " (resplit)"
    if (train_count, test_count) != dataset.sizes:  # such as a folder that was copied in part
        source += f" ({train_count} + {test_count} of {dataset.sizes[0]} + {dataset.sizes[1]})"
    return source


def not_found(name: str, data_root: Path) -> str:
    """The error if there is no copy of a data set, with how to get one."""
    dataset, wanted = _dataset(name), _wanted(name)
    forms = [f"{name}/{{train,test}}/<class>/", f"{name}.zip"]
    fetch = "put one there"
    if dataset.packaging is not None:
        forms.insert(0, f"{dataset.packaging.folder}/")
    if dataset.torchvision:
        words = ["python", "-m", "bench.prepare", f"dataset={name}", f"data_root={data_root}"]
        fetch = f"download it with `{shlex.join(words)}`"
    elif dataset.archive:
        forms.insert(1, dataset.archive)
        fetch = f"download {dataset.archive} from {dataset.address} and put it there"
    looked_for = f"looked for {', '.join(forms)}"
    if not data_root.exists():
        problem = f"the data folder {data_root} for {name} does not exist"
    elif data_root.is_file():
        problem = f"data_root={data_root} is a file that does not hold {name} ({looked_for})"
    else:
        problem = f"there is no {name} in the data folder {data_root} ({looked_for})"
        if like := similar_names(data_root, wanted):
            problem += f"; {like[0]} is there, but has none of these forms"
        elif other := _other_set(name, data_root):
            problem += f"; it holds {other}"
    return f"{problem}: {fetch}, or give another folder with data_root=... or BENCH_DATA_ROOT"


def _other_set(name: str, data_root: Path) -> str:
    """The name of another data set whose own folder the data root is; empty if there is none."""
    for other, dataset in DATASETS.items():
        form = dataset.packaging
        if other != name and form and any((data_root / part).is_file() for part in form.markers):
            return other
    return ""
