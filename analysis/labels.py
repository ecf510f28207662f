"""What a curve is called: the paper's name of its method, and whatever else sets it apart."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.config import RunConfig

METHOD_NAMES = {
    "bptt": "BPTT",
    "t_bptt": "T-BPTT",
    "r_bptt": "R-BPTT",
    "rat_bptt": "RaT-BPTT",
    "forward_window": "Forward moving",
    "backward_window": "Backward moving",
    "early_rat_bptt": "RaT-BPTT (early)",
    "growing_bptt": "BPTT-Increasing Windows",
}


def method_name(method: str, names: Mapping[str, str] = METHOD_NAMES) -> str:
    """The paper's name of a method; a user's own `package.module:Class` goes by its class."""
    return names.get(method, method.rpartition(":")[2])


def distinct_labels(
    configs: Sequence[RunConfig], names: Mapping[str, str] = METHOD_NAMES
) -> list[str]:
    """A label for each of several different experiments; no two are alike.

    Settings of the run in which any of them differ stand in every label: curves that were not held
    equal must not look as if they were. Options of a method stand there only where two experiments
    of the same name differ in nothing else.
    """
    settings = [_flat(config) for config in configs]
    shared = [{key: value for key, value in own.items() if "." not in key} for own in settings]
    differing = _differing(shared, apart_from="method")
    labels = [
        _label(method_name(config.method, names), own, differing)
        for config, own in zip(configs, settings, strict=True)
    ]
    return [
        label
        if labels.count(label) == 1
        else _label(
            label,
            settings[k],
            _differing([settings[j] for j, other in enumerate(labels) if other == label]),
        )
        for k, label in enumerate(labels)
    ]


def differences(one: RunConfig, other: RunConfig) -> dict[str, Any]:
    """The settings in which `one` differs from `other`, seed apart, with the values of `one`."""
    own, others = _flat(one), _flat(other)
    return {key: value for key, value in own.items() if key not in others or others[key] != value}


def _flat(config: RunConfig) -> dict[str, Any]:
    flat = asdict(config)
    options = flat.pop("method_options")
    flat.pop("seed")
    return {**flat, **{f"method_options.{key}": value for key, value in options.items()}}


def _differing(settings: Sequence[dict[str, Any]], apart_from: str = "") -> list[str]:
    keys = dict.fromkeys(key for own in settings for key in own if key != apart_from)
    return [key for key in keys if len({repr(own.get(key)) for own in settings}) > 1]


def _label(name: str, settings: dict[str, Any], keys: Sequence[str]) -> str:
    told = [
        f"{key.removeprefix('method_options.')}={settings[key]}" for key in keys if key in settings
    ]
    return ", ".join([name, *told]).replace("'", "")
