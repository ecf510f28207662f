"""Small pieces of text that all commands print: numbers of things, durations, mean ± std."""

import math
from typing import Any

# What stands beside a number that no held-out part of the training set selected.
SELECTION_LABELS = {"test": "selected by TEST", "train": "selected by train"}


def one_line(value: object) -> str:
    """A value as text that a terminal shows as it is, on one line: no control characters, which
    could come from the name of a file."""
    text = " ".join(str(value).split())
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def count(number: int, noun: str) -> str:
    """`1 run`, `3 runs`, `2 classes`."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number:,} {noun}{ending}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def mean_std(mean: float, std: float | None, form: str = ".1f") -> str:
    """`53.0 ± 0.8`; the mean alone where there is no standard deviation (None or NaN).

    Args:
        form: the format specification of both numbers.
    """
    spread = "" if std is None or math.isnan(std) else f" ± {std:{form}}"
    return f"{mean:{form}}{spread}"


def percent(mean: float, std: float | None) -> str:
    """The same for fractions, in per cent: 0.53 and 0.008 become `53.0 ± 0.8`."""
    return mean_std(100 * mean, None if std is None else 100 * std)


def accuracy_text(evaluation: dict[str, Any]) -> str:
    """An evaluation's test accuracy in per cent with its n, and a label if no held-out part of the
    training set selected it: `53.0 ± 0.8 (n=10, selected by TEST)`.

    Args:
        evaluation: a summary as result.json has it (`Evaluation.summary`).
    """
    accuracy = percent(evaluation["test_accuracy_mean"], evaluation.get("test_accuracy_std"))
    notes = [SELECTION_LABELS.get(evaluation["selection"], ""), not_finite_text(evaluation)]
    about = ", ".join(filter(None, [f"n={evaluation['n']}", *notes]))
    return f"{accuracy} ({about})"


def not_finite_text(evaluation: dict[str, Any]) -> str:
    """How many of an evaluation's networks gave numbers that are not finite; empty if none did."""
    number = evaluation.get("not_finite", 0)
    return f"{number} of {count(evaluation['n'], 'network')} not finite" if number else ""
