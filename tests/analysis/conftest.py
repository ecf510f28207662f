"""Synthetic results: run folders with the records of runs that were never trained."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.config.grid import expand, load_grid
from bench.config.run_config import RunConfig
from bench.runs.records import Recorder
from bench.runs.run_folder import RunFolder, Store

FINGERPRINT = "0123456789abcdef"


def accuracy_of(config: RunConfig, step: int) -> float:
    """A number that depends on method, seed and step."""
    return 0.2 + 0.01 * len(config.method) + 0.05 * config.seed**2 + 0.001 * step


def norm_of(config: RunConfig, step: int) -> float:
    """A positive number that depends on method, seed and step, over several magnitudes."""
    return math.exp(math.sin(step) + 0.3 * config.seed**2 + 0.1 * len(config.method))


def write_run(
    root: Path,
    config: RunConfig,
    *,
    finished: bool = True,
    norm: Callable[[RunConfig, int], float] = norm_of,
    accuracy: Callable[[RunConfig, int], float] = accuracy_of,
    fingerprint: str = FINGERPRINT,
    final: float = 0.5,
) -> RunFolder:
    """A run folder as a run leaves it, with 40 outer steps and a measurement every 10; `final` is
    the test accuracy of its final evaluation."""
    folder = Store(root).run(config)
    folder.create(config)
    data = {"name": "digits", "source": "made up", "fingerprint": fingerprint}
    folder.write("manifest", {"seed": config.seed, "data": data, "starts": []})
    with Recorder(folder.path, {}) as recorder:
        for step in range(41):
            if step % 10 == 0:
                if step < 40:
                    variance = {"step": step, "normalized_variance": norm(config, step)}
                    recorder.append("measurements", variance)
                mean = accuracy(config, step)
                measured: dict[str, Any] = {
                    "step": step,
                    "selection": config.selection,
                    "steps": 30,
                    "n": 5,
                    "validation_accuracy_mean": mean,
                    "validation_accuracy_std": None,
                    "test_accuracy_mean": mean,
                    "test_accuracy_std": 0.01,
                    "all_steps": [30],
                    "all_test": [[mean]],
                }
                recorder.append("measurements", measured)
            if step < 40:
                value = norm(config, step)
                recorder.append(
                    "metrics",
                    {
                        "step": step,
                        "outer_loss": 2.3,
                        "window_start": 0,
                        "window_stop": 10,
                        "gradient_norm": 2 * value,
                        "image_gradient_norm": value,
                        "clip_factor": 1.0,
                        "updated": math.isfinite(value),
                        "seconds": 0.1,
                    },
                )
    if finished:
        evaluation = {"selection": config.selection, "n": 10, "test_accuracy_mean": final}
        folder.write("result", {"evaluation": evaluation, "data": data})
    return folder


def configs_of(grid: str, seeds: int = 2, **overrides: Any) -> list[RunConfig]:
    return expand(load_grid(grid), "quick", overrides, seeds)


@pytest.fixture
def results(tmp_path: Path) -> "Maker":
    return Maker(tmp_path / "results")


class Maker:
    """Writes synthetic runs under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def grid(self, grid: str, seeds: int = 2, **overrides: Any) -> list[RunFolder]:
        return [write_run(self.root, config) for config in configs_of(grid, seeds, **overrides)]

    def run(self, config: RunConfig, **how: Any) -> RunFolder:
        return write_run(self.root, config, **how)

    configs = staticmethod(configs_of)
    accuracy = staticmethod(accuracy_of)
    norm = staticmethod(norm_of)
