"""Runs commands in forks of one process that has imported their libraries: a command that imports
torch itself takes seconds more. The project's own modules are imported by each command.

A line of standard input is a request: module, arguments, environment, folder and the files of its
output. The answer is a line with the exit status.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from typing import Any, NoReturn

LIBRARIES = (
    *("torch", "torch.fx.experimental.symbolic_shapes", "safetensors.torch"),
    *("numpy", "PIL.Image", "filelock", "psutil", "yaml", "rich.live", "rich.progress", "submitit"),
)
# Not pandas: it starts a thread.
LIBRARIES_OF_ANALYSIS = ("scipy.stats", "matplotlib.pyplot")


def load(libraries: Iterable[str]) -> None:
    """Import them, so that no fork has to, nor searches them for garbage, which would copy them."""
    gc.disable()
    for name in libraries:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()
    assert len(os.listdir("/proc/self/task")) == 1, "a fork of several threads could hang"


def next_request() -> dict[str, Any]:
    """In the server: answers requests until the input ends. In each of its forks: its request."""
    if sys.platform != "linux":  # elsewhere a fork may not compute
        for line in sys.stdin:
            print(status_of_a_new_process(json.loads(line)), flush=True)
        sys.exit()
    load(LIBRARIES)
    for line in sys.stdin:
        request = json.loads(line)
        if request["module"].startswith("analysis."):
            load(LIBRARIES_OF_ANALYSIS)
        if (process := os.fork()) == 0:
            return request
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def status_of_a_new_process(request: dict[str, Any]) -> int:
    """Run the command of a request in a process that begins afresh; its exit status."""
    with open(request["stdout"], "w") as out, open(request["stderr"], "w") as errors:
        return subprocess.run(
            [sys.executable, "-m", request["module"], *request["arguments"]],
            env=request["environment"],
            cwd=request["folder"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
        ).returncode


def leave(status: Any) -> NoReturn:
    """Exit as Python does, but without taking apart what all forks share: that copies it, which
    takes longer than most commands do."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # the disk is full, or the command has closed it
        sys.exit(status)
    os._exit(status or 0)


if __name__ == "__main__":
    request = next_request()
    for number, (path, flags) in enumerate(
        (
            (os.devnull, os.O_RDONLY),
            (request["stdout"], os.O_WRONLY),
            (request["stderr"], os.O_WRONLY),
        )
    ):
        os.dup2(os.open(path, flags), number)
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # as the environment says
    os.chdir(request["folder"])
    # As of `python -m`: the folder, then PYTHONPATH.
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [request["folder"], *paths]
    sys.argv[1:] = request["arguments"]
    sys.orig_argv[1:] = ["-m", request["module"], *request["arguments"]]
    status: Any = None
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    leave(status)
