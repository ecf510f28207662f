"""Target sets: find, decode, whiten, cache and augment images.

`sources` (with `finding`, `archives`, `readers`, `official`, `class_folders`) reads raw images,
`target_set` (with `whitening`, `cache`, `order`) prepares them, `augment` augments batches.
"""

from bench.data.sources import DATASETS, RawImages, download, find_source, load_raw, not_found
from bench.data.target_set import Split, TargetSet, load_target_set
from bench.data.whitening import Whitening

__all__ = [
    "DATASETS",
    "RawImages",
    "Split",
    "TargetSet",
    "Whitening",
    "download",
    "find_source",
    "load_raw",
    "load_target_set",
    "not_found",
]
