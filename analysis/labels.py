"""The label of an experiment: the paper's name of its method, and the settings that set it apart.

Labels are for people. Runs are matched by `experiment_identity`, never by label.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.config.objectives import objective_label
from bench.config.run_config import RunConfig
from methods import method_label

# What a run does once its distilled set is finished. No curve depends on it, so labels omit it.
AT_THE_END = ("transfer_to", "scores", "full_train_batch_size", "full_train_steps")
# It decides at which outer steps there is a variance, which a figure of it shows anyway.
OF_THE_VARIANCE = ("variance_every",)


@dataclass(frozen=True)
class Variant:
    """A name for the runs that have these settings."""

    settings: Mapping[str, Any]
    name: str


def distinct_labels(
    configs: Sequence[RunConfig],
    variants: Sequence[Variant] = (),
    unlabeled: Sequence[str] = (),
) -> list[str]:
    """A distinct label for each of several different experiments.

    A setting in which any two experiments differ appears in every label: curves that were not held
    equal must not look as if they were. Options of a method, how often the variance is measured,
    and what is done at the end of a run, appear only where two experiments of the same name differ
    in nothing else.

    Args:
        variants: what runs with certain settings are called instead.
        unlabeled: settings that names or the caption state. They too appear only where two
            experiments of the same name differ in nothing else.
    """
    settings = [flat_settings(config) for config in configs]
    shared = [{k: v for k, v in one.items() if "." not in k} for one in settings]
    differing = _differing(shared, apart_from=("method", *AT_THE_END, *OF_THE_VARIANCE, *unlabeled))
    labels = [_label(_name(one, variants), one, differing) for one in settings]
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
    """The settings other than the seed in which `one` differs from `other`, with `one`'s values."""
    settings, others = flat_settings(one), flat_settings(other)
    return {k: v for k, v in settings.items() if k not in others or others[k] != v}


def flat_settings(config: RunConfig) -> dict[str, Any]:
    """All settings but the seed; options of the method as `method_options.name`, and those of the
    objective likewise."""
    flat = dict(vars(config))  # asdict would copy what nobody changes
    flat.pop("seed")
    for owner in ("method_options", "objective_options"):
        flat |= {f"{owner}.{key}": value for key, value in flat.pop(owner).items()}
    return flat


def unlabeled_settings(
    experiments: Iterable[tuple[str, RunConfig]], unlabeled: Sequence[str]
) -> list[str]:
    """Each setting of `unlabeled` in which the (label, configuration) pairs differ, with its values
    and the labels that have them: `unroll_length=30, with BPTT-Increasing Windows 45`."""
    settings = [(label, flat_settings(config)) for label, config in experiments]
    return [
        _with_labels(key, [(label, one[key]) for label, one in settings if key in one])
        for key in unlabeled
        if len({repr(one.get(key)) for _, one in settings}) > 1
    ]


def _with_labels(key: str, values: Sequence[tuple[str, Any]]) -> str:
    labels: dict[str, list[str]] = {}
    for label, value in values:
        labels.setdefault(str(value), []).append(label)
    usual = max(labels, key=lambda value: len(labels[value]))
    name = key.removeprefix("method_options.")
    if len(labels) == 1:
        return f"{name}={usual} for {', '.join(labels[usual])}"
    others = [f"with {', '.join(few)} {value}" for value, few in labels.items() if value != usual]
    return f"{name}={usual}, {', '.join(others)}"


def _name(settings: dict[str, Any], variants: Sequence[Variant]) -> str:
    for variant in variants:
        if all(settings.get(key) == value for key, value in variant.settings.items()):
            return variant.name
    return objective_label(settings["method"]) or method_label(settings["method"])


def _differing(settings: Sequence[dict[str, Any]], apart_from: Sequence[str] = ()) -> list[str]:
    keys = dict.fromkeys(key for one in settings for key in one if key not in apart_from)
    return [key for key in keys if len({repr(one.get(key)) for one in settings}) > 1]


def _label(name: str, settings: dict[str, Any], keys: Sequence[str]) -> str:
    parts = [
        f"{key.removeprefix('method_options.')}={settings[key]}" for key in keys if key in settings
    ]
    return ", ".join([name, *parts]).replace("'", "")
