"""The interface of readers of raw images, and the reader of the bundled digits.

Other readers are in `official.py` and `class_folders.py`.
"""

import hashlib
import importlib.util
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.data.order import balanced_order
from bench.system.errors import UserError

DIGITS_TEST_IMAGES = 500


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images in the order of their files: pixels uint8 `[n, H, W, C]`, labels int64 `[n]`."""

    train_pixels: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_pixels: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]


class Reader(Protocol):
    """One copy of a data set."""

    @property
    def description(self) -> str:
        """What this copy is, in a few words that are shown beside its results."""
        ...

    def content_hash(self) -> str:
        """Hex SHA-256 of what `decode` would read; fast compared with decoding."""
        ...

    def decode(self) -> Decoded:
        """Read everything. Raises `UserError`, which names a file that cannot be read."""
        ...


class BundledDigits:
    """The 1797 real 8x8 digits that come with scikit-learn.

    They have no official split; the last 500 in the canonical order are the test images.
    """

    description = "scikit-learn digits, resplit"

    def content_hash(self) -> str:
        # Importing scikit-learn takes seconds, so its data file is located without the import.
        package = importlib.util.find_spec("sklearn")
        for folder in (package and package.submodule_search_locations) or ():
            file = Path(folder, "datasets", "data", "digits.csv.gz")
            if file.is_file():
                return hash_files([file])
        pixels, labels = self._read()
        return hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()

    def decode(self) -> Decoded:
        pixels, labels = self._read()
        order = balanced_order(pixels, labels)
        train, test = order[:-DIGITS_TEST_IMAGES], order[-DIGITS_TEST_IMAGES:]
        classes = tuple(str(digit) for digit in range(10))
        return Decoded(pixels[train], labels[train], pixels[test], labels[test], classes)

    def _read(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # values were 0..16
        return pixels[..., None], digits.target.astype(np.int64)


def torchvision_dataset(class_name: str) -> Any:
    """The class `torchvision.datasets.<class_name>`.

    Raises:
        UserError: torchvision is missing, or does not fit the installed torch.
    """
    try:  # a build for another torch fails with RuntimeError (operator ... does not exist)
        with warnings.catch_warnings():
            # Importing it causes deprecation warnings of torch, which no user can resolve.
            warnings.simplefilter("ignore")
            from torchvision import datasets
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(
            f"torchvision cannot be imported ({error}): install the version for the installed "
            "torch, or provide the images as a zip of class folders"
        ) from error
    return getattr(datasets, class_name)


@contextmanager
def image_errors_named(where: object, name: str) -> Iterator[None]:
    """Turn any error of reading an image into a `UserError` that names the image."""
    from PIL import Image, UnidentifiedImageError

    damaged = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, zlib.error)
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of metadata, which are not used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (*damaged, zipfile.BadZipFile, *bombs) as error:
        reason = "it is no image" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{where}: cannot read the image {name} ({reason})") from error


def hash_files(paths: Sequence[Path], root: Path | None = None) -> str:
    """Hex SHA-256 over names (below `root`, if given), sizes and bytes."""
    digest = hashlib.sha256()
    for path in paths:
        name = path.relative_to(root).as_posix() if root else path.name
        content = path.read_bytes()
        digest.update(os.fsencode(f"{name}\0{len(content)}\n"))  # names need not be UTF-8
        digest.update(content)
    return digest.hexdigest()
