"""Runs commands in forks of one process that has imported their libraries: a command that imports
torch itself takes seconds more. The project's own modules are imported by each command.

A line of standard input is a request: module, arguments, environment, folder and the files of its
output. The answer is a line with the exit status.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from typing import Any

LIBRARIES = (
    *("torch", "torch.fx.experimental.symbolic_shapes", "safetensors.torch"),
    *("numpy", "PIL.Image", "filelock", "psutil", "yaml", "rich.live", "rich.progress", "submitit"),
)


def next_request() -> dict[str, Any]:
    """In the server: answers requests until the input ends. In each of its forks: its request."""
    if sys.platform != "linux":  # elsewhere a fork may not compute
        for line in sys.stdin:
            print(status_of_a_new_process(json.loads(line)), flush=True)
        sys.exit()
    for name in LIBRARIES:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a fork of several threads could hang"
    for line in sys.stdin:
        if (process := os.fork()) == 0:
            return json.loads(line)
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
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
