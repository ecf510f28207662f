"""The plan of a sweep: what its runs will take, and how many of them fit into memory at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.config.identity import experiment_identity
from bench.config.run_config import Environment, RunConfig
from bench.sweeps.cost_model import Estimate, Failure
from bench.sweeps.cost_text import costs, gib
from bench.sweeps.estimate_process import estimates
from bench.sweeps.launcher import PlannedRun
from bench.system.errors import UserError
from bench.system.machine import free_memory
from bench.system.text import count, duration

CHECK_MEMORY = "check_memory=false starts them anyway"


@dataclass(frozen=True)
class Memory:
    """What is free for runs.

    Attributes:
        free_bytes: on this machine, or on each GPU.
        gpus: the GPUs that runs are spread over; 1 where they run on the CPU.
    """

    free_bytes: int
    gpus: int = 1

    def need(self, estimates: Sequence[Estimate], at_a_time: int) -> int:
        """Bytes that so many of the runs need together at worst, on one GPU or on this machine."""
        peaks = sorted((each.peak_bytes or 0 for each in estimates), reverse=True)
        shared = max((each.shared_bytes for each in estimates), default=0)
        return shared + sum(peaks[: -(-at_a_time // self.gpus)])

    def fitting(self, estimates: Sequence[Estimate], at_a_time: int) -> int:
        """The largest number of runs, up to `at_a_time`, of which any that meet fit; 0: none."""
        numbers = range(at_a_time, 0, -1)
        return next((n for n in numbers if self.need(estimates, n) <= self.free_bytes), 0)


def plan(
    to_do: Sequence[PlannedRun],
    environment: Environment,
    slots: int,
    *,
    gpus: int = 0,
    fixed: bool = False,
    check_memory: bool = True,
    needs_data: bool = True,
) -> int:
    """Print what the runs will take, and return how many of them to run at a time.

    Args:
        slots: how many at a time the processors allow.
        gpus: how many GPUs the runs are spread over.
        fixed: the user gave the number of slots: it is not lowered.
        check_memory: whether to reject runs that cannot fit into memory, and to run fewer at a time
            where not all fit together.
        needs_data: the runs begin now: their data are loaded first, and missing data are an error.

    Raises:
        UserError: some run cannot fit; or a fixed number of them cannot; or the data or the
            settings of some run cannot be used.
    """
    keys = [experiment_identity(run.config) for run in to_do]
    experiments = dict(zip(keys, (run.config for run in to_do), strict=True))
    number = count(len(experiments), "experiment")
    print(f"measuring a few steps of {number}, for a minute at most ...", flush=True)
    answers = list(estimates(list(experiments.values()), environment, load=needs_data))
    by_experiment = dict(zip(experiments, answers, strict=False))
    unknown: dict[str, list[str]] = {}  # methods by cause
    for key, failure in by_experiment.items():
        if isinstance(failure, Failure):
            method = experiments[key].method
            if failure.out_of_memory and check_memory:
                raise UserError(
                    f"{method} cannot take even a few steps: memory ran out"
                    f" ({failure.cause}); {remedies(experiments[key], environment)}"
                )
            unknown.setdefault(failure.cause, []).append(method)
    for cause, methods in unknown.items():
        # Other experiments may be fine; the run itself will record the error properly.
        print(f"no estimate of {', '.join(dict.fromkeys(methods))}: {cause}")
    runs = [
        (run, estimate)
        for key, run in zip(keys, to_do, strict=True)
        if isinstance(estimate := by_experiment.get(key), Estimate)
    ]
    slots = min(slots, len(to_do))
    if not runs:
        return slots
    if check_memory:
        slots = fit(runs, environment, slots, gpus=gpus, fixed=fixed)
    print(line(runs, slots), flush=True)
    return slots


def fit(
    runs: Sequence[tuple[PlannedRun, Estimate]],
    environment: Environment,
    slots: int,
    *,
    gpus: int,
    fixed: bool,
) -> int:
    """How many runs at a time fit into memory, up to `slots`; prints a line where they are fewer.

    Raises:
        UserError: as `plan`.
    """
    measured = [estimate for _, estimate in runs if estimate.peak_bytes is not None]
    if not measured:
        return slots
    gpu_bytes = measured[0].gpu_free_bytes
    memory = Memory(free_memory()) if gpu_bytes is None else Memory(gpu_bytes, max(1, gpus))
    fitting = memory.fitting(measured, slots)
    free = f"{gib(memory.free_bytes)} GiB are free{'' if gpu_bytes is None else ' on the GPU'}"
    if fitting == 0:
        run, largest = max(runs, key=lambda pair: pair[1].peak_bytes or 0)
        raise UserError(
            f"{run.config.method} (seed {run.config.seed}) needs about"
            f" {gib(memory.need([largest], 1))} GiB of memory and {free};"
            f" {remedies(run.config, environment)}"
        )
    if fitting < slots:
        needed = f"about {gib(memory.need(measured, slots))} GiB of memory and {free}"
        if fixed:
            raise UserError(f"workers={slots} need {needed}: workers={fitting} fit; {CHECK_MEMORY}")
        print(f"memory: {fitting} at a time instead of {slots}, which need {needed}")
    return fitting


def remedies(config: RunConfig, environment: Environment) -> str:
    """What may help a run that does not fit, as the end of a sentence."""
    helps = []
    if config.engine == "higher":
        helps.append("engine=exact")
    elif environment.activation_memory not in ("auto", "0"):
        helps.append("activation_memory=0")
    size = "width" if config.width else "window_size"
    helps += [f"a smaller target_batch or {size}", "another device"]
    return f"try {', '.join(helps)} ({CHECK_MEMORY})"


def line(runs: Sequence[tuple[PlannedRun, Estimate]], slots: int) -> str:
    """The line that states the time and memory of the remaining steps, `slots` runs at a time."""
    seconds = [each.seconds * (1 - run.step / run.config.outer_steps) for run, each in runs]
    total = max(sum(seconds) / slots, max(seconds))
    remaining = [replace(each, seconds=n) for n, (_, each) in zip(seconds, runs, strict=True)]
    at_a_time = f"about {duration(total)} in all with {slots} at a time"
    scaled = " (scaled from fewer images)" if any(each.scaled for _, each in runs) else ""
    return f"estimate{scaled}: {costs(remaining)}, {at_a_time}"
