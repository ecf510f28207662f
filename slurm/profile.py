"""Profiles: the resources of a run on a cluster, from a YAML file and the command line."""

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bench.config.command_line import (
    converted,
    merged,
    read_yaml,
    setting,
    typed,
    unknown_key,
    yaml_path,
)
from bench.config.objectives import OBJECTIVES
from bench.config.run_config import RunConfig
from bench.config.values import shown
from bench.system.errors import UserError
from methods import method_class

PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Profile:
    """The resources of a run on a SLURM cluster. All keys can be given on the command line too."""

    partition: str = setting("", "partition, or several, comma-separated; the site's default")
    account: str = setting("", "account that the time is charged to")
    qos: str = setting("", "quality of service")
    constraint: str = setting("", "features that a node must have")
    time_min: int = setting(
        1440, "time limit in minutes; a run that needs longer is requeued and resumes", minimum=1
    )
    gpus: int = setting(1, "GPUs of each process", minimum=0)
    cpus: int = setting(8, "CPU cores of each process", minimum=1)
    mem_gb: float = setting(32.0, "memory of each process in GB; 0: the site's default", minimum=0)
    tasks_per_node: int = setting(
        1, "processes on one node that may share the replicas of a run", minimum=1
    )
    nodes: int = setting(1, "nodes over which one run's processes may be spread", minimum=1)
    parallel: int = setting(0, "runs at a time; 0: as many as the cluster lets start", minimum=0)
    max_array: int = setting(
        0, "runs in one job array at most; 0: what the cluster's MaxArraySize allows", minimum=0
    )
    signal_s: int = setting(
        120,
        "seconds before its time limit at which a run is signalled to write its checkpoint",
        minimum=30,
    )
    max_requeues: int = setting(
        100, "time limits that a run may meet before it counts as failed", minimum=0
    )
    setup: list[str] = setting([], "lines of shell before each run: module load ...")
    sbatch: dict[str, Any] = setting({}, "further options of sbatch, as sbatch.exclude=node7")
    srun: list[str] = setting([], "further arguments of srun")
    methods: dict[str, Any] = setting({}, "other values for some method, as methods.bptt.mem_gb=80")


# The keys that may have another value for some method.
OF_A_METHOD = (
    "partition",
    "qos",
    "constraint",
    "time_min",
    "gpus",
    "cpus",
    "mem_gb",
    "tasks_per_node",
    "nodes",
)


def load_profile(name: str, given: dict[str, Any]) -> Profile:
    """A profile by its name, or from a file of your own by its path; without a name, the defaults.
    The settings `given` override it.

    Raises:
        UserError: there is no such profile; or it has an unknown key or an invalid value.
    """
    content = read_yaml(yaml_path(name, PROFILES, "profile")) if name else {}
    try:
        profile = typed(
            Profile, merged(converted(Profile, _with_lists(content)), _with_lists(given))
        )
        for method in profile.methods:
            _check_method(method)
            for_method(profile, method)
        _check(profile)
    except UserError as error:
        hint = "; a time limit is a whole number of minutes" if "time_min=" in str(error) else ""
        raise UserError(f"{f'profile {name}: ' if name else ''}{error}{hint}") from error
    return profile


def for_method(profile: Profile, method: str) -> Profile:
    """The resources of the runs of a method.

    Raises:
        UserError: the profile has invalid settings for the method.
    """
    changed = profile.methods.get(method, {})
    if not isinstance(changed, dict):
        raise UserError(
            f"methods.{method}={changed}: give its settings, as {method}: {{time_min: 60}}"
        )
    for key in changed:
        if key not in OF_A_METHOD:
            raise UserError(f"methods.{method}: {unknown_key(key, OF_A_METHOD)}")
    settings = {item.name: getattr(profile, item.name) for item in fields(profile)}
    return replace(typed(Profile, {**settings, **changed}), methods={})


def processes(profile: Profile, config: RunConfig) -> tuple[int, int]:
    """(nodes, processes on each) that share the replicas of a run: the largest number of processes
    that the profile allows and that divides the replicas."""
    best = (1, 1)
    for nodes in range(1, min(profile.nodes, config.replicas) + 1):
        for tasks in range(1, min(profile.tasks_per_node, config.replicas // nodes) + 1):
            # Of equal numbers of processes the first, with fewer nodes, wins.
            if config.replicas % (nodes * tasks) == 0 and nodes * tasks > best[0] * best[1]:
                best = (nodes, tasks)
    return best


def _with_lists(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with `setup` and `srun` as lists, if one is text as typed in a shell."""
    parts = {"setup": str.splitlines, "srun": shlex.split}
    return {
        key: parts[key](value) if key in parts and isinstance(value, str) else value
        for key, value in settings.items()
    }


def _check_method(name: str) -> None:
    if name in OBJECTIVES:
        return
    try:
        method_class(name)
    except ValueError as error:
        raise UserError(f"methods.{name}: {error}") from error


def _check(profile: Profile) -> None:
    if profile.time_min * 60 <= 2 * profile.signal_s:
        raise UserError(
            f"time_min={profile.time_min} leaves no time to work: signal_s={profile.signal_s} of"
            " it are for writing the checkpoint"
        )
    texts = {key: getattr(profile, key) for key in ("partition", "account", "qos", "constraint")}
    texts |= {f"sbatch.{key}": value for key, value in profile.sbatch.items()}
    for key, value in texts.items():
        if isinstance(value, list | dict) or "\n" in str(value):
            raise UserError(f"{key}={shown(value)} must be a text of one line")
    for key in profile.sbatch:
        if (owner := RESERVED_OPTIONS.get(str(key).replace("_", "-"))) is not None:
            raise UserError(f"sbatch.{key} is set by {owner}")


# Options of sbatch that the launcher depends on, and what sets them.
RESERVED_OPTIONS = {
    "time": "time_min",
    "partition": "partition",
    "array": "the runs (parallel= and max_array= limit it)",
    "job-name": "the launcher, which finds its jobs by it",
    "output": "the launcher, which reads the log",
    "error": "the launcher, which reads the log",
    "open-mode": "the launcher",
    "signal": "signal_s",
    "requeue": "the launcher",
    "no-requeue": "the launcher: a run resumes after its time limit by being requeued",
    "chdir": "the launcher",
}
