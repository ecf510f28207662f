"""Where numbers come from: the settings, machines, versions and data of finished runs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.captions import data_text
from analysis.labels import flat_settings
from analysis.load import FinishedRun, Results
from bench.config.run_config import RunConfig
from bench.system.text import count, duration


@dataclass(frozen=True)
class Origin:
    """The runs behind the numbers of one grid, in words.

    Attributes:
        runs: finished of all.
        seeds: of the finished ones.
        time: sum over runs of outer steps and measurements.
        memory: the largest peak of any run, where it was recorded.
    """

    grid: str
    about: str
    runs: str
    seeds: str
    time: str
    memory: str
    data: str
    missing: str


def origin_of(results: Results, about: str) -> Origin:
    """The runs behind the numbers of a grid."""
    runs = results.runs
    states = Counter(run.state.partition(" at outer step ")[0] for run in results.missing)
    return Origin(
        grid=results.grid,
        about=about,
        runs=f"{len(runs)} of {len(runs) + len(results.missing)}",
        seeds=", ".join(map(str, sorted({run.config.seed for run in runs}))),
        time=duration(sum(run.result.get("seconds") or 0 for run in runs)) if runs else "",
        memory=_memory_text(runs),
        data="; ".join(dict.fromkeys(map(data_text, runs))),
        missing=", ".join(f"{number} {state}" for state, number in states.items()),
    )


def machines(runs: Iterable[FinishedRun]) -> dict[str, dict[str, int]]:
    """Hardware, versions and commits, each with the number of runs that were last started there."""
    starts = [last_start(run) for run in runs]
    return {
        "Hardware": Counter(map(_hardware, starts)),
        "Versions": Counter(map(_versions, starts)),
        "Commits": Counter(map(_commit, starts)),
    }


def last_start(run: FinishedRun) -> dict[str, Any]:
    """What the manifest records of a run's last start."""
    return (run.manifest.get("starts") or [{}])[-1]


def machine_name(start: dict[str, Any]) -> str:
    """The GPU or CPU of a start."""
    hardware = start.get("hardware") or {}
    return hardware.get("gpu") or hardware.get("cpu") or "unknown machine"


def machine_names(runs: Sequence[FinishedRun]) -> str:
    """The machines that made runs, each once, in words; empty without runs."""
    return " and ".join(dict.fromkeys(machine_name(last_start(run)) for run in runs))


def _memory_text(runs: Sequence[FinishedRun]) -> str:
    peaks = [run.result.get("peak_memory_bytes") or {} for run in runs]
    kinds = dict.fromkeys(kind for peak in peaks for kind in peak)
    largest = {kind: max(peak.get(kind) or 0 for peak in peaks) for kind in kinds}
    return ", ".join(f"{value / 2**30:.1f} GiB ({kind})" for kind, value in largest.items())


def _hardware(start: dict[str, Any]) -> str:
    hardware = start.get("hardware") or {}
    parts = [
        machine_name(start),
        count(hardware["cpu_cores"], "core") if hardware.get("cpu_cores") else "",
        f"{hardware['memory_bytes'] / 2**30:.0f} GiB" if hardware.get("memory_bytes") else "",
        f"device {hardware['device']}" if hardware.get("device") else "",
    ]
    return ", ".join(filter(None, parts))


def _versions(start: dict[str, Any]) -> str:
    versions = (start.get("versions") or {}).items()
    return ", ".join(f"{name} {version}" for name, version in versions) or "unknown"


def _commit(start: dict[str, Any]) -> str:
    changed = " with uncommitted changes" if start.get("uncommitted_changes") else ""
    return f"{(start.get('commit') or 'unknown')[:10]}{changed}"


# --- settings


def common_settings(grids: Sequence[Results]) -> dict[str, str]:
    """The value of each setting that most experiments of all grids have."""
    settings = [_texts(one.config) for results in grids for one in results.experiments]
    keys = dict.fromkeys(key for one in settings for key in one if "." not in key)
    return {
        key: Counter(one[key] for one in settings if key in one).most_common(1)[0][0]
        for key in keys
    }


def special_settings(results: Results, common: dict[str, str]) -> list[tuple[str, str]]:
    """(label, the settings that differ from the common ones) of each experiment."""
    return [
        (
            one.label,
            " ".join(f"{k}={v}" for k, v in _texts(one.config).items() if common.get(k) != v),
        )
        for one in results.experiments
    ]


def _texts(config: RunConfig) -> dict[str, str]:
    return {key: str(value) for key, value in flat_settings(config).items()}
