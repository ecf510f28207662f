"""How different the distilled images of a class are from each other."""

import math
from typing import Any

from analysis.load import FinishedRun
from bench.runs.run_folder import RunFolder


def image_diversity(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """The logarithm of `mean_distance`; of published records, in which a run may lack its set, of
    the distance that was computed from it when the run was published."""
    distance = run.result.get("image_distance") or mean_distance(run.folder)
    return {0: math.log(distance)} if distance else {}


def mean_distance(folder: RunFolder) -> float:
    """The mean over classes and pairs of images of a class of 1 - cosine of the two images, as the
    networks see them. So 0 is the same image at any contrast, 1 are images that have nothing in
    common. 0 too with one image per class, or if the set is gone.
    """
    import json

    import numpy as np
    from safetensors import SafetensorError, safe_open

    path = folder.with_result.path / "distilled.safetensors"
    try:
        with safe_open(path, framework="np") as file:
            classes = len(json.loads((file.metadata() or {})["distilled_set"])["classes"])
            images = file.get_tensor("images").astype(np.float64)
    except (OSError, SafetensorError, KeyError, ValueError):
        return 0.0
    per_class = len(images) // classes  # ordered by class
    if per_class < 2:
        return 0.0
    flat = images.reshape(classes, per_class, -1)
    unit = flat / np.linalg.norm(flat, axis=2, keepdims=True)
    cosines = np.einsum("cid,cjd->cij", unit, unit)
    one, other = np.triu_indices(per_class, k=1)
    return max(0.0, float((1 - cosines[:, one, other]).mean()))
