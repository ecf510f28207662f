"""Estimates the time and memory that runs will take, and checks that their data can be loaded.

`python -m bench.estimate` reads configurations (a JSON list) from standard input and prints JSON
objects, one per line: for each configuration in turn an `Estimate` or a `Failure`, as soon as it is
known, and in between what is being measured, as `{"doing": "..."}`. `bench.sweep` calls it in a
process of its own, so that the sweep itself never imports torch.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import psutil

from bench.config.command_line import command, only, parse, setting, typed
from bench.config.resolve import resolve
from bench.config.run_config import Environment, RunConfig
from bench.system import garbage
from bench.system.errors import UserError

USAGE = """
python -m bench.estimate [key=value ...] < configurations.json
"""


@dataclass(frozen=True)
class EstimateOptions:
    """Options of this command."""

    load: bool = setting(
        False, "first load the data, which decodes and whitens them if no cache has them"
    )


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    with garbage.imports():
        from bench.data import find_source, not_found
        from bench.sweeps.cost_model import Estimate, Failure
        from bench.sweeps.estimator import Estimator, load_all

    # A run's process begins as this one has: python starts and imports torch.
    starting = time.time() - psutil.Process().create_time()
    # Standard output is for answers: what a user's method prints goes where errors go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    given = parse(argv, EstimateOptions, Environment)
    options = typed(EstimateOptions, only(given, EstimateOptions))
    environment = typed(Environment, only(given, Environment))
    configs = read_configurations(sys.stdin)

    def send(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    def say(doing: str) -> None:
        send({"doing": doing})

    failures: dict[str, Failure] = {}
    if options.load:
        failures = load_all(configs, environment, say)
    else:
        data_root = Path(environment.data_root)
        for name in dict.fromkeys(config.dataset for config in configs):
            try:
                missing = "" if find_source(name, data_root) else not_found(name, data_root)
            except UserError as error:
                missing = str(error)
            if missing:
                send({"missing": missing})
    estimator = Estimator(configs, environment, say)
    for config in configs:
        answer = failures.get(config.dataset) or estimator.estimate(config)
        if isinstance(answer, Estimate):
            answer = replace(answer, seconds=answer.seconds + starting)
        send(asdict(answer))
    return 0


def read_configurations(stream: IO[str]) -> list[RunConfig]:
    """The configurations in a JSON list, as `bench.sweep` writes them.

    Raises:
        UserError: it is something else.
    """
    try:
        return [resolve(content) for content in json.load(stream)]
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        raise UserError(f"standard input is not a JSON list of configurations ({error})") from error


if __name__ == "__main__":
    command(main, USAGE, EstimateOptions, Environment)
