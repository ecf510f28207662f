"""The source of every setting at `scale=paper`: the paper, its authors' code, or neither.

The file of record is `setting_sources.yaml`, which describes its format.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from analysis.labels import flat_settings
from analysis.own_yaml import entries
from bench.config.grid import expand, load_grid
from bench.config.run_config import RunConfig
from bench.system.errors import UserError

FILE = Path(__file__).parent / "setting_sources.yaml"
Label = Literal["stated", "code", "rival", "ours", "unused"]
LABELS: tuple[Label, ...] = get_args(Label)
# `scale` says where values come from and changes none.
WITHOUT_SOURCE = ("scale",)
# Of those that are ours, what a reader of a number must know first.
MAIN_OURS = ("outer_steps", "validation_fraction", "evaluation_steps", "selection")


@dataclass(frozen=True)
class Rule:
    """A value of a setting and its source.

    Attributes:
        value: the value that the setting has where the rule applies.
        conditions: the values of settings, and of `grid`, where it applies.
        label: the kind of source.
        text: the place in the paper, what the code does, or the reason.
    """

    value: Any
    conditions: Mapping[str, Sequence[Any]]
    label: Label
    text: str

    def applies(self, settings: Mapping[str, Any]) -> bool:
        """Whether a run with these settings fulfills the conditions."""
        return all(settings.get(key) in values for key, values in self.conditions.items())


Rules = Mapping[str, Sequence[Rule]]


@dataclass(frozen=True)
class Sourced:
    """A setting of an experiment; `rule` is None if no rule applies to it."""

    setting: str
    value: Any
    rule: Rule | None
    grid: str

    @property
    def agrees(self) -> bool:
        """Whether there is a source and the setting has the value that it says."""
        return self.rule is not None and self.rule.value == self.value


@cache
def rules() -> dict[str, list[Rule]]:
    """The rules in the file, by setting.

    Raises:
        UserError: a rule is invalid.
    """
    return rules_of(entries(FILE))


def rules_of(content: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[Rule]]:
    """The rules in the content of such a file.

    Raises:
        UserError: a rule is invalid.
    """
    return {key: [_rule(key, entry) for entry in entries] for key, entries in content.items()}


def _rule(setting: str, entry: Mapping[str, Any]) -> Rule:
    labels: list[Label] = [label for label in LABELS if label in entry]
    if len(labels) != 1 or "value" not in entry or set(entry) - {"value", "for", *labels}:
        raise UserError(
            f"{FILE.name}: {setting}: a rule has value, for (optional) and one of"
            f" {', '.join(LABELS)}, and this one has {', '.join(entry)}"
        )
    conditions = {
        key: values if isinstance(values, list) else [values]
        for key, values in entry.get("for", {}).items()
    }
    return Rule(entry["value"], conditions, labels[0], str(entry[labels[0]]))


def sourced(grid: str, among: Rules) -> Iterator[Sourced]:
    """Every setting of every experiment of a grid at `scale=paper`, with the first rule that
    applies to it.

    Raises:
        UserError: there is no such grid, or it is invalid.
    """
    content = load_grid(grid)
    for config in expand(content, "paper", {}, seeds=1):
        yield from sourced_settings(config, content.name, among)


def sourced_settings(config: RunConfig, grid: str, among: Rules) -> Iterator[Sourced]:
    """The same of one experiment."""
    settings = {**flat_settings(config), "grid": grid}
    for key in settings.keys() - {"grid", *WITHOUT_SOURCE}:
        applicable = (rule for rule in among.get(key, []) if rule.applies(settings))
        yield Sourced(key, settings[key], next(applicable, None), grid)


def ours_text() -> str:
    """That some settings at `scale=paper` are ours, in a sentence for captions."""
    count = sum(any(rule.label == "ours" for rule in each) for each in rules().values())
    return (
        f"Neither the paper nor its code states some values of {count} settings, those of"
        f" {', '.join(MAIN_OURS[:-1])} and {MAIN_OURS[-1]} among them: they are ours"
        " (python -m analysis.table table=settings)."
    )
