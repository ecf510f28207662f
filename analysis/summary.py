"""Every experiment of a grid over its seeds: final accuracy, meta-gradient norm, time, memory."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, geometric_mean, median, stdev
from typing import Any

import numpy as np

from analysis.arguments import Request
from analysis.course import grid_results, grid_table
from analysis.load import Experiment, FinishedRun, Results, StoredRun
from analysis.provenance import machine_names
from analysis.records import collected
from analysis.rendered_table import MISSING, RenderedTable
from analysis.tables.cells import networks_text
from analysis.verdicts.quantities import FIRST_STEPS, norm_fluctuation
from bench.system.text import mean_std


def summary_table(request: Request, stored: Sequence[StoredRun]) -> RenderedTable:
    """A row for each experiment of a grid.

    Raises:
        UserError: no run is finished, or an unknown setting or grid.
    """
    results = grid_results("summary", replace(request, unfinished=False), stored)
    rows = [row(results, experiment) for experiment in results.experiments]
    reading = [
        "Test accuracy (%) of the final set: mean ± standard deviation over n seeds, each with its"
        " own distilled set; a seed's value is the mean over fresh networks.",
        "Fluctuation of the norm of the meta-gradient: standard deviation of its logarithm around a"
        " rolling median of 25 outer steps, geometric mean over seeds; largest norm of any seed;"
        f" both over the first {FIRST_STEPS} outer steps.",
        "Seconds a step: median over a run's outer steps, median over seeds. Memory: the largest"
        " peak of a seed, of the GPU's tensors or of the process where there is none.",
        f"Measured on {machine_names(results.runs)}.",
    ]
    return grid_table(
        "summary",
        f"Summary of grid {results.grid}",
        reading,
        ([_shown(one) for one in rows], rows),
        (request, results),
    )


def row(results: Results, experiment: Experiment) -> dict[str, Any]:
    """The numbers of one experiment."""
    runs = results.runs_of(experiment)
    evaluations = [run.result["evaluation"] for run in runs]
    accuracies = [100 * evaluation["test_accuracy_mean"] for evaluation in evaluations]
    fluctuations = [np.exp(values[0]) for run in runs if (values := norm_fluctuation(run, {}))]
    largest = [value for run in runs if (value := _largest_norm(run)) is not None]
    peaks = [peak for run in runs if (peak := run.peak_memory_bytes())]
    states = Counter(run.state for run in results.missing_of(experiment))
    return {
        "method": experiment.label,
        "mean": fmean(accuracies) if runs else None,
        "std_over_seeds": stdev(accuracies) if len(runs) > 1 else None,
        "n_seeds": len(runs),
        "each_seed": ", ".join(
            f"{run.config.seed}: {value:.1f}" for run, value in zip(runs, accuracies, strict=True)
        ),
        "networks_a_seed": networks_text(evaluations),
        "fluctuation": geometric_mean(fluctuations) if fluctuations else None,
        "largest_norm": float(np.max(largest)) if largest else None,  # NaN where one is
        "outer_steps": experiment.config.outer_steps,
        "seconds": median(run.step_seconds().median() for run in runs) if runs else None,
        "memory_gib": max(peaks) / 2**30 if peaks else None,
        "missing": ", ".join(f"{number} {state}" for state, number in states.items()),
    }


def _largest_norm(run: FinishedRun) -> float | None:
    """None if no step was recorded; NaN if the norm of some step is."""
    metrics = collected(run.folder, "metrics")
    norms = metrics.loc[metrics["step"] < FIRST_STEPS, "image_gradient_norm"]
    return None if norms.empty else float(norms.max(skipna=False))


def _shown(numbers: dict[str, Any]) -> dict[str, str]:
    mean, memory = numbers["mean"], numbers["memory_gib"]
    return {
        "Method": numbers["method"],
        "Test accuracy": MISSING
        if mean is None
        else mean_std(mean, numbers["std_over_seeds"], ".1f"),
        "n (seeds)": str(numbers["n_seeds"]),
        "Each seed": numbers["each_seed"],
        "networks a seed": numbers["networks_a_seed"],
        "Fluctuation": _three_digits(numbers["fluctuation"]),
        "Largest norm": _three_digits(numbers["largest_norm"]),
        "Outer steps": f"{numbers['outer_steps']:,}",
        "Seconds a step": _three_digits(numbers["seconds"]),
        "GiB": "" if memory is None else f"{memory:.2f}",
        "Missing": numbers["missing"],
    }


def _three_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
