"""What follows from the settings of a run alone: the hash that names it, the name of its folder,
and the number of its images.

A setting added since schema 2 stays out of the hash at the value that reproduces what was done
before it (`setting(..., before=VALUE)`), so that it renames no run.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from types import MappingProxyType
from typing import Any

from bench.config.command_line import only
from bench.config.run_config import DECODED_IMAGES, SCHEMA_VERSION, RunConfig


def images_per_class(config: RunConfig) -> int:
    """Images per class in the distilled set: `ipc`, the combined images of a linear set, or those
    that are decoded from the stored images or bases of a class."""
    if config.parameterization == "linear":
        return config.decoded_ipc or DECODED_IMAGES * config.ipc
    stored = config.haba_bases if config.parameterization == "haba" else config.ipc
    return stored * images_per_label(config)


def images_per_label(config: RunConfig) -> int:
    """Images that share a stored label: those that are decoded from one stored image or base."""
    if config.parameterization == "idc":
        return config.idc_factor**2
    return config.haba_hallucinators if config.parameterization == "haba" else 1


@cache  # it is asked for twice per run, and there may be ten thousand
def values_before(schema: type = RunConfig) -> Mapping[str, Any]:
    """Settings added since schema 2, with the values that reproduce what was done before them."""
    values = {item.name: item.metadata.get("before", MISSING) for item in fields(schema)}
    return MappingProxyType({k: value for k, value in values.items() if value is not MISSING})


def written_config(settings: dict[str, Any]) -> RunConfig:
    """The configuration of settings as they are written in a record, which may be of a version
    without some of ours, or with others, which are left out."""
    return RunConfig(**{**values_before(), **only(settings, RunConfig)})


def _identifying(settings: dict[str, Any], schema: type = RunConfig) -> dict[str, Any]:
    """The settings that are hashed. Left out are `scale`, which changes no computation, and each
    setting added since schema 2 that has its value of `values_before`: a new setting must not
    rename runs that it does not change."""
    before = {"scale": settings.get("scale"), **values_before(schema)}
    return {k: v for k, v in settings.items() if k not in before or v != before[k]}


def identity(config: RunConfig) -> str:
    """The hash that names a run, of its full resolved configuration and the schema version."""
    return _digest({"schema": SCHEMA_VERSION, **_identifying(vars(config), type(config))})


def experiment_identity(config: RunConfig) -> str:
    """The hash without the seed: equal for all seeds of an experiment."""
    settings = {**_identifying(vars(config), type(config)), "seed": None}
    return _digest({"schema": SCHEMA_VERSION, **settings})


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def run_name(config: RunConfig) -> str:
    """The name of a run's folder: the method and the identity, e.g. `rat_bptt-3f0c9a1b22de`."""
    return written_name({"schema": SCHEMA_VERSION, **vars(config)})


def written_name(settings: dict[str, Any]) -> str:
    """The same name, of a configuration as it is written in a file, with its schema version."""
    method = str(settings.get("method", "")).rpartition(":")[2]
    return f"{method}-{_digest(_identifying(settings))}"
