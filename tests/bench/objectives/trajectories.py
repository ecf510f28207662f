"""Runs of trajectory matching, and their experts, small enough for a test."""

from pathlib import Path
from typing import Any

from bench.config.grid import single_run
from bench.config.objectives import MTT, OBJECTIVES
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.objectives.experts import Experts
from bench.objectives.objective import Setting
from bench.training.setup import make_network

OPTIONS: dict[str, Any] = {
    **{"experts": 2, "expert_epochs": 2, "expert_batch": 400, "expert_lr": 0.1},
    **{"start_epochs": 2, "matched_epochs": 1, "student_steps": 3},
}


def configuration(options: dict[str, Any] = OPTIONS, **settings: Any) -> RunConfig:
    small = {"width": 4, "depth": 1, "objective": "mtt", "objective_options": options}
    return single_run("quick", {**small, **settings})


def experts(
    target_set: TargetSet, cache_root: Path | None, options: dict[str, Any] = OPTIONS, **other: Any
) -> Experts:
    config = configuration(options, **other)
    network = make_network(config, target_set)
    chosen = OBJECTIVES[config.objective](**config.objective_options)
    assert isinstance(chosen, MTT)
    return Experts(chosen, Setting(config, target_set, network, cache_root))
