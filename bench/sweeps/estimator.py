"""Estimates runs one after the other. What several runs have in common is measured once, in a
process of its own, so that its memory is its own, and so that the system, when memory runs out,
kills that process alone; a method draws its windows in such a process too."""

import sys
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch

from bench.config.run_config import Environment, RunConfig
from bench.sweeps.cost_estimate import (
    estimate,
    measured_alike,
    measured_parts,
    predicted_parts,
    sample_windows,
)
from bench.sweeps.cost_model import Estimate, Failure, Parts
from bench.system.process_call import Failed, Killed, OutOfMemory, call
from bench.training.setup import load_data

# All measurements together may take SECONDS, in equal shares. Experiments that have not been
# measured by then are predicted from those that have; after LAST_SECONDS a measurement is ended.
SECONDS = 35.0
LAST_SECONDS = 65.0

# A forked process has torch imported, and nothing else of its own in memory. On macOS a forked
# process may not compute, and nowhere may one whose parent's autograd has started threads.
START_METHOD: Literal["spawn", "fork"] = "fork" if sys.platform == "linux" else "spawn"

Answer = TypeVar("Answer")
Report = Callable[[str], object]


def isolated(
    function: Callable[..., Answer],
    *arguments: Any,
    timeout_s: float | None = None,
    say: Report = lambda part: None,
) -> Answer | Failure:
    """What `function` returns, called in a process of its own, or why it returned nothing.

    Args:
        function: its last argument reports what it does; with the first report it begins to take
            memory, so that a kill before that has another cause.
        timeout_s: seconds after which it is ended; None: never.

    Raises:
        UserError: the data or the settings cannot be used.
    """
    reports: list[str] = []

    def on_report(text: str) -> None:
        reports.append(text)
        say(text)

    try:
        return call(
            function,
            *arguments,
            start_method=START_METHOD,
            reserve=0.0,
            timeout_s=timeout_s,
            on_report=on_report,
        )
    except Killed as error:
        return Failure(str(error), out_of_memory=bool(reports))
    except OutOfMemory as error:
        return Failure(str(error), out_of_memory=True)
    except Failed as error:
        return Failure(str(error))


def loaded(config: RunConfig, environment: Environment, report: Report) -> None:
    """Load the data of a run, so that the runs find them whitened in the cache."""
    report(f"reading {config.dataset}, or decoding and whitening it")
    load_data(config, environment, torch.device("cpu"))


def whole(config: RunConfig, environment: Environment, parts: Parts, report: Report) -> Estimate:
    """The estimate of a run whose parts have been measured."""
    return estimate(config, sample_windows(config), parts, environment)


class Estimator:
    """Estimates one run after the other.

    Args:
        configs: all runs that will be estimated.
        say: called with what is being measured.
    """

    def __init__(self, configs: list[RunConfig], environment: Environment, say: Report) -> None:
        self.environment, self.say = environment, say
        self.to_measure = {measured_alike(config) for config in configs}
        self.parts: dict[str, Parts | Failure] = {}
        self.measured: list[tuple[RunConfig, Parts]] = []
        self.started = time.monotonic()

    def estimate(self, config: RunConfig) -> Estimate | Failure:
        """The time and memory of a run, or why they are not known.

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
        return isolated(whole, config, self.environment, parts, timeout_s=LAST_SECONDS)

    def _measure(self, config: RunConfig) -> Parts | Failure:
        elapsed = time.monotonic() - self.started
        same_engine = [one for one in self.measured if one[0].engine == config.engine]
        if elapsed > SECONDS and same_engine:
            return predicted_parts(same_engine[0][1], same_engine[0][0], config)
        share = max(0.0, SECONDS - elapsed) / len(self.to_measure)
        of = f"{config.method} on {config.dataset}"
        parts = isolated(
            measured_parts,
            config,
            self.environment,
            share,
            timeout_s=max(1.0, LAST_SECONDS - elapsed),
            say=lambda part: self.say(f"measuring {part} of {of}"),
        )
        if isinstance(parts, Parts):
            self.measured.append((config, parts))
        return parts


def load_all(configs: list[RunConfig], environment: Environment, say: Report) -> dict[str, Failure]:
    """Load all data sets that the runs need; the failures, by data set.

    Raises:
        UserError: some data are missing or damaged.
    """
    keys = ("dataset", "zca", "zca_lambda", "validation_fraction", "selection", "image_size")
    distinct = {tuple(getattr(config, key) for key in keys): config for config in configs}
    outcomes = {
        config.dataset: isolated(loaded, config, environment, say=say)
        for config in distinct.values()
    }
    return {name: failure for name, failure in outcomes.items() if isinstance(failure, Failure)}
