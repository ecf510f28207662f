"""Call a function in a fresh process, so that memory used by one engine is free for the next, and a
failure or lack of memory affects only that call."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from bench.system.errors import UserError
from bench.system.machine import free_memory, total_memory
from bench.system.peak_memory import ran_out

Result = TypeVar("Result")
BEAT_SECONDS = 10.0


class OutOfMemory(Exception):
    """The work does not fit into memory."""


class Failed(Exception):
    """The call raised something else, or its process died."""


def call(
    function: Callable[..., Result],
    *arguments: Any,
    reserve: float = 0.03,
    waiting: Callable[[float], None] = lambda seconds: None,
) -> Result:
    """`function(*arguments)` in a fresh process. It is killed where the free memory of the machine,
    container or batch job goes below `reserve` of the whole, before anything else has to suffer.

    Args:
        waiting: called with the seconds so far, every `BEAT_SECONDS`.

    Raises:
        OutOfMemory: it was killed, by us or by the system, or could not allocate.
        Failed: anything else went wrong; the traceback is on the terminal.
        UserError: raised by the function.
    """
    context = get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sending, function, arguments))
    reserved_bytes = reserve * total_memory()
    began, beats = time.monotonic(), 0
    try:
        with _interrupts_held_back():
            process.start()
        sending.close()
        while not receiving.poll(0.05):
            if free_memory() < reserved_bytes:
                raise OutOfMemory
            if time.monotonic() - began > (beats + 1) * BEAT_SECONDS:
                beats += 1
                waiting(beats * BEAT_SECONDS)
        outcome = receiving.recv()
        process.join(timeout=10)  # it is done; what it started may need to be put away
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise OutOfMemory from None  # nobody else kills it
        raise Failed(f"its process ended with exit status {process.exitcode}") from None
    finally:
        if process.pid is not None:  # it was started
            process.kill()
            process.join()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Block Ctrl-C in processes started meanwhile: the parent stops them. Ours comes later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(sending: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Runs in the fresh process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(OSError):  # if the system must kill a process, let it be this one
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        outcome = function(*arguments)
    except Exception as error:
        outcome = _described(error)
    sending.send(outcome)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _described(error: Exception) -> Exception:
    if isinstance(error, UserError):
        return error
    if ran_out(error):
        return OutOfMemory()
    traceback.print_exception(error)
    return Failed(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
