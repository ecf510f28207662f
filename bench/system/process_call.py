"""One function call in a process of its own: the memory that it took is free afterwards, and where
it crashes or memory runs out, that process ends and no other."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeVar

from bench.system.errors import UserError
from bench.system.machine import free_memory, total_memory
from bench.system.peak_memory import ran_out

Result = TypeVar("Result")
BEAT_SECONDS = 10.0


class OutOfMemory(Exception):
    """The work does not fit into memory."""


class Killed(OutOfMemory):
    """The process was killed from outside. The system does so where memory runs out."""


class Failed(Exception):
    """The call raised something else or took too long, or its process died."""


@dataclass(frozen=True)
class _Report:
    text: str


def call(
    function: Callable[..., Result],
    *arguments: Any,
    start_method: Literal["spawn", "fork"] = "spawn",
    reserve: float = 0.03,
    timeout_s: float | None = None,
    waiting: Callable[[float], None] = lambda seconds: None,
    on_report: Callable[[str], object] | None = None,
) -> Result:
    """`function(*arguments)` in a process of its own, which ends with this one.

    Args:
        start_method: `fork` shares all that is imported here, and what the arguments refer to.
        reserve: the process is killed where the free memory of the machine, container or batch job
            goes below this part of the whole, before anything else has to suffer; 0: never.
        timeout_s: seconds after which it is ended; None: never.
        waiting: called with the seconds so far, every `BEAT_SECONDS`.
        on_report: called with the texts that the function reports. It gets one argument more, a
            function to report them with.

    Raises:
        OutOfMemory: it was killed, by us or by the system, or could not allocate.
        Failed: anything else went wrong; the traceback is on the terminal.
        UserError: raised by the function.
    """
    context: Any = get_context(start_method)
    receiving, sending = context.Pipe(duplex=False)
    reports = on_report is not None
    process = context.Process(target=_answer, args=(sending, function, arguments, reports))
    reserved_bytes = reserve * total_memory()
    began, beats = time.monotonic(), 0
    try:
        with _interrupts_held_back():
            process.start()
        sending.close()
        while True:
            if not receiving.poll(0.05):
                seconds = time.monotonic() - began
                if reserve and free_memory() < reserved_bytes:
                    raise OutOfMemory("too little memory was left to the machine")
                if timeout_s is not None and seconds > timeout_s:
                    raise Failed(f"it took more than {timeout_s:.0f} s")
                if seconds > (beats + 1) * BEAT_SECONDS:
                    beats += 1
                    waiting(beats * BEAT_SECONDS)
                continue
            outcome = receiving.recv()
            if not isinstance(outcome, _Report):
                break
            assert on_report is not None
            on_report(outcome.text)
        process.join(timeout=10)  # it is done; what it started may need to be put away
    except EOFError:
        process.join()
        status = f"its process ended with exit status {process.exitcode}"
        if process.exitcode == -signal.SIGKILL:
            raise Killed(status) from None
        raise Failed(status) from None
    finally:
        if process.pid is not None:  # it was started
            process.kill()
            process.join()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """A process started meanwhile never sees Ctrl-C: its parent ends it. Ours comes later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(
    sending: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], reports: bool
) -> None:
    """Runs in the new process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(OSError):  # if the system must kill a process, let it be this one
        Path("/proc/self/oom_score_adj").write_text("1000")
    if reports:
        arguments = (*arguments, lambda text: sending.send(_Report(text)))
    try:
        outcome = function(*arguments)
    except Exception as error:
        outcome = described(error)
    sending.send(outcome)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def described(error: Exception) -> Exception:
    """What `call` raises for an error of the function; only a mistake in code has its traceback
    printed."""
    if isinstance(error, UserError):
        return UserError(str(error))  # some kinds of it cannot be sent to another process
    lines = str(error).splitlines()
    text = ": ".join([type(error).__name__, *lines[:1]])
    if ran_out(error):
        return OutOfMemory(text)
    traceback.print_exception(error)
    return Failed(text)
