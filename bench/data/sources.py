"""Raw images of the known data sets: found where they lie, decoded once, cached, fingerprinted."""

import difflib
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.archives import Files
from bench.data.cache import Stored, load_or_build
from bench.data.class_folders import ClassFolders, ClassZip
from bench.data.official import Cub200, TinyImageNet, find_files
from bench.data.order import balanced_order, fingerprint
from bench.data.readers import BundledDigits, Reader, TorchvisionFiles, torchvision_dataset
from bench.errors import UserError

_CACHE_VERSION = 1  # of the decoding, the order and the layout of the cached file


@dataclass(frozen=True)
class Official:
    """The packaging that a data set's authors publish, which nothing here fetches.

    Attributes:
        folder: its name unpacked.
        archive: its name packed.
        address: where to get it.
        reader: of its files.
    """

    folder: str
    archive: str
    address: str
    reader: Callable[[Files], Reader]


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set before any file is read.

    Attributes:
        sizes: train and test images of the whole set; a copy with other numbers is labelled so.
        bundled: a reader that needs no files under the data root.
        torchvision: class in `torchvision.datasets` and the folder that it keeps its files in.
        official: another official packaging, to be fetched by hand.
        resplit_copies: copies in class folders are not known to have the official split.
    """

    sizes: tuple[int, int]
    bundled: Reader | None = None
    torchvision: tuple[str, str] | None = None
    official: Official | None = None
    resplit_copies: bool = False


# A new data set in class folders or a zip of them needs an entry here and nothing else.
DATASETS: dict[str, Dataset] = {
    "digits": Dataset(sizes=(1_297, 500), bundled=BundledDigits()),
    "cifar10": Dataset(sizes=(50_000, 10_000), torchvision=("CIFAR10", "cifar-10-batches-py")),
    "cifar100": Dataset(
        sizes=(50_000, 10_000),
        torchvision=("CIFAR100", "cifar-100-python"),
        # Copies as image files go back to collections whose images are all original but whose
        # train and test parts were merged and drawn anew, so their numbers must say so.
        resplit_copies=True,
    ),
    "cub200": Dataset(
        sizes=(5_994, 5_794),
        official=Official(
            "CUB_200_2011",
            "CUB_200_2011.tgz",
            "https://www.vision.caltech.edu/datasets/cub_200_2011/",
            Cub200,
        ),
    ),
    "tiny_imagenet": Dataset(
        sizes=(100_000, 10_000),
        official=Official(
            "tiny-imagenet-200",
            "tiny-imagenet-200.zip",
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            TinyImageNet,
        ),
    ),
}


@dataclass(frozen=True, eq=False)
class RawImages:
    """Decoded images in the canonical order (`bench/data/order.py`).

    Attributes:
        train_pixels, test_pixels: uint8 `[n, H, W, C]`, values 0..255.
        train_labels, test_labels: int64 `[n]`, indices into `classes`.
        classes: names, sorted.
        source: which copy this is, to stand beside every result made from it.
        fingerprint: 16 hex digits over pixels, labels, class names and split; the same for the
            same images in any packaging.
    """

    train_pixels: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_pixels: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]
    source: str
    fingerprint: str


def load_raw(name: str, data_root: Path, cache_root: Path) -> RawImages:
    """The images of data set `name`, from the cache if this very content was decoded before.

    Args:
        name: a key of `DATASETS`.
        data_root: folder searched for copies; not looked at for bundled data.
        cache_root: folder for decoded arrays (as large as the uncompressed images).

    Raises:
        UserError: unknown name, no copy found, a damaged copy, a cache that cannot be written.
    """
    reader = find_source(name, data_root)
    if reader is None:
        raise UserError(_not_found(name, data_root))
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
    """The first copy of `name` that lies under `data_root`; None if there is none.

    Tried in this order: torchvision's files or another official packaging, class folders, a zip of
    class folders.

    Raises:
        UserError: `name` is not a known data set.
    """
    dataset = _dataset(name)
    if dataset.bundled is not None:
        return dataset.bundled
    if dataset.torchvision is not None:
        class_name, folder = dataset.torchvision
        if (data_root / folder).is_dir():
            return TorchvisionFiles(data_root / folder, class_name)
    if dataset.official is not None:
        files = find_files(data_root, dataset.official.folder)
        if files is not None:
            return dataset.official.reader(files)
    if (data_root / name / "train").is_dir() or (data_root / name / "test").is_dir():
        return ClassFolders(data_root / name)
    if (data_root / f"{name}.zip").is_file():
        return ClassZip(data_root / f"{name}.zip", name)
    return None


def download(name: str, data_root: Path) -> None:
    """Fetch `name` into `data_root` in torchvision's form; nothing to do for bundled data.

    torchvision checks hashes of what it fetched, here and again whenever it is loaded, so an
    interrupted download is never used.

    Raises:
        UserError: unknown name, no place to fetch it from, no network, no space.
    """
    dataset = _dataset(name)
    if dataset.bundled is not None:
        return
    if dataset.torchvision is None:
        raise UserError(_not_found(name, data_root))
    class_name, _ = dataset.torchvision
    dataset_class = torchvision_dataset(class_name)
    try:
        data_root.mkdir(parents=True, exist_ok=True)
        dataset_class(data_root, download=True)
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{name} could not be fetched into {data_root}: {reason}; where there is no network, "
            f"copy {name}.zip (class folders) or torchvision's folder there"
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
        {"classes": classes, "fingerprint": fingerprint(**arrays, classes=classes)},
    )


def _source(name: str, reader: Reader, train_count: int, test_count: int) -> str:
    dataset = _dataset(name)
    source = reader.description
    if dataset.resplit_copies and isinstance(reader, ClassFolders | ClassZip):
        source += " (resplit)"
    if (train_count, test_count) != dataset.sizes:  # such as a folder that was copied in part
        source += f" ({train_count} + {test_count} of {dataset.sizes[0]} + {dataset.sizes[1]})"
    return source


def _not_found(name: str, data_root: Path) -> str:
    torchvision, official = _dataset(name).torchvision, _dataset(name).official
    forms = [f"{name}/{{train,test}}/<class>/", f"{name}.zip"]
    fetch = "put one there"
    if torchvision is not None:
        forms.insert(0, f"{torchvision[1]}/")
        words = ["python", "-m", "bench.prepare", f"dataset={name}", f"data_root={data_root}"]
        fetch = f"fetch it with `{shlex.join(words)}`"
    if official is not None:
        forms = [f"{official.folder}/", official.archive, *forms]
        fetch = f"fetch {official.archive} from {official.address} and put it there"
    problem = (
        f"there is no {name} in the data folder {data_root} (looked for {', '.join(forms)})"
        if data_root.is_dir()
        else f"the data folder {data_root}, wanted for {name}, does not exist"
    )
    return f"{problem}: {fetch}, or name another folder by data_root=... or BENCH_DATA_ROOT"
