"""Runs commands in a process that has imported all of them: a case of bad input takes milliseconds.

The server forks a worker, which answers requests until one of them ends it; then the next is
forked. A worker may write to the folder of its case and to the cache only, and may use neither the
network nor much memory nor endless time; what it tries to change all the same is noted.

A line of standard input is a request: module, arguments, folder, and whether the command is to
compute. The folder holds `here`, where the command starts, `home`, `tmp` and `stdin`, and gets
`stdout`, `stderr` and `beside`. The answer is a line with the exit status, negative if a signal
ended the worker.
"""

import faulthandler
import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import socket
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.command_server import LIBRARIES, LIBRARIES_OF_ANALYSIS, load

# Far beyond what any case needs, on any machine.
CPU_SECONDS, SECONDS = 120.0, 1200.0
MEMORY_BYTES = 2 << 30
CASES = 200  # of a worker, so that what one case leaves behind does not stay for ever
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
END = 99  # a worker's exit status when there are no more requests

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Audit events of what changes a file system, and how many of their first arguments are paths.
CHANGES = {
    **dict.fromkeys(("mkdir", "remove", "rmdir", "truncate", "chmod", "chown", "utime"), 1),
    **dict.fromkeys(("rename", "link", "symlink"), 2),
}


def import_all() -> None:
    """Everything that a command imports, now or when it needs it."""
    import analysis
    import bench
    import methods
    import slurm

    load((*LIBRARIES, *LIBRARIES_OF_ANALYSIS, "pandas", "torchvision.datasets", "sklearn.datasets"))
    for package in (bench, analysis, slurm, methods):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            with suppress(ModuleNotFoundError):  # of a library that not everybody installs
                if not module.name.endswith("__main__"):
                    importlib.import_module(module.name)


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Keep a worker; answer for one that was killed."""
    import bench.config.grid
    from bench.config.grid import SCALES
    from tests.every_setting import commands
    from tests.up_to_computing import replaced

    import_all()
    listed = {command.name: command for command in commands()}
    replacements = replaced()
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements]
    gc.freeze()
    while True:
        if (process := os.fork()) == 0:
            place = Place()
            socket.getaddrinfo = no_network
            faulthandler.register(signal.SIGPROF, chain=True)
            limit_memory()
            for _ in range(CASES):
                if not (line := requests.readline()):
                    os._exit(END)
                request = json.loads(line)
                for owner, name, value in originals if request["computes"] else replacements:
                    setattr(owner, name, value)
                place.folder = Path(request["folder"])
                scales = place.folder / "here" / "scales"  # in place of the project's
                bench.config.grid.SCALES = scales if scales.exists() else SCALES
                status = run(listed[request["module"]], request["arguments"], place)
                print(status, file=answers, flush=True)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status == END:
            os._exit(0)
        if status:
            print(status, file=answers, flush=True)


class Place:
    """Where the case may write: its folder, and the cache. Every other change is noted in the
    folder's file `beside`, and refused."""

    folder = Path()

    def __init__(self) -> None:
        self.cache = os.environ["BENCH_CACHE_ROOT"]
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if (mode and set(mode) & set("wax+")) or (flags or 0) & WRITING:
                self.check(path)
        elif event.startswith("os.") and (paths := CHANGES.get(event.removeprefix("os."))):
            for path in arguments[:paths]:
                self.check(path)

    def check(self, path: Any) -> None:
        if isinstance(path, int) or path is None:
            return
        whole = os.path.realpath(os.fsdecode(path))
        inside = tuple(f"{os.path.realpath(place)}/" for place in (self.folder, self.cache))
        if not f"{whole}/".startswith(inside) and whole not in (os.devnull, "/dev/tty"):
            with open(self.folder / "beside", "a", errors="backslashreplace") as notes:
                print(whole, file=notes)
            raise PermissionError(13, "Permission denied", os.fsdecode(path))


def run(command: Any, arguments: list[str], place: Place) -> int:
    """The exit status of a command."""
    from bench.config.command_line import command as run_command

    sys.argv[1:] = arguments
    sys.orig_argv[1:] = ["-m", command.name, *arguments]
    with own_process(place.folder):
        try:
            run_command(command.module.main, command.module.USAGE, *command.schemas)
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            return end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
            return 1


@contextmanager
def own_process(folder: Path) -> Iterator[None]:
    """What a process of its own would have: its output, place, environment and signals."""
    environment, path, modules = dict(os.environ), list(sys.path), set(sys.modules)
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    for number, (name, flags) in enumerate(
        (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))
    ):
        handle = os.open(folder / name, flags | os.O_CREAT)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    tempfile.tempdir = None
    os.chdir(folder / "here")
    sys.path[:1] = [str(folder / "here")]
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():  # each is shown once in a process
            yield
    finally:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name in set(sys.modules) - modules:  # a user's own; the next case has others
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environment)
        os.chdir("/")


def limit_memory() -> None:
    """A case that takes much runs out of it early."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (int(line.split()[1]) for line in lines if line.startswith("VmData:"))
    most = (kib << 10) + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def no_network(*_: Any, **__: Any) -> NoReturn:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


if __name__ == "__main__":
    serve(os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w"))
