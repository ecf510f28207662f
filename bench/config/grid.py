"""Named grids: lists of runs that feed a figure or a table, and the scales they exist at.

A grid is `bench/grids/NAME.yaml`:

    about: one line
    figures: [5]
    seeds: {quick: 2, cpu: 3, paper: 3}     # how many, unless seeds=... says otherwise
    common: {ipc: 10}                        # settings of all its runs
    scales:                                  # settings at one scale, over `common`
      quick: {ipc: 1}
    runs:                                    # one entry a run, times the seeds; `scales` may stand
      - {method: rat_bptt}                   # in an entry too, over all of the above

A scale is `bench/scales/NAME.yaml`: settings that every grid and every single run starts from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.config.command_line import (
    converted,
    is_file,
    read_yaml,
    unknown_key,
    yaml_names,
    yaml_path,
)
from bench.config.resolve import refuse_size_of_one_size, resolve
from bench.config.run_config import RunConfig
from bench.config.values import Range, convert, entries, shown
from bench.system.errors import UserError
from bench.system.machine import slurm_is_set_up, visible_gpus

GRIDS = Path(__file__).parents[1] / "grids"
SCALES = GRIDS.parent / "scales"


# What may stand in a grid's file. Settings are converted as those of a run.
PARTS: dict[str, Any] = {
    "about": str,
    "figures": list[int],
    "seeds": dict[str, int],
    "common": dict[str, Any],
    "scales": dict[str, Any],
    "runs": list[Any],
}


@dataclass(frozen=True)
class Grid:
    """A grid as its file states it."""

    name: str
    about: str
    figures: list[int]
    seeds: dict[str, int]
    common: dict[str, Any]
    scales: dict[str, dict[str, Any]]
    runs: list[dict[str, Any]]


def grid_names() -> list[str]:
    """The grids that come with the project."""
    return yaml_names(GRIDS)


def load_grid(name: str) -> Grid:
    """A grid by its name, or from a file of your own by its path.

    Raises:
        UserError: there is no such grid, or its file is not as described above.
    """
    path = yaml_path(name, GRIDS, "grid")
    content = read_yaml(path)
    try:
        parts = {key: _part(key, value) for key, value in content.items()}
    except (UserError, ValueError) as error:
        raise UserError(f"{path.name}: {error}") from error
    if not parts.get("runs"):
        raise UserError(f"{path.name}: a grid needs at least one entry under runs")
    empty = {"about": "", "figures": [], "seeds": {}, "common": {}, "scales": {}}
    return Grid(name=path.stem, **{**empty, **parts})


def _part(key: str, value: Any) -> Any:
    """A part of a grid's file, with values of the right types."""
    if key not in PARTS:
        raise UserError(unknown_key(key, PARTS))
    found = convert(key, value, PARTS[key], Range(minimum=1))
    if key == "common":
        return converted(RunConfig, found)
    if key in ("scales", "seeds"):
        return _at_scales(found)
    return [_entry(run) for run in found] if key == "runs" else found


def _entry(run: Any) -> dict[str, Any]:
    settings = dict(entries("runs", run))
    scales = {"scales": _at_scales(entries("scales", settings.pop("scales", {})))}
    return {**converted(RunConfig, settings), **scales}


def _at_scales(found: dict[str, Any]) -> dict[str, Any]:
    """What stands under the name of a scale: a number of seeds, or settings."""
    for name in found:
        if name not in yaml_names(SCALES):
            raise UserError(unknown_key(name, yaml_names(SCALES)))
    return {
        name: own if isinstance(own, int) else converted(RunConfig, entries(name, own))
        for name, own in found.items()
    }


def expand(
    grid: Grid, scale: str, overrides: dict[str, Any], seeds: int | None = None
) -> list[RunConfig]:
    """All runs of a grid at one scale, seeds innermost; two entries never become the same run.

    Args:
        overrides: settings from the command line, converted; they win over the grid's. Their
            `seed` is the first seed.
        seeds: how many; by default what the grid says.

    Raises:
        UserError: a setting that no run has, of the wrong type, or impossible.
    """
    count = grid.seeds.get(scale, 1) if seeds is None else seeds
    shared = [scale_settings(scale), grid.common, grid.scales.get(scale) or {}]
    configs: list[RunConfig] = []
    for entry in grid.runs:
        own = {key: value for key, value in entry.items() if key != "scales"}
        at_scale = (entry.get("scales") or {}).get(scale) or {}
        config = resolve(merge(*shared, own, at_scale, overrides, {"scale": scale}))
        configs += [replace(config, seed=config.seed + k) for k in range(count)]
    distinct = {str(config): config for config in configs}
    return list(distinct.values())


def requested(
    grid: Grid,
    scale: str,
    given: dict[str, Any],
    *,
    seeds: int = 0,
    methods: Sequence[str] = (),
) -> list[RunConfig]:
    """The runs of a grid that a command line asks for.

    Args:
        given: run settings from the command line; `seed` is the first seed.
        seeds: how many; 0: as many as the grid states.
        methods: only these; by default all.

    Raises:
        UserError: as `expand`; or a method that the grid has not.
    """
    configs = expand(grid, scale, given, seeds or None)
    known = list(dict.fromkeys(config.method for config in configs))
    if unknown := [name for name in methods if name not in known]:
        raise UserError(f"only={unknown[0]}: this grid has {', '.join(known)}")
    return [config for config in configs if not methods or config.method in methods]


def single_run(scale: str, overrides: dict[str, Any]) -> RunConfig:
    """The configuration of one run outside any grid.

    Raises:
        UserError: a setting that no run has, of the wrong type, or impossible.
    """
    config = resolve(merge(scale_settings(scale), overrides, {"scale": scale}))
    refuse_size_of_one_size(config, overrides)
    return config


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Later layers win; `method_options` are merged key by key, and start afresh where a layer
    names another method, whose options are others."""
    result: dict[str, Any] = {}
    for layer in layers:
        options = result.get("method_options") or {}
        if layer.get("method", result.get("method")) != result.get("method"):
            options = {}
        result = {**result, **layer}
        result["method_options"] = {**options, **(layer.get("method_options") or {})}
    return result


def scale_settings(scale: str) -> dict[str, Any]:
    """The settings of a scale.

    Raises:
        UserError: there is no such scale.
    """
    path = SCALES / f"{scale}.yaml"
    if not is_file(path):
        raise UserError(f"scale={shown(scale)} is not one of auto, {', '.join(yaml_names(SCALES))}")
    return converted(RunConfig, read_yaml(path))


def choose_scale(asked: str) -> tuple[str, str]:
    """(scale, why): `auto` takes `paper` where there is a GPU or a SLURM cluster, else `quick`."""
    if asked != "auto":
        scale_settings(asked)
        return asked, "asked for"
    if slurm_is_set_up():
        return "paper", "there is a SLURM cluster"
    if visible_gpus():
        return "paper", "there is a GPU"
    return "quick", "neither a GPU nor a SLURM cluster"
