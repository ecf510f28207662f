"""The first lines of a sweep: its runs with their settings, and which are done already."""

import sys
from collections.abc import Sequence

from bench.config.resolve import resolve
from bench.config.run_config import RunConfig
from bench.sweeps.launcher import PlannedRun
from bench.sweeps.status_table import RunStatus, summary
from bench.system.text import count


def print_runs(runs: Sequence[PlannedRun], statuses: Sequence[RunStatus], force: bool) -> None:
    """Print the runs with their settings and their status."""
    common, varying = settings_of([run.config for run in runs])
    print(f"settings of all runs that are not defaults: {common or 'none'}")
    if force:
        print(f"{count(len(runs), 'run')}, all from the beginning (force=true):")
    else:
        print(summary([progress for _, progress in statuses]))
    for run, settings, (_, progress) in zip(runs, varying, statuses, strict=True):
        step = (
            f" at outer step {progress.step}" if progress.state not in ("waiting", "done") else ""
        )
        detail = f"  {progress.description}" if progress.description else ""
        status = f"{progress.state}{step}{detail}"
        line = f"  {run.config.method:<16} seed {run.config.seed}  {status}  {settings}"
        print(line.rstrip())
    sys.stdout.flush()  # what follows may take long


def settings_of(configs: Sequence[RunConfig]) -> tuple[str, list[str]]:
    """The settings that all runs share and that are not defaults; and for each run the settings in
    which the runs differ."""
    defaults, first = vars(resolve({})), vars(configs[0])
    named = [key for key in first if key not in ("method", "seed", "scale")]
    varying = [key for key in named if any(vars(each)[key] != first[key] for each in configs)]
    common = [key for key in named if key not in varying and first[key] != defaults[key]]
    return written(configs[0], common), [written(each, varying) for each in configs]


def written(config: RunConfig, keys: Sequence[str]) -> str:
    """Some settings as one types them."""
    texts = []
    for key in keys:
        value = getattr(config, key)
        options = value.items() if isinstance(value, dict) else ()
        parts = {f"{key}.{option}": part for option, part in options} or {key: value}
        texts += [
            f"{name}={str(part).replace(' ', '')}" for name, part in parts.items() if part != {}
        ]
    return " ".join(texts)


def restore(
    configs: Sequence[RunConfig], statuses: Sequence[RunStatus], resume_command: str
) -> bool:
    """Write the configurations that are damaged again; whether there were any."""
    damaged = [
        (config, folder)
        for config, (folder, progress) in zip(configs, statuses, strict=True)
        if "config" in progress.damaged
    ]
    for config, folder in damaged:
        folder.create(config, resume_command)
        print(f"restored {folder.path / 'config.json'}", flush=True)
    return bool(damaged)
