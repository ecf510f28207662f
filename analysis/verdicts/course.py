"""Quantities of the course of a run: what a shift of its window gains, how its norms change."""

import math
from statistics import fmean
from typing import Any

from analysis.load import FinishedRun
from analysis.records import collected
from analysis.shifts import is_moving, shift_steps

PART = 0.2  # of the outer steps, at either end


def gain_after_shift(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """In points, by outer step: the accuracy at the first measurement after the step less the mean
    of the last two up to it. At the shifts of a moving window; for other methods, to which these
    are compared, at each measured step.

    A window shifts at a measurement that is no new best. So that one is low, and the best, which at
    quick and cpu is the one before it, is high, both also by chance: it does not matter for their
    mean if their noise is alike. After the last alone any accuracy would rise without a shift.
    """
    table = collected(run.folder, "measurements")
    measured = table[table["n"].notna()] if "n" in table else table[:0]
    accuracy = dict(zip(measured["step"], measured["test_accuracy_mean"], strict=True))
    gains = {}
    for at in shift_steps(run) if is_moving(run) else accuracy:
        # A measurement at step s is made before outer step s.
        before, after = [s for s in accuracy if s <= at][-2:], [s for s in accuracy if s > at]
        if len(before) == 2 and after:
            gains[at] = 100 * (accuracy[after[0]] - fmean(accuracy[s] for s in before))
    return gains


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
