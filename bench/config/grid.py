"""Grids, which are named lists of runs, and the scales that runs start from.

`README.md` in this folder describes the format of the files in `bench/grids` and `bench/scales`.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.config.command_line import (
    converted,
    is_file,
    keys_of,
    read_yaml,
    unknown_key,
    yaml_names,
    yaml_path,
)
from bench.config.resolve import has_settings, refuse_size_of_one_size, resolve
from bench.config.run_config import RunConfig
from bench.config.values import Range, convert, entries, members, shown
from bench.system.errors import UserError
from bench.system.machine import slurm_is_set_up, visible_gpus

GRIDS = Path(__file__).parents[1] / "grids"
SCALES = GRIDS.parent / "scales"


MOST_SEEDS = 10_000
WITH_OPTIONS = ("method", "objective")  # settings that have options of their own

# The parts of a grid's file and their types. Settings are converted as those of a run.
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
    """The content of a grid's file."""

    name: str
    about: str
    figures: list[int]
    seeds: dict[str, int]
    common: dict[str, Any]
    scales: dict[str, dict[str, Any]]
    runs: list[dict[str, Any]]


def grid_names() -> list[str]:
    """The names of the grids in `bench/grids`."""
    return yaml_names(GRIDS)


def grid_overview() -> str:
    """A line for each grid in `bench/grids`: its name and what it is about."""
    names = grid_names()
    width = max(map(len, names))
    return "\n".join(f"  {name:<{width}}  {_about(name)}" for name in names)


def _about(name: str) -> str:
    """As `load_grid(name).about`, without the time that parsing the whole file takes."""
    with (GRIDS / f"{name}.yaml").open(encoding="utf-8") as file:
        return next((line[7:].strip() for line in file if line.startswith("about: ")), "")


def load_grid(name: str) -> Grid:
    """Read a grid by its name, or by the path of a .yaml file.

    Raises:
        UserError: there is no such grid, or its file is invalid.
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
    """One part of a grid's file, converted."""
    if key not in PARTS:
        raise UserError(unknown_key(key, PARTS))
    part = convert(key, value, PARTS[key], Range(1, MOST_SEEDS if key == "seeds" else None))
    if key == "common":
        return converted(RunConfig, part)
    if key in ("scales", "seeds"):
        return _at_scales(part)
    return [_entry(run) for run in part] if key == "runs" else part


def _entry(run: Any) -> dict[str, Any]:
    settings = dict(entries("runs", run))
    scales = {"scales": _at_scales(entries("scales", settings.pop("scales", {})))}
    return {**converted(RunConfig, settings), **scales}


def _at_scales(by_scale: dict[str, Any]) -> dict[str, Any]:
    """A number of seeds, or settings, for each scale."""
    for name in by_scale:
        if name not in yaml_names(SCALES):
            raise UserError(unknown_key(name, yaml_names(SCALES)))
    return {
        name: value if isinstance(value, int) else converted(RunConfig, entries(name, value))
        for name, value in by_scale.items()
    }


def expand(
    grid: Grid, scale: str, overrides: dict[str, Any], seeds: int | None = None
) -> list[RunConfig]:
    """The runs of a grid at one scale, seeds innermost. Entries that resolve to the same run give
    one run.

    Args:
        overrides: settings from the command line, converted; they win over the grid's. Their
            `seed` is the first seed.
        seeds: number of seeds; by default the grid's.

    Raises:
        UserError: an invalid combination of settings.
    """
    count = grid.seeds.get(scale, 1) if seeds is None else seeds
    shared = [scale_settings(scale), grid.common, grid.scales.get(scale) or {}]
    configs: list[RunConfig] = []
    for entry in grid.runs:
        settings = {key: value for key, value in entry.items() if key != "scales"}
        at_scale = (entry.get("scales") or {}).get(scale) or {}
        config = resolve(merge(*shared, settings, at_scale, overrides, {"scale": scale}))
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
    where: dict[str, Any] | None = None,
) -> list[RunConfig]:
    """The runs of a grid that a command line selects.

    Args:
        given: as `overrides` of `expand`.
        seeds: number of seeds; 0: the grid's.
        methods: only runs of these methods; by default all.
        where: only runs that have these settings in the end; of a list of values a run has one.

    Raises:
        UserError: as `expand`; a method or a value that no run of the grid has.
    """
    configs = expand(grid, scale, given, seeds or None)
    known = list(dict.fromkeys(config.method for config in configs))
    if unknown := [name for name in methods if name not in known]:
        raise UserError(f"only={unknown[0]}: the methods of this grid are {', '.join(known)}")
    configs = [config for config in configs if not methods or config.method in methods]
    for key, value in (where or {}).items():
        configs = _with_value(configs, key, value)
    return configs


