"""Finished runs, published as `python -m bench.publish` does it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from analysis.load import StoredRun
from analysis.published import with_published
from bench.config.run_config import RunConfig
from bench.publish import main
from bench.publishing.reading import Published
from bench.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker

GRIDS = ("methods_comparison", "window_ablation", "boosting")
FINISHED = "2026-11-26T14:51:53+00:00"


def publish(results: "Maker", *arguments: str) -> Path:
    folder = results.root.parent / "published"
    where = [f"results_root={results.root}", f"published={folder}"]
    assert main(["scale=quick", *where, *arguments]) == 0
    return folder


def records(folder: Path) -> list[StoredRun]:
    """The runs of a fresh clone: those that are published."""
    return with_published([], Published(folder))


def add_set(run: RunFolder, config: RunConfig) -> None:
    """A distilled set of digits with random images, and a picture."""
    rng = np.random.default_rng(config.seed)
    images = rng.normal(size=(10 * config.ipc, 1, 8, 8)).astype(np.float32)
    labels = np.repeat(np.eye(10, dtype=np.float32), config.ipc, axis=0)
    metadata = {"distilled_set": json.dumps({"classes": [str(k) for k in range(10)]})}
    save_file({"images": images, "labels": labels}, run.path / "distilled.safetensors", metadata)
    (run.path / "distilled.png").write_bytes(b"a picture")


def finish(run: RunFolder, at: str = FINISHED) -> None:
    run.write("result", {**(run.read("result") or {}), "finished": at})
