"""A canonical order of the images of a data set, for copies in any form, and the fingerprint.

Archives list the same images in different orders (by class, shuffled in batches, by file name). In
the canonical order the same images give the same tensors, random batches and fingerprint.

The order also mixes the classes evenly: any leading or trailing part of it has every class in
proportion, to within one image. So a held-out part is a slice: a view of the same memory that needs
no random numbers, and a smaller one is part of a larger one.
"""

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

_FINGERPRINT_VERSION = 1


def balanced_order(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices that put images into the canonical order.

    Within a class, images are sorted by their SHA-256 digests, a fixed permutation independent of
    what they show; the classes are then interleaved in proportion to their sizes.

    Args:
        pixels: `[n, H, W, C]`.
        labels: `[n]`.

    Returns:
        `[n]`, a permutation of `0..n-1`.
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in pixels]
    by_digest = np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)
    position = np.empty(len(labels))  # of an image within its class, in (0, 1)
    for label in np.unique(labels):
        members = by_digest[labels[by_digest] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Ties are between classes only: within a class the digests have decided.
    return np.lexsort((labels, position)).astype(np.int64)


def fingerprint(
    train_pixels: NDArray[np.uint8],
    train_labels: NDArray[np.int64],
    test_pixels: NDArray[np.uint8],
    test_labels: NDArray[np.int64],
    classes: tuple[str, ...],
) -> str:
    """First 16 hex digits of a SHA-256 over pixels, labels, class names and the split.

    The images (`[n, H, W, C]`) must be in the canonical order for copies to agree.
    """
    header = {
        "version": _FINGERPRINT_VERSION,
        "classes": classes,
        "train": train_pixels.shape,
        "test": test_pixels.shape,
    }
    digest = hashlib.sha256(json.dumps(header).encode())
    for labels, pixels in ((train_labels, train_pixels), (test_labels, test_pixels)):
        digest.update(labels.astype("<i8").tobytes())
        digest.update(pixels.tobytes())
    return digest.hexdigest()[:16]
