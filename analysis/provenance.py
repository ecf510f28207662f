"""Where numbers come from: the settings, machines, versions and data of finished runs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.labels import flat_settings
from analysis.load import FinishedRun, Results
from bench.config.run_config import RunConfig
from bench.system.text import count, duration


@dataclass(frozen=True)
class Origin:
    """What stands behind the numbers of one grid, in words.

    Attributes:
        runs: finished of all.
        seeds: of the finished ones.
        time: of their outer steps and measurements, all together.
        memory: the most that one took, where it was recorded.
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
    """What stands behind the finished runs of a grid."""
    runs = results.runs
    states = Counter(run.state.partition(" at outer step ")[0] for run in results.missing)
    return Origin(
        grid=results.grid,
        about=about,
        runs=f"{len(runs)} of {len(runs) + len(results.missing)}",
        seeds=", ".join(map(str, sorted({run.config.seed for run in runs}))),
        time=duration(sum(run.result.get("seconds") or 0 for run in runs)) if runs else "",
        memory=_memory_text(runs),
        data="; ".join(dict.fromkeys(data_text(run.result) for run in runs)),
        missing=", ".join(f"{count} {state}" for state, count in states.items()),
    )


def machines(runs: Iterable[FinishedRun]) -> dict[str, dict[str, int]]:
    """Hardware, versions and commits, each with the number of runs that were last started there."""
    starts = [(run.manifest.get("starts") or [{}])[-1] for run in runs]
    return {
        "Hardware": Counter(map(_hardware, starts)),
        "Versions": Counter(map(_versions, starts)),
        "Commits": Counter(map(_commit, starts)),
    }


def _memory_text(runs: Sequence[FinishedRun]) -> str:
    peaks = [run.result.get("peak_memory_bytes") or {} for run in runs]
    kinds = dict.fromkeys(kind for peak in peaks for kind in peak)
    most = {kind: max(peak.get(kind) or 0 for peak in peaks) for kind in kinds}
    return ", ".join(f"{value / 2**30:.1f} GiB ({kind})" for kind, value in most.items())


def _hardware(start: dict[str, Any]) -> str:
    own = start.get("hardware") or {}
    machine = own.get("gpu") or own.get("cpu") or "unknown machine"
    parts = [
        count(own["cpu_cores"], "core") if own.get("cpu_cores") else "",
        f"{own['memory_bytes'] / 2**30:.0f} GiB" if own.get("memory_bytes") else "",
        f"device {own['device']}" if own.get("device") else "",
    ]
    return ", ".join(filter(None, [machine, *parts]))


def _versions(start: dict[str, Any]) -> str:
    told = [f"{name} {own}" for name, own in (start.get("versions") or {}).items()]
    return ", ".join(told) or "unknown"


def _commit(start: dict[str, Any]) -> str:
    changed = " with uncommitted changes" if start.get("uncommitted_changes") else ""
    return f"{(start.get('commit') or 'unknown')[:10]}{changed}"


# --- in captions


def data_text(result: dict[str, Any]) -> str:
    """Which copy of the data a result was made with."""
    data = result.get("data") or {}
    return f"{data.get('source', 'unknown')}, fingerprint {data.get('fingerprint', 'unknown')}"


def selection_text(configs: Sequence[RunConfig]) -> str:
    """What chose checkpoint and number of training steps."""
    told = dict.fromkeys(
        "selection=test (the published protocol, not a fair number)"
        if config.selection == "test"
        else f"selection=validation ({100 * config.validation_fraction:g}% of the training set),"
        " not the paper's protocol, which selects by test accuracy"
        for config in configs
    )
    return f"{' and '.join(told)}." if told else ""


# --- settings


def common_settings(grids: Sequence[Results]) -> dict[str, str]:
    """The value of each setting that most experiments of all grids have."""
    settings = [_texts(config) for results in grids for config in results.experiments.values()]
    keys = dict.fromkeys(key for own in settings for key in own if "." not in key)
    return {
        key: Counter(own[key] for own in settings if key in own).most_common(1)[0][0]
        for key in keys
    }


def own_settings(results: Results, common: dict[str, str]) -> list[tuple[str, str]]:
    """(label, the settings that differ from the common ones) of each experiment."""
    return [
        (
            label,
            " ".join(f"{k}={v}" for k, v in _texts(config).items() if common.get(k) != v),
        )
        for label, config in results.experiments.items()
    ]


def _texts(config: RunConfig) -> dict[str, str]:
    return {key: str(value) for key, value in flat_settings(config).items()}
