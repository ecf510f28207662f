"""What runs will take (`estimation.py`); and whether their data can be loaded at all.

`python -m bench.estimate` reads configurations (a JSON list) from standard input and prints one
JSON object a configuration, each as soon as it is known: an `Estimate`, or a `Failure`.
`bench.sweep` calls it in a process of its own, so that the sweep itself never imports torch. Each
configuration is measured in a further process, so that its memory is its own, and so that the
system, when memory runs out, ends that one alone.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch
import torch._dynamo  # an optimiser needs it; imported there, every measured process would do so

from bench.config import Place, RunConfig
from bench.costs import Estimate, Failure
from bench.errors import UserError
from bench.estimation import whole_estimate
from bench.resolving import resolve
from bench.settings import command, parse, typed

USAGE = """
python -m bench.estimate [key=value ...] < configurations.json
"""


def answer(config: RunConfig, place: Place, connection: Connection) -> None:
    """`whole_estimate` over a connection, to be called in a process of its own: "begun" when memory
    is about to be taken, then an Estimate, a Failure or a UserError."""
    with suppress(OSError):  # where memory runs out, this process is to go and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        connection.send(whole_estimate(config, place, lambda: connection.send("begun")))
    except UserError as error:
        connection.send(error)
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        # What torch says when the system refuses memory is an ordinary RuntimeError.
        out = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
            phrase in told for phrase in ("can't allocate memory", "not enough memory")
        )
        connection.send(Failure(f"{type(error).__name__}: {told}", out))


def ask(config: RunConfig, place: Place) -> Estimate | Failure:
    """`whole_estimate` in a process of its own.

    Raises:
        UserError: the data or the settings cannot be used.
    """
    # A forked process has torch imported, and nothing else of its own in memory. On macOS a forked
    # process may not compute.
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(config, place, there), daemon=True)
    process.start()
    there.close()
    told: list[Any] = []
    with suppress(EOFError):
        while True:
            told.append(here.recv())
    process.join()
    if told and isinstance(told[-1], UserError):
        raise told[-1]
    if told and not isinstance(told[-1], str):
        return told[-1]
    killed = process.exitcode == -signal.SIGKILL
    return Failure(f"its process ended with status {process.exitcode}", killed and bool(told))


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    # A run's process begins as this one has: python starts and imports torch.
    starting = time.time() - psutil.Process().create_time()
    # Standard output is for answers: what a user's method prints goes where errors go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    place = typed(Place, parse(argv, Place))
    for content in json.load(sys.stdin):
        found = ask(resolve(content), place)
        if isinstance(found, Estimate):
            found = replace(found, seconds=found.seconds + starting)
        print(json.dumps(asdict(found)), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    command(main, USAGE, Place)
