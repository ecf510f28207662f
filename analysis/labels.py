"""What a curve is called: the paper's name of its method, and whatever else sets it apart."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.config.run_config import RunConfig

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

# What a run does when its set is done: no curve shows it, so labels do not say it.
AT_THE_END = ("transfer_to", "scores", "full_train_batch_size", "full_train_steps")


@dataclass(frozen=True)
class Variant:
    """A name for the runs that have these settings, of whichever method they say."""

    settings: Mapping[str, Any]
    name: str


def method_name(method: str, names: Mapping[str, str] = METHOD_NAMES) -> str:
    """The paper's name of a method; a user's own `package.module:Class` goes by its class."""
    return names.get(method, method.rpartition(":")[2])


def distinct_labels(
    configs: Sequence[RunConfig],
    names: Mapping[str, str] = METHOD_NAMES,
    variants: Sequence[Variant] = (),
    told: Sequence[str] = (),
) -> list[str]:
    """A label for each of several different experiments; no two are alike.

    Settings of the run in which any of them differ stand in every label: curves that were not held
    equal must not look as if they were. Options of a method stand there only where two experiments
    of the same name differ in nothing else; so does what is done at the end of a run.

    Args:
        names: what methods are called.
        variants: what runs of some settings are called instead.
        told: settings that names or a caption tell: they too stand in labels only where two
            experiments of the same name differ in nothing else.
    """
    settings = [flat_settings(config) for config in configs]
    shared = [{key: value for key, value in own.items() if "." not in key} for own in settings]
    differing = _differing(shared, apart_from=("method", *AT_THE_END, *told))
    labels = [_label(_name(own, names, variants), own, differing) for own in settings]
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
    own, others = flat_settings(one), flat_settings(other)
    return {key: value for key, value in own.items() if key not in others or others[key] != value}


def flat_settings(config: RunConfig) -> dict[str, Any]:
    """All settings but the seed; options of the method as `method_options.name`."""
    flat = asdict(config)
    options = flat.pop("method_options")
    flat.pop("seed")
    return {**flat, **{f"method_options.{key}": value for key, value in options.items()}}


def _name(settings: dict[str, Any], names: Mapping[str, str], variants: Sequence[Variant]) -> str:
    for variant in variants:
        if all(settings.get(key) == value for key, value in variant.settings.items()):
            return variant.name
    return method_name(settings["method"], names)


def told_settings(experiments: Mapping[str, RunConfig], told: Sequence[str]) -> list[str]:
    """What labels do not say: each setting of `told` in which experiments differ, with its values
    and the labels that have them, as `unroll_length=30, with BPTT-Increasing Windows 45`."""
    settings = {label: flat_settings(config) for label, config in experiments.items()}
    return [
        _with_labels(key, {label: own[key] for label, own in settings.items() if key in own})
        for key in told
        if len({repr(own.get(key)) for own in settings.values()}) > 1
    ]


def _with_labels(key: str, values: Mapping[str, Any]) -> str:
    labels: dict[Any, list[str]] = {}
    for label, value in values.items():
        labels.setdefault(value, []).append(label)
    usual = max(labels, key=lambda value: len(labels[value]))
    name = key.removeprefix("method_options.")
    if len(labels) == 1:
        return f"{name}={usual} for {', '.join(labels[usual])}"
    others = [f"with {', '.join(own)} {value}" for value, own in labels.items() if value != usual]
    return f"{name}={usual}, {', '.join(others)}"


def _differing(settings: Sequence[dict[str, Any]], apart_from: Sequence[str] = ()) -> list[str]:
    keys = dict.fromkeys(key for own in settings for key in own if key not in apart_from)
    return [key for key in keys if len({repr(own.get(key)) for own in settings}) > 1]


def _label(name: str, settings: dict[str, Any], keys: Sequence[str]) -> str:
    told = [
        f"{key.removeprefix('method_options.')}={settings[key]}" for key in keys if key in settings
    ]
    return ", ".join([name, *told]).replace("'", "")
