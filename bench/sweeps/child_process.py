"""The processes that make runs: their environment, and what is recorded when one dies."""

import os
import signal
from dataclasses import fields
from pathlib import Path

from bench.config.run_config import Environment
from bench.runs.heartbeat import progress_of, record_failure
from bench.runs.log_file import log_path
from bench.runs.run_folder import RunFolder
from bench.runs.run_lock import is_being_run
from bench.system.errors import INTERRUPTED, SUPERSEDED
from bench.system.files import end_of_log, is_full
from bench.system.git import SOURCE
from bench.system.peak_memory import ran_out


def child_environment(processes: int = 1) -> dict[str, str]:
    """The environment variables of a run's processes, of which there are so many."""
    # The source tree may not be installed, and a user's own method may lie in the folder that the
    # sweep was started from.
    folders = [str(SOURCE), os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {"PYTHONPATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": "1"}
    if processes == 1:
        variables["WORLD_SIZE"] = "1"  # it is alone and looks for no others to share its replicas
    return {**os.environ, **variables}


def environment_arguments(environment: Environment) -> list[str]:
    """The settings of an environment as command-line arguments, its folders made absolute."""
    arguments = []
    for item in fields(environment):
        value = getattr(environment, item.name)
        if item.name.endswith("_root"):
            value = Path(value).resolve()
        arguments.append(f"{item.name}={value}")
    return arguments


def record_death(folder: RunFolder, status: int, out_of_memory: bool = False) -> None:
    """Record the end of a run's process that could not record it itself (killed, or crashed).

    Args:
        status: as `subprocess` gives it: negative for a signal.
        out_of_memory: whether the system has killed a process for memory during its life.
    """
    if status in (0, INTERRUPTED, SUPERSEDED) or progress_of(folder).state in ("failed", "done"):
        return
    if is_being_run(folder) or (folder.path / "error.json").exists():
        return
    lines = last_lines(folder)
    memory_line = next((line for line in reversed(lines) if ran_out(line)), "")
    if status < 0:
        name = _signal_name(-status)
        by_system = -status == signal.SIGKILL
        hint = ", as the system does when memory runs out" if by_system else ""
        quote = f" ({memory_line})" if memory_line else ""
        message = f"its process was ended by {name}{hint}{quote}"
        kind = "out of memory" if memory_line or (out_of_memory and by_system) else "killed"
    else:
        last = lines[-1] if lines else f"its process ended with exit status {status}"
        message = memory_line or last.removeprefix("error: ")
        kind = "out of memory" if memory_line else "error"
    if kind != "out of memory" and is_full(folder.path):
        kind, message = "disk full", f"no space is left for {folder.path} ({message})"
    record_failure(folder, {"kind": kind, "message": message[:500]})


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one without a name, such as most real-time signals
        return f"signal {number}"


def last_lines(folder: RunFolder, count: int = 30) -> list[str]:
    """The last lines that a run's process printed, since its last start."""
    lines = end_of_log(log_path(folder))
    starts = [number for number, line in enumerate(lines) if line.startswith("--- ")]
    return lines[starts[-1] + 1 if starts else 0 :][-count:]
