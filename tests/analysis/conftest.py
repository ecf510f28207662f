"""Synthetic results: run folders with the records of runs that were never trained."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bench.config.grid import expand, load_grid
from bench.config.run_config import RunConfig
from bench.runs.records import Recorder
from bench.runs.run_folder import RunFolder, Store
from tests.analysis.publishing import GRIDS, add_set, finish

FINGERPRINT = "0123456789abcdef"


def accuracy_of(config: RunConfig, step: int) -> float:
    """A number that depends on method, number of redraws, seed and step."""
    of_experiment = 0.01 * len(config.method) - 0.0001 * config.window_resample_every
    return 0.2 + of_experiment + 0.05 * config.seed**2 + 0.001 * step


def norm_of(config: RunConfig, step: int) -> float:
    """The same for a positive number, over several magnitudes."""
    of_experiment = 0.1 * len(config.method) - 0.001 * config.window_resample_every
    return math.exp(math.sin(step) + 0.3 * config.seed**2 + of_experiment)


def variance_record(step: int, value: float) -> dict[str, Any]:
    """A measurement of the variance; the three readings are `value` times 1, 2 and 3."""
    readings = {"whole_batch": value, "unbiased": 2 * value, "sample_mean": 3 * value}
    return {
        **{"step": step, "samples": 20, "entries": 640, "variance": 0.1},
        **{"sample_mean_squared_norm": 1.0, "whole_batch_squared_norm": 1.0},
        **{f"normalized_variance_{name}": number for name, number in readings.items()},
    }


def write_run(
    root: Path,
    config: RunConfig,
    *,
    finished: bool = True,
    norm: Callable[[RunConfig, int], float] = norm_of,
    accuracy: Callable[[RunConfig, int], float] = accuracy_of,
    fingerprint: str = FINGERPRINT,
    final: float = 0.5,
    start: Callable[[int], int] = lambda step: 0,
    machine: str = "made-up CPU",
    seconds: float = 0.1,
) -> RunFolder:
    """A run folder as a run leaves it, with 40 outer steps and a measurement every 10; `final` is
    the test accuracy of its final evaluation, `start(step)` where its windows of 10 begin,
    `machine` what it was made on (not recorded if empty), `seconds` those of an outer step."""
    folder = Store(root).run(config)
    folder.create(config)
    data = {"name": "digits", "source": "made up", "fingerprint": fingerprint}
    starts = [{"hardware": {"cpu": machine, "cpu_cores": 2}}] if machine else []
    folder.write("manifest", {"seed": config.seed, "data": data, "starts": starts})
    with Recorder(folder.path, {}) as recorder:
        for step in range(41):
            if step % 10 == 0:
                if step < 40:
                    recorder.append("measurements", variance_record(step, norm(config, step)))
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
                        "window_start": start(step),
                        "window_stop": start(step) + 10,
                        "gradient_norm": 2 * value,
                        "image_gradient_norm": value,
                        "clipped_norm": 2 * value,
                        "clip_factor": 1.0,
                        "updated": math.isfinite(value),
                        "seconds": seconds,
                    },
                )
    if finished:
        evaluation = {"selection": config.selection, "n": 10, "test_accuracy_mean": final}
        folder.write("result", {"evaluation": evaluation, "data": data})
    return folder


def evaluation_of(accuracy: float) -> dict[str, Any]:
    return {"selection": "validation", "steps": 60, "n": 10, "test_accuracy_mean": accuracy}


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

    def add(self, config: RunConfig, **content: Any) -> None:
        """Put more into the result of a run."""
        folder = Store(self.root).run(config)
        folder.write("result", {**(folder.read("result") or {}), **content})

    def transfer(self, config: RunConfig, accuracy: float, **changed: Any) -> None:
        """What `bench.evaluate distilled=RUN arch=...` leaves behind."""
        folder = self.root / "evaluations"
        folder.mkdir(parents=True, exist_ok=True)
        own = Store(self.root).run(config).path
        changed |= {"transfer_to": [], "scores": False}  # an evaluation does neither
        record = {
            "distilled": str(own if config.seed else own / "distilled.safetensors"),
            "what": "10 distilled images (pixels)",
            "data": {"source": "made up", "fingerprint": "0123456789abcdef"},
            "config": asdict(replace(config, **changed)),
            "evaluation": self.evaluation(accuracy),
        }
        path = folder / f"{own.name}-{len(list(folder.iterdir()))}.json"
        path.write_text(json.dumps(record))

    evaluation = staticmethod(evaluation_of)
    configs = staticmethod(configs_of)
    accuracy = staticmethod(accuracy_of)
    norm = staticmethod(norm_of)


@pytest.fixture
def made(results: Maker) -> Maker:
    """Runs of three grids; windows move, times have all digits, and one norm is not finite."""

    def norm(config: RunConfig, step: int) -> float:
        spiked = config.method == "r_bptt" and config.seed == 1 and step == 7
        return float("inf") if spiked else results.norm(config, step)

    for grid in GRIDS:
        for config in results.configs(grid, 2):
            run = results.run(
                config,
                norm=norm,
                start=lambda step: step // 15,
                seconds=0.1 + 1e-9 * config.seed,
                final=0.5 + 0.01 * config.seed**2 + 0.001 * config.boost_block,
            )
            finish(run)
            if config.ipc > 1:
                add_set(run, config)
    return results
