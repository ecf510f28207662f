"""The target set of a run: whitened images in memory, split into train, validation and test."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.cache import Stored, load_or_build
from bench.data.sources import RawImages, load_raw
from bench.data.whitening import Whitening
from bench.system.errors import UserError

_CACHE_VERSION = 1  # of the resizing, the whitening and the layout of the cached file
_CHUNK = 5_000  # images; bounds the memory of float copies


@dataclass(frozen=True, eq=False)
class Split:
    """Images with labels: whitened float `[n, C, H, W]` and int64 `[n]`."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Split":
        """The same on `device`, images as `dtype`; no copy where nothing changes."""
        return Split(self.images.to(device, dtype), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class TargetSet:
    """A real data set, ready for distillation and evaluation.

    Attributes:
        name: key of `bench.data.sources.DATASETS`.
        source: which copy of the data this is, shown beside every result.
        fingerprint: 16 hex digits over the raw images, labels, class names and official split.
        classes: names; labels are indices into it.
        train, validation: the two parts of the official training set; validation may be empty.
        test: the official test set.
        whitening: how the images were whitened; converts them back to pixels.
    """

    name: str
    source: str
    fingerprint: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    whitening: Whitening

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.whitening.image_shape

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "TargetSet":
        """The same with all images and labels on `device`, images as `dtype`."""
        parts = {name: getattr(self, name) for name in ("train", "validation", "test")}
        return replace(self, **{name: part.to(device, dtype) for name, part in parts.items()})


def load_target_set(
    name: str,
    *,
    data_root: Path,
    cache_root: Path,
    zca: bool = True,
    zca_lambda: float = 0.1,
    validation_fraction: float = 0.1,
    image_size: int = 0,
) -> TargetSet:
    """Load, whiten and split a data set; decoded and whitened images are cached.

    The images are memory-mapped: processes on one machine share the memory of a data set. The
    validation part is the same in every run, has the classes in proportion, and a smaller one is
    part of a larger one. The whitening is fitted to the whole official training set (images only),
    so that it does not depend on `validation_fraction`.

    Args:
        name: a key of `bench.data.sources.DATASETS`.
        data_root: folder of the data sets.
        cache_root: folder for decoded and whitened images (5 bytes per value).
        zca: regularized ZCA; False: only the per-image normalization.
        zca_lambda: λ, as a multiple of the mean eigenvalue.
        validation_fraction: fraction of the training set to hold out, in [0, 1).
        image_size: height and width that images are resized to before whitening, noted in `source`;
            0: no resizing.

    Raises:
        UserError: unknown name, missing or damaged data, invalid settings, unwritable cache.
    """
    if not 0 <= validation_fraction < 1:
        raise UserError(f"validation_fraction={validation_fraction} must be in [0, 1)")
    raw = load_raw(name, data_root, cache_root)
    size = image_size if image_size and raw.train_pixels.shape[1:3] != (image_size,) * 2 else 0
    source = f"{raw.source} (resized to {size}x{size})" if size else raw.source
    kind = f"zca{float(zca_lambda)!r}" if zca else "standardized"
    resized = f"-{size}x{size}" if size else ""
    file_name = f"{name}-{raw.fingerprint}{resized}-{kind}-v{_CACHE_VERSION}.safetensors"
    stored = load_or_build(
        cache_root / "whitened" / file_name,
        lambda: _whiten(raw, size=size, zca=zca, zca_lambda=zca_lambda),
    )
    images, labels = stored.tensors["train"], torch.from_numpy(raw.train_labels)
    train_size = len(labels) - round(validation_fraction * len(labels))
    if len(labels[:train_size].unique()) < len(raw.classes):
        raise UserError(
            f"validation_fraction={validation_fraction} leaves some class of {name} without a "
            "training image"
        )
    return TargetSet(
        name=name,
        source=source,
        fingerprint=raw.fingerprint,
        classes=raw.classes,
        # Any tail of the canonical order is balanced (`order.py`), and a slice is a view.
        train=Split(images[:train_size], labels[:train_size]),
        validation=Split(images[train_size:], labels[train_size:]),
        test=Split(stored.tensors["test"], torch.from_numpy(raw.test_labels)),
        whitening=Whitening.from_state(stored.tensors),
    )


def _whiten(raw: RawImages, *, size: int, zca: bool, zca_lambda: float) -> Stored:
    train, test = (
        torch.from_numpy(pixels).permute(0, 3, 1, 2)  # [n, H, W, C] -> [n, C, H, W]
        for pixels in (raw.train_pixels, raw.test_pixels)
    )
    if size:
        train, test = resize(train, size), resize(test, size)
    whitening = Whitening.fit(train, zca=zca, zca_lambda=zca_lambda)
    images = {"train": whitening.apply(train), "test": whitening.apply(test)}
    return Stored(images | whitening.state())


def resize(pixels: Tensor, size: int) -> Tensor:
    """Resize bilinearly with antialiasing.

    Args:
        pixels: uint8 [n, C, H, W].

    Returns:
        uint8 [n, C, size, size].
    """

    def resized(part: Tensor) -> Tensor:
        floats = F.interpolate(
            part.float(), (size, size), mode="bilinear", align_corners=False, antialias=True
        )
        return floats.round_().clamp_(0, 255).to(torch.uint8)

    return torch.cat([resized(part) for part in pixels.split(_CHUNK)])
