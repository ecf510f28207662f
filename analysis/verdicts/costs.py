"""Quantities of time and memory, and the machine that they were measured on."""

import math
from collections.abc import Sequence
from typing import Any

from analysis.load import FinishedRun
from analysis.provenance import last_start, machine_name
from analysis.records import collected, seconds_before
from bench.system.text import count

THEN = " then "  # between the machines of a run that was resumed on another one
# Seconds of computing at which runs are compared: eight per decade, whole, up to 11 days.
TIMES = sorted({round(10 ** (k / 8)) for k in range(49)})


def machine_text(run: FinishedRun) -> str:
    """The machine of all starts of a run, in words; empty if one was not recorded."""
    starts = run.manifest.get("starts") or []
    if not starts or not all(start.get("hardware") for start in starts):
        return ""
    return THEN.join(dict.fromkeys(_machine(start, run.manifest) for start in starts))


def _machine(start: dict[str, Any], manifest: dict[str, Any]) -> str:
    cores, threads = start["hardware"].get("cpu_cores"), manifest.get("threads")
    parts = [
        machine_name(start),
        count(cores, "core") if cores else "",
        count(threads, "thread") if threads else "",
    ]
    return ", ".join(filter(None, parts))


def machine_problem(runs: Sequence[FinishedRun], wanted: str = "") -> str:
    """Why times of these runs cannot be compared, in words; empty if they can: all were made on one
    machine, which is recorded and, if one is wanted, has its name."""
    machines = list(dict.fromkeys(map(machine_text, runs)))
    names = [machine_name(last_start(run)).replace(" ", "") for run in runs]
    if "" in machines:
        return "the machine was not recorded"
    if len(machines) > 1 or THEN in machines[0]:
        return f"not made on one machine ({'; '.join(machines)})"
    if not all(wanted.replace(" ", "") in name for name in names):
        return f"not made on the paper's machine, {wanted}, but on {machines[0]}"
    return ""


def seconds_per_step(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """The logarithm of the median: other processes on the machine disturb single steps."""
    return {0: math.log(run.step_seconds().median())}


def hours(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """The logarithm of the hours of all outer steps."""
    return {0: math.log(run.step_seconds().sum() / 3600)}


def peak_memory(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """The logarithm of the peak: of the GPU's tensors, or of the process where there is no GPU."""
    peak = run.peak_memory_bytes()
    return {0: math.log(peak)} if peak else {}


def gpu_memory(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """The logarithm of the peak of the GPU's tensors. Programs and data, which have nothing to do
    with the window, fill most of a process of a CPU, so that its peak cannot be in proportion."""
    peak = (run.result.get("peak_memory_bytes") or {}).get("device")
    return {0: math.log(peak)} if peak else {}


def accuracy_by_seconds(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """In points, at each of `TIMES` from the first measurement after an update to the last; linear
    between measurements. The time is that of the outer steps, without measurements."""
    import numpy as np

    table = collected(run.folder, "measurements")
    if "test_accuracy_mean" not in table:
        return {}
    measured = table[table["n"].notna() & (table["step"] > 0)]
    times = seconds_before(collected(run.folder, "metrics"), measured["step"].tolist())
    if not len(times):
        return {}
    shared = [time for time in TIMES if times[0] <= time <= times[-1]]
    accuracies = np.interp(shared, times, 100 * measured["test_accuracy_mean"].to_numpy(float))
    return dict(zip(shared, accuracies.tolist(), strict=True))
