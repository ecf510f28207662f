"""Quantities of the course of a run: what a shift of its window gains, how its norms change."""

import math
from statistics import fmean
from typing import Any

from analysis.load import FinishedRun
from analysis.records import collected
from analysis.shifts import shift_steps

PART = 0.2  # of the outer steps, at either end


def gain_after_shift(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """In points: mean accuracy in the `patience` outer steps after a shift of the window less the
    mean in as many steps before it, the mean over shifts. The window shifts because learning has
    been stagnant for `patience` steps, so that little of the gain is a trend that goes on."""
    table = collected(run.folder, "measurements")
    span = run.config.method_options.get("patience")
    if span is None or "test_accuracy_mean" not in table:
        return {}
    measured = table[table["test_accuracy_mean"].notna()]
    accuracy = dict(zip(measured["step"], measured["test_accuracy_mean"], strict=True))
    gains = []
    for shift in shift_steps(run):
        # A measurement at step s is made before outer step s.
        before = [accuracy[step] for step in accuracy if shift - span < step <= shift]
        after = [accuracy[step] for step in accuracy if shift < step <= shift + span]
        if before and after:
            gains.append(100 * (fmean(after) - fmean(before)))
    return {0: fmean(gains)} if gains else {}


def norm_change(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """The logarithm of the geometric mean of the norm in Figure 2 over the last fifth of the outer
    steps, less that over the first fifth; not finite if some of these norms are not."""
    table = collected(run.folder, "metrics")
    norms = [
        (step, math.log(norm) if norm > 0 else math.nan)
        for step, norm in zip(table["step"], table["image_gradient_norm"], strict=True)
    ]
    steps = run.config.outer_steps
    early = [norm for step, norm in norms if step < PART * steps]
    late = [norm for step, norm in norms if step >= (1 - PART) * steps]
    return {0: fmean(late) - fmean(early)} if early and late else {}
