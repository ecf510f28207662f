"""Commands up to where they would compute: what they compute with is replaced, and says so."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from bench.config.grid import load_grid, requested


class Reached(SystemExit):
    """The command would now compute. No command catches it: it is not an `Exception`."""


def compute(*_: Any, **__: Any) -> Any:
    raise Reached(0)


def resolving(position: int) -> Callable[..., Any]:
    """In place of a function that reads results: resolve the runs of its request and stop.

    Args:
        position: of the request among the arguments.
    """

    def resolve_and_stop(*arguments: Any) -> Any:
        request = arguments[position]
        requested(load_grid("window_ablation"), request.scale, request.overrides)
        raise Reached(0)

    return resolve_and_stop


# What each command starts from, so that it comes as far as it can.
SET = ["distilled=set.npz", "scale=quick", "dataset=digits"]
START: dict[str, list[str]] = {
    "bench.sweep": ["grid=window_ablation", "scale=quick", "dry_run=true"],
    "bench.run": ["scale=quick"],
    "bench.status": ["scale=quick", "grid=window_ablation"],
    "bench.evaluate": SET,
    "bench.scores": SET,
    "bench.anatomy": SET,
    "bench.prepare": ["dataset=digits"],
    "bench.publish": ["scale=quick", "grid=window_ablation"],
    "bench.speed": [],
    "bench.estimate": [],
    "tests.slurm.lab": ["status"],
    "analysis.plot": ["scale=quick", "figure=1"],
    "analysis.table": ["scale=quick", "table=1"],
    "analysis.claims": ["scale=quick"],
    "analysis.report": ["scale=quick"],
}

REPLACED: dict[str, Callable[..., Any]] = {
    "torch.set_num_threads": lambda number: None,
    # First: this imports what others below replace, and would keep their replacements.
    "analysis.report_page.contents.report": resolving(0),
    "bench.runs.execute.execute": compute,
    "bench.sweeps.local_launcher.plan": compute,
    "bench.sweeps.estimator.Estimator.estimate": compute,
    "bench.speed.__main__.measure_all": compute,
    "bench.speed.__main__.call": compute,
    "tests.slurm.lab.lab.Lab.start": compute,
    "analysis.figures.page.save": compute,
    "analysis.tables.beside_paper.beside_paper": resolving(1),
    "analysis.verdicts.judge.outcomes": resolving(1),
    "bench.evaluation.fresh_networks.evaluate": compute,
    "bench.evaluation.fresh_networks.evaluate_real_images": compute,
    "bench.evaluation.dd_ranking.score": compute,
    "bench.anatomies.execute.Anatomy.execute": compute,
}


def replaced() -> list[tuple[Any, str, Callable[..., Any]]]:
    """The owner (a module or a class) of each, its name there, and what replaces it."""
    return [(*_owner(path), replacement) for path, replacement in REPLACED.items()]


def _owner(path: str) -> tuple[Any, str]:
    above, _, name = path.rpartition(".")
    try:
        return import_module(above), name
    except ModuleNotFoundError:  # a class
        module, _, class_name = above.rpartition(".")
        return getattr(import_module(module), class_name), name
