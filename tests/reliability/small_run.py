"""A run of a fraction of a second, in the process of the test, and what it computed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import Environment, RunConfig
from bench.runs.execute import execute
from bench.runs.run_folder import RunFolder, Store
from tests.conftest import TINY

SETTINGS = [
    *(one for one in TINY if one != "scale=quick"),
    *("outer_steps=4", "variance_samples=2", "accuracy_networks=1", "evaluation_networks=1"),
    *("method=t_bptt", "transfer_to=[wide_convnet]", "evaluation_steps=[2]", "learn_labels=true"),
]


@dataclass(frozen=True)
class SmallRun:
    """A run of every part, in the results folder `root`, with a checkpoint after every step."""

    root: Path
    cache_root: Path

    @property
    def config(self) -> RunConfig:
        given = parse(SETTINGS, RunConfig)
        return single_run("quick", given)

    @property
    def environment(self) -> Environment:
        return Environment(
            cache_root=str(self.cache_root),
            results_root=str(self.root),
            threads=1,
            checkpoint_seconds=0,
        )

    @property
    def folder(self) -> RunFolder:
        return Store(self.root).run(self.config)

    def execute(self, reporter: Any = None) -> None:
        """Begin, resume or finish it."""
        self.folder.create(self.config, "python -m bench.run again")
        execute(self.folder, self.environment, reporter or Mock())

    def outcome(self) -> dict[str, Any]:
        """All that it computed, without times."""
        path = self.folder.path
        lines = (path / "metrics.jsonl").read_text().splitlines()
        result = self.folder.read("result") or {}
        return {
            "metrics": [{**json.loads(line), "seconds": 0} for line in lines],
            "measurements": (path / "measurements.jsonl").read_text(),
            "result": {key: result[key] for key in ("evaluation", "transfers", "data")},
            "set": (path / "distilled.safetensors").read_bytes(),
        }
