"""Runs a command that dies: `python -m tests.reliability.mortal MODULE [ARGUMENTS]` is
`python -m MODULE [ARGUMENTS]` until it kills itself, as the environment says:

    DIE_AT       an operation on files, as OPERATIONS lists it: the process dies before it
    DIE_AFTER    seconds from the start of the command
    DIE_AS       the rank that dies, where several processes share a run; the others do not
    OPERATIONS   a file to which every operation on files below a folder named *results* is appended

An operation is written as `rename checkpoint.pt 2`: what happens, to which file (`.checkpoint.pt`
is a temporary one, whatever its random name), and for which time in this process.
"""

import os
import re
import runpy
import signal
import sys
import threading
import time
from collections import Counter
from typing import Any, NoReturn

MORTAL = "tests.reliability.mortal"
# Operations that come or not: the heartbeat keeps its own time, and code is changed or not.
VARIES = re.compile(r"progress\.json|uncommitted\.diff")
OPERATIONS = {
    "open": "write",
    "os.chmod": "chmod",
    "os.link": "link",
    "os.mkdir": "mkdir",
    "os.remove": "remove",
    "os.rename": "rename",
    "os.rmdir": "rmdir",
}
TEMPORARY = re.compile(r"^(\..+?)\.\w{8}(\.\w+)?$")


class Mortal:
    """An audit hook that counts operations on files, and dies before one of them."""

    def __init__(self, die_at: str, log: str) -> None:
        self.die_at = die_at
        self.log = log
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        path = changed_path(event, arguments)
        if not path or "results" not in os.path.relpath(path):
            return
        name = TEMPORARY.sub(r"\1", os.path.basename(path))
        with self.lock:
            operation = f"{OPERATIONS[event]} {name}"
            self.counts[operation] += 1
            operation = f"{operation} {self.counts[operation]}"
            if operation == self.die_at:
                die()
        if self.log:
            with open(self.log, "a") as log:
                log.write(f"{operation}\n")


def changed_path(event: str, arguments: tuple[Any, ...]) -> str:
    """The file that an audited event is about to change; empty if it is about to change none."""
    if event not in OPERATIONS:
        return ""
    if event == "open":
        flags = arguments[2]
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return ""
    path = arguments[1] if event in ("os.rename", "os.link") else arguments[0]
    return os.fspath(path) if isinstance(path, str | os.PathLike) else ""


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_after(seconds: float) -> None:
    """From another process, which no lock of the interpreter delays."""
    doomed = os.getpid()
    if os.fork() == 0:
        time.sleep(seconds)
        if os.getppid() == doomed:  # it has not ended meanwhile
            os.kill(doomed, signal.SIGKILL)
        os._exit(0)


if __name__ == "__main__":
    die_at = os.environ.get("DIE_AT", "")
    if os.environ.get("DIE_AS", "0") != os.environ.get("RANK", "0"):
        die_at = ""
    elif seconds := os.environ.get("DIE_AFTER"):
        die_after(float(seconds))
    sys.addaudithook(Mortal(die_at, os.environ.get("OPERATIONS", "")))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