def _with_value(configs: list[RunConfig], key: str, value: Any) -> list[RunConfig]:
    """The runs whose setting has this value, or one of these values; a list or a mapping is one
    value where the setting is one.

    Raises:
        UserError: an unknown setting, a value of another type, or one that no run has.
    """
    if key not in keys_of(RunConfig):
        raise UserError(f"where: {unknown_key(key, keys_of(RunConfig))}")
    one_value = isinstance(getattr(configs[0], key), list | dict)
    try:
        each = [value] if one_value else members(key, value) or [value]
        wanted = [converted(RunConfig, {key: one}) for one in each]
    except (UserError, ValueError) as error:
        raise UserError(f"where: {error}") from None
    chosen: list[RunConfig] = []
    for one in wanted:
        having = [config for config in configs if has_settings(config, one)]
        if not having:
            there = ", ".join(dict.fromkeys(str(getattr(config, key)) for config in configs))
            raise UserError(f"where.{key}={shown(one[key])}: no run has it; the runs have {there}")
        chosen += having
    return [config for config in configs if config in chosen]


def where_instead(grid: Grid, scale: str, given: dict[str, Any]) -> str:
    """A hint for settings that do not fit all runs of a grid: one of them that some runs have by
    themselves; an empty text if there is none, or if the settings fit."""
    with suppress(UserError):
        expand(grid, scale, given, 1)
        return ""
    for key in [name for name in given if name not in ("scale", "seed")]:
        others = {name: value for name, value in given.items() if name != key}
        with suppress(UserError):
            requested(grid, scale, others, where={key: given[key]})
            return f" ({key} is set for all runs of the grid; where.{key}=... selects some)"
    return ""


def single_run(scale: str, overrides: dict[str, Any]) -> RunConfig:
    """The configuration of one run outside any grid. `overrides` are converted settings.

    Raises:
        UserError: an invalid combination of settings.
    """
    config = resolve(merge(scale_settings(scale), overrides, {"scale": scale}))
    refuse_size_of_one_size(config, overrides)
    return config


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Settings of all layers; later layers win. `method_options` are merged key by key, but
    dropped where a layer names another method, which has other options; `objective_options`
    likewise. So is `evaluation_lr` where a layer names another optimizer for evaluations."""
    result: dict[str, Any] = {}
    for layer in layers:
        options = {f"{owner}_options": _kept(result, layer, owner) for owner in WITH_OPTIONS}
        optimizer = result.get("evaluation_optimizer")
        if layer.get("evaluation_optimizer", optimizer) != optimizer:
            result.pop("evaluation_lr", None)
        added = {key: {**kept, **(layer.get(key) or {})} for key, kept in options.items()}
        result = {**result, **layer, **added}
    return result


def _kept(result: dict[str, Any], layer: dict[str, Any], owner: str) -> dict[str, Any]:
    """The options of the method or objective that hold on in the next layer."""
    same = layer.get(owner, result.get(owner)) == result.get(owner)
    return (result.get(f"{owner}_options") or {}) if same else {}


def scale_settings(scale: str) -> dict[str, Any]:
    """The settings in the file of a scale.

    Raises:
        UserError: there is no such scale.
    """
    path = SCALES / f"{scale}.yaml"
    if not is_file(path):
        raise UserError(f"scale={shown(scale)} is not one of auto, {', '.join(yaml_names(SCALES))}")
    content = read_yaml(path)
    try:
        return converted(RunConfig, content)
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from error


def choose_scale(scale: str) -> tuple[str, str]:
    """(scale, reason); `auto` is `paper` where there is a GPU or a SLURM cluster, else `quick`."""
    if scale != "auto":
        scale_settings(scale)
        return scale, "as given"
    if slurm_is_set_up():
        return "paper", "there is a SLURM cluster"
    if visible_gpus():
        return "paper", "there is a GPU"
    return "quick", "neither a GPU nor a SLURM cluster"
