"""What runs will take (`estimation.py`); and whether their data can be loaded at all.

`python -m bench.estimate` reads configurations (a JSON list) from standard input and prints JSON
objects, a line each: for each configuration in turn an `Estimate` or a `Failure`, as soon as it is
known, and between them what goes on, as `{"doing": "..."}`. `bench.sweep` calls it in a process of
its own, so that the sweep itself never imports torch. What runs have in common is measured once, in
a further process, so that its memory is its own, and so that the system, when memory runs out, ends
that one alone; a method is asked for its windows in a process of its own too.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

from bench.config.command_line import command, only, parse, setting, typed
from bench.config.run_config import Environment, RunConfig
from bench.data import find_source, not_found
from bench.sweeps.cost_estimate import (
    estimate,
    measured_alike,
    measured_parts,
    predicted_parts,
    windows,
)
from bench.sweeps.cost_model import Estimate, Failure, Parts
from bench.system.errors import UserError
from bench.system.peak_memory import ran_out
from bench.training.setup import load_data

USAGE = """
python -m bench.estimate [key=value ...] < configurations.json
"""

# All measurements together are given so long, in equal shares. What then has not had its turn is
# predicted from what has; what has not ended some time later is ended.
SECONDS = 35.0
LAST_SECONDS = 65.0

Answer = TypeVar("Answer")
Report = Callable[[str], object]


@dataclass(frozen=True)
class EstimateOptions:
    """Options of this command."""

    load: bool = setting(False, "load the data first, decode and whiten it where that is new")


def answer(work: Callable[[Report], Any], connection: Connection) -> None:
    """`work` in this process of its own: over the connection go what it reports, then what it
    returns, a Failure or a UserError."""
    with suppress(OSError):  # where memory runs out, this process is to go and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        connection.send(work(connection.send))
    except UserError as error:
        connection.send(error)
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        connection.send(Failure(f"{type(error).__name__}: {told}", ran_out(error)))


def in_a_process(
    work: Callable[[Report], Answer],
    seconds: float | None = None,
    report: Report = lambda part: None,
) -> Answer | Failure:
    """What `work` returns, in a process of its own.

    Args:
        work: called with what to report by; its first report says that it begins to take memory.
        seconds: after which it is ended; None: never.

    Raises:
        UserError: the data or the settings cannot be used.
    """
    # A forked process has torch imported, and nothing else of its own in memory. On macOS a forked
    # process may not compute.
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(work, there), daemon=True)
    process.start()
    there.close()
    deadline = None if seconds is None else time.monotonic() + seconds
    begun = False
    try:
        while here.poll(None if deadline is None else max(0.0, deadline - time.monotonic())):
            told = here.recv()
            if isinstance(told, UserError):
                raise told
            if not isinstance(told, str):
                return told
            begun = True
            report(told)
        return Failure("there was no time to measure it to the end")
    except EOFError:
        process.join()
        memory = begun and process.exitcode == -signal.SIGKILL  # nobody else kills it
        return Failure(f"its process ended with status {process.exitcode}", memory)
    finally:
        process.kill()
        process.join()


def loaded(config: RunConfig, environment: Environment, report: Report) -> None:
    """Load the data of a run, for the runs to find it whitened in the cache."""
    report(f"reading {config.dataset}, or decoding and whitening it")
    load_data(config, environment, torch.device("cpu"))


def whole(config: RunConfig, environment: Environment, parts: Parts, report: Report) -> Estimate:
    """What a run takes, its parts being measured."""
    return estimate(config, windows(config), parts, environment)


class Estimator:
    """Answers for one run after the other.

    Args:
        configs: all runs that will be asked for.
        say: called with what goes on.
    """

    def __init__(self, configs: list[RunConfig], environment: Environment, say: Report) -> None:
        self.environment, self.say = environment, say
        self.to_measure = {measured_alike(config) for config in configs}
        self.parts: dict[str, Parts | Failure] = {}
        self.measured: list[tuple[RunConfig, Parts]] = []
        self.started = time.monotonic()

    def ask(self, config: RunConfig) -> Estimate | Failure:
        """What a run will take.

        Raises:
            UserError: its settings cannot be used.
        """
        key = measured_alike(config)
        if key not in self.parts:
            self.parts[key] = self._measure(config)
            self.to_measure.remove(key)
        parts = self.parts[key]
        if isinstance(parts, Failure):
            return parts
        return in_a_process(partial(whole, config, self.environment, parts), LAST_SECONDS)

    def _measure(self, config: RunConfig) -> Parts | Failure:
        gone = time.monotonic() - self.started
        alike = [known for known in self.measured if known[0].engine == config.engine]
        if gone > SECONDS and alike:
            return predicted_parts(alike[0][1], alike[0][0], config)
        share = max(0.0, SECONDS - gone) / len(self.to_measure)
        of = f"{config.method} on {config.dataset}"
        found = in_a_process(
            partial(measured_parts, config, self.environment, share),
            max(1.0, LAST_SECONDS - gone),
            lambda part: self.say(f"measuring {part} of {of}"),
        )
        if isinstance(found, Parts):
            self.measured.append((config, found))
        return found


def load_all(configs: list[RunConfig], environment: Environment, say: Report) -> dict[str, Failure]:
    """Load all data sets that the runs need; by data set, why it could not be done.

    Raises:
        UserError: some data are not there or damaged.
    """
    keys = ("dataset", "zca", "zca_lambda", "validation_fraction", "selection", "image_size")
    distinct = {tuple(getattr(config, key) for key in keys): config for config in configs}
    found = {
        config.dataset: in_a_process(partial(loaded, config, environment), report=say)
        for config in distinct.values()
    }
    return {name: failure for name, failure in found.items() if isinstance(failure, Failure)}


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    # A run's process begins as this one has: python starts and imports torch.
    starting = time.time() - psutil.Process().create_time()
    # Standard output is for answers: what a user's method prints goes where errors go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    given = parse(argv, EstimateOptions, Environment)
    options = typed(EstimateOptions, only(given, EstimateOptions))
    environment = typed(Environment, only(given, Environment))
    configs = [RunConfig(**content) for content in json.load(sys.stdin)]

    def tell(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    def say(doing: str) -> None:
        tell({"doing": doing})

    failures: dict[str, Failure] = {}
    if options.load:
        failures = load_all(configs, environment, say)
    else:
        data_root = Path(environment.data_root).expanduser()
        for name in dict.fromkeys(config.dataset for config in configs):
            try:
                missing = "" if find_source(name, data_root) else not_found(name, data_root)
            except UserError as error:
                missing = str(error)
            if missing:
                tell({"missing": missing})
    estimator = Estimator(configs, environment, say)
    for config in configs:
        found = failures.get(config.dataset) or estimator.ask(config)
        if isinstance(found, Estimate):
            found = replace(found, seconds=found.seconds + starting)
        tell(asdict(found))
    return 0


if __name__ == "__main__":
    command(main, USAGE, EstimateOptions, Environment)
