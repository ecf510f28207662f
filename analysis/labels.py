"""The label of a curve or row: what its method is called, and the settings that set it apart."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.config.run_config import RunConfig
from methods import method_label

# What a run does once its set is distilled: no curve shows it, so labels do not name it.
AT_THE_END = ("transfer_to", "scores", "full_train_batch_size", "full_train_steps")


@dataclass(frozen=True)
class Variant:
    """A name for the runs that have these settings, instead of the label of their method."""

    settings: Mapping[str, Any]
    name: str


def distinct_labels(
    configs: Sequence[RunConfig],
    variants: Sequence[Variant] = (),
    in_caption: Sequence[str] = (),
) -> list[str]:
    """A label for each of several different experiments; no two are alike.

    Settings of the run in which any of them differ stand in every label: curves that were not held
    equal must not look as if they were. Options of a method stand there only where two experiments
    of the same name differ in nothing else; so does what is done at the end of a run.

    Args:
        variants: names for runs of some settings.
        in_caption: settings that names or a caption state: they too stand in labels only where two
            experiments of the same name differ in nothing else.
    """
    settings = [flat_settings(config) for config in configs]
    shared = [{k: v for k, v in each.items() if "." not in k} for each in settings]
    differing = _differing(shared, apart_from=("method", *AT_THE_END, *in_caption))
    labels = [_label(_name(each, variants), each, differing) for each in settings]
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
    ours, theirs = flat_settings(one), flat_settings(other)
    return {key: value for key, value in ours.items() if key not in theirs or theirs[key] != value}


def flat_settings(config: RunConfig) -> dict[str, Any]:
    """All settings but the seed; options of the method as `method_options.name`."""
    flat = asdict(config)
    options = flat.pop("method_options")
    flat.pop("seed")
    return {**flat, **{f"method_options.{key}": value for key, value in options.items()}}


def unlabeled_settings(experiments: Mapping[str, RunConfig], keys: Sequence[str]) -> list[str]:
    """For a caption: each setting of `keys` in which experiments differ, with its values and the
    labels that have them, as `unroll_length=30, with BPTT-Increasing Windows 45`."""
    settings = {label: flat_settings(config) for label, config in experiments.items()}
    return [
        _with_labels(key, {label: each[key] for label, each in settings.items() if key in each})
        for key in keys
        if len({repr(each.get(key)) for each in settings.values()}) > 1
    ]


def _name(settings: dict[str, Any], variants: Sequence[Variant]) -> str:
    for variant in variants:
        if all(settings.get(key) == value for key, value in variant.settings.items()):
            return variant.name
    return method_label(settings["method"])


def _with_labels(key: str, values: Mapping[str, Any]) -> str:
    labels: dict[Any, list[str]] = {}
    for label, value in values.items():
        labels.setdefault(value, []).append(label)
    usual = max(labels, key=lambda value: len(labels[value]))
    name = key.removeprefix("method_options.")
    if len(labels) == 1:
        return f"{name}={usual} for {', '.join(labels[usual])}"
    others = [f"with {', '.join(those)} {v}" for v, those in labels.items() if v != usual]
    return f"{name}={usual}, {', '.join(others)}"


def _differing(settings: Sequence[dict[str, Any]], apart_from: Sequence[str] = ()) -> list[str]:
    keys = dict.fromkeys(key for each in settings for key in each if key not in apart_from)
    return [key for key in keys if len({repr(each.get(key)) for each in settings}) > 1]


def _label(name: str, settings: dict[str, Any], keys: Sequence[str]) -> str:
    parts = [
        f"{key.removeprefix('method_options.')}={settings[key]}" for key in keys if key in settings
    ]
    return ", ".join([name, *parts]).replace("'", "")
