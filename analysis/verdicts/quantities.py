"""The quantities of claims: a number per run, or one per measured outer step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.arguments import Request
from analysis.load import FinishedRun
from analysis.records import collected
from analysis.verdicts.costs import (
    accuracy_by_seconds,
    gpu_memory,
    hours,
    peak_memory,
    seconds_per_step,
)
from analysis.verdicts.course import gain_after_shift, norm_change
from analysis.verdicts.diversity import image_diversity
from analysis.verdicts.first_step import (
    anatomy_command,
    difference_of_repetition,
    largest_over_median_norm,
    repetition_command,
    share_through_step_0,
)

if TYPE_CHECKING:
    import pandas as pd

FIRST_STEPS = 500  # as in Figure 2
FIRST = f" (the first {FIRST_STEPS})"
VARIANCE = "normalized variance (over the squared norm of the whole batch's gradient)"
MEDIAN_STEPS = 25  # of a rolling median: as long as a random window lasts in Figure 2
EARLY = 0.2  # the fraction of the outer steps that counts as early

# A measured value by outer step; a number of the whole run is at step 0. What is not finite stays:
# a mean of the other steps would be of those at which all went well.
Values = dict[int, float]


@dataclass(frozen=True)
class Quantity:
    """A measured quantity.

    Attributes:
        about: its description.
        of: its values, from a run and its evaluation; empty if the run recorded none. Values that
            are not finite leave a claim untested.
        factor: two runs are compared by their ratio; its values are then logarithms.
        each_step: it has a value at each measured outer step, not one for the whole run.
        shared_steps: it has values at steps that differ between runs; a seed's value is the mean
            over those that all sides of a claim have.
        at, steps: one step and all of them, in words.
        of_machine: it depends on the machine, so all runs that are compared must be of one machine.
        command: what measures it once these runs are finished, if they do not record it themselves.
    """

    about: str
    of: Callable[[FinishedRun, dict[str, Any]], Values]
    factor: bool = False
    each_step: bool = False
    shared_steps: bool = False
    at: str = "outer step {}"
    steps: str = "measured steps"
    of_machine: bool = False
    command: Callable[[Request, Sequence[FinishedRun]], str] | None = None


def final_accuracy(run: FinishedRun, evaluation: dict[str, Any]) -> Values:
    """In points; the mean over the fresh networks of the final evaluation."""
    return {0: 100 * evaluation["test_accuracy_mean"]}


def accuracy_at_each_step(run: FinishedRun, evaluation: dict[str, Any]) -> Values:
    """In points, at each measurement after the first update."""
    table = collected(run.folder, "measurements")
    values = _by_step(table[table["n"].notna()], "test_accuracy_mean") if "n" in table else {}
    return {step: 100 * value for step, value in values.items() if step > 0}


def early_accuracy(run: FinishedRun, evaluation: dict[str, Any]) -> Values:
    """In points, mean over the early measurements."""
    values = accuracy_at_each_step(run, evaluation)
    last = EARLY * run.config.outer_steps
    return _mean({step: value for step, value in values.items() if step <= last})


def variance_at_each_step(run: FinishedRun, evaluation: dict[str, Any]) -> Values:
    """Logarithms, over the first outer steps."""
    return _logs(_by_step(_variances(run), "normalized_variance_whole_batch"))


def mean_variance(run: FinishedRun, evaluation: dict[str, Any]) -> Values:
    """The logarithm of the geometric mean."""
    return _mean(variance_at_each_step(run, evaluation))


def mean_unbiased_variance(run: FinishedRun, evaluation: dict[str, Any]) -> Values:
    """The logarithm of the geometric mean; NaN if the squared norm is estimated as not positive at
    some step: the mean of the other steps would be of those with the least noise, and that of the
    other seeds, too."""
    return _mean(_logs(_by_step(_variances(run), "normalized_variance_unbiased")))


def variance_fluctuation(run: FinishedRun, evaluation: dict[str, Any]) -> Values:
    """The logarithm of the standard deviation of logarithms."""
    return _fluctuation(variance_at_each_step(run, evaluation))


def norm_fluctuation(run: FinishedRun, evaluation: dict[str, Any]) -> Values:
    """The logarithm of the standard deviation of the log norm around its rolling median: of spikes
    and noise, without the trend that all methods share and the jumps at a redraw of the window.

    The median is over the `MEDIAN_STEPS` outer steps centered on a step. At both ends of the curve
    it is over those of them that there are, 13 at the very end.
    """
    import pandas as pd

    log_norms = pd.Series(_first_log_norms(run), dtype="float64")
    around = log_norms - log_norms.rolling(MEDIAN_STEPS, center=True, min_periods=1).median()
    return _fluctuation(dict(enumerate(around.tolist())))


def norm_total_fluctuation(run: FinishedRun, evaluation: dict[str, Any]) -> Values:
    """The logarithm of the standard deviation of the log norm, trend and jumps included."""
    return _fluctuation(_first_log_norms(run))


def _first_log_norms(run: FinishedRun) -> Values:
    """Logarithms of the norm in Figure 2, by outer step."""
    table = collected(run.folder, "metrics")
    return _logs(_by_step(table[table["step"] < FIRST_STEPS], "image_gradient_norm"))


QUANTITIES = {
    "final_accuracy": Quantity("final test accuracy", final_accuracy),
    "accuracy_at_each_step": Quantity(
        "test accuracy at each measured outer step", accuracy_at_each_step, each_step=True
    ),
    "early_accuracy": Quantity(
        f"test accuracy, mean over the measurements in the first {EARLY:.0%} of the outer steps",
        early_accuracy,
    ),
    "variance_at_each_step": Quantity(
        f"{VARIANCE}, at each measured outer step{FIRST}",
        variance_at_each_step,
        factor=True,
        each_step=True,
    ),
    "mean_variance": Quantity(
        f"{VARIANCE}, geometric mean over outer steps{FIRST}", mean_variance, factor=True
    ),
    "mean_unbiased_variance": Quantity(
        "normalized variance over the unbiased squared norm (of the samples' mean, less the"
        f" share of noise; positive at every step), geometric mean over outer steps{FIRST}",
        mean_unbiased_variance,
        factor=True,
    ),
    "variance_fluctuation": Quantity(
        f"standard deviation over outer steps{FIRST} of the logarithm of the {VARIANCE}",
        variance_fluctuation,
        factor=True,
    ),
    "norm_fluctuation": Quantity(
        "standard deviation of the logarithm of the meta-gradient norm (mean over images) around"
        f" its rolling median of {MEDIAN_STEPS} outer steps, over the first {FIRST_STEPS}",
        norm_fluctuation,
        factor=True,
    ),
    "norm_total_fluctuation": Quantity(
        "standard deviation of the logarithm of the meta-gradient norm (mean over images) over the"
        f" first {FIRST_STEPS} outer steps, trend and jumps included",
        norm_total_fluctuation,
        factor=True,
    ),
    "seconds_per_step": Quantity(
        "seconds of an outer step, median", seconds_per_step, factor=True, of_machine=True
    ),
    "hours": Quantity("hours of all outer steps", hours, factor=True, of_machine=True),
    "peak_memory": Quantity(
        "peak memory, of the GPU's tensors or, without a GPU, of the process",
        peak_memory,
        factor=True,
        of_machine=True,
    ),
    "gpu_memory": Quantity(
        "peak memory of a GPU's tensors", gpu_memory, factor=True, of_machine=True
    ),
    "accuracy_by_seconds": Quantity(
        "test accuracy after the same time in outer steps",
        accuracy_by_seconds,
        each_step=True,
        at="{} s",
        steps="times of a logarithmic scale",
        of_machine=True,
    ),
    "norm_change": Quantity(
        "meta-gradient norm (mean over images), geometric mean over the last fifth of the outer"
        " steps / over the first fifth",
        norm_change,
        factor=True,
    ),
    "gain_after_shift": Quantity(
        "test accuracy at the first measurement after a shift of the window less the mean of the"
        " last two up to it",
        gain_after_shift,
        shared_steps=True,
    ),
    "largest_over_median_norm": Quantity(
        "largest meta-gradient norm (mean over images) / the median, over all outer steps",
        largest_over_median_norm,
        factor=True,
    ),
    "share_through_step_0": Quantity(
        "share of the norm of the meta-gradient through [0, N) that comes through inner step 0, in"
        " percent, on the distilled set of the run (bench.anatomy), mean over networks",
        share_through_step_0,
        command=anatomy_command,
    ),
    "difference_of_repetition": Quantity(
        "absolute difference of final test accuracy between a run and the same run made with"
        " another number of threads or on another machine (results_root/repeated)",
        difference_of_repetition,
        command=repetition_command,
    ),
    "image_diversity": Quantity(
        "1 - cosine of two distilled images of a class, mean over pairs",
        image_diversity,
        factor=True,
    ),
}


def _variances(run: FinishedRun) -> "pd.DataFrame":
    """The measurements of the variance in the first outer steps; none of runs that recorded it by
    the former definition only."""
    table = collected(run.folder, "measurements")
    if "samples" not in table:
        return table.iloc[:0]
    return table[table["samples"].notna() & (table["step"] < FIRST_STEPS)]


def _by_step(table: "pd.DataFrame", column: str) -> Values:
    if column not in table:
        return {}
    pairs = zip(table["step"], table[column], strict=True)
    return {int(step): float(value) for step, value in pairs}


def _logs(values: Values) -> Values:
    return {step: math.log(value) if value > 0 else math.nan for step, value in values.items()}


def _mean(values: Values) -> Values:
    return {0: sum(values.values()) / len(values)} if values else {}


def _fluctuation(values: Values) -> Values:
    if len(values) < 2:
        return {}
    mean = sum(values.values()) / len(values)
    variance = sum((value - mean) ** 2 for value in values.values()) / (len(values) - 1)
    return {0: math.log(variance) / 2} if variance != 0 else {}
