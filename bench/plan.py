"""The plan of a sweep: what its runs will take, and how many of them fit into memory at a time."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from bench.config import Place, RunConfig, experiment_identity
from bench.costs import Estimate, Failure
from bench.errors import UserError
from bench.launch import child_environment, place_arguments
from bench.machine import free_memory
from bench.progress import progress_of
from bench.store import RunFolder
from bench.table import duration

QUIET_SECONDS = 8.0  # measuring may take so long before it tells of each experiment
ALL_THE_SAME = "check_memory=false starts all the same"


@dataclass(frozen=True)
class Planned:
    """A run of the sweep and its folder."""

    config: RunConfig
    folder: RunFolder


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
    to_do: Sequence[Planned],
    place: Place,
    slots: int,
    *,
    gpus: int = 0,
    asked: bool = False,
    check_memory: bool = True,
) -> int:
    """Print what the runs will take, and return how many to make at a time.

    Args:
        slots: how many at a time the processors allow.
        gpus: how many GPUs the runs are spread over.
        asked: the user asked for just that many.
        check_memory: whether to refuse what cannot fit into memory, and to make fewer at a time
            where all do not fit.

    Raises:
        UserError: some run cannot fit; or so many at a time cannot, and were asked for; or the data
            or the settings of some run cannot be used.
    """
    experiments = {experiment_identity(run.config): run.config for run in to_do}
    print(f"measuring a few steps of {count(len(experiments), 'experiment')} ...", flush=True)
    found = dict(zip(experiments, measured(list(experiments.values()), place), strict=False))
    for key, failure in found.items():
        if isinstance(failure, Failure):
            if failure.out_of_memory and check_memory:
                raise UserError(
                    f"{experiments[key].method} cannot take even a few steps: memory ran out"
                    f" ({failure.cause}); {remedies(experiments[key], place)}"
                )
            # What breaks one experiment may spare the others, and their runs record it properly.
            print(f"no estimate of {experiments[key].method}: {failure.cause}")
    runs = [
        (run, known)
        for run in to_do
        if isinstance(known := found.get(experiment_identity(run.config)), Estimate)
    ]
    slots = min(slots, len(to_do))
    if not runs:
        return slots
    if check_memory:
        slots = fit(runs, place, slots, gpus=gpus, asked=asked)
    print(line(runs, slots), flush=True)
    return slots


def fit(
    runs: Sequence[tuple[Planned, Estimate]], place: Place, slots: int, *, gpus: int, asked: bool
) -> int:
    """How many runs at a time fit into memory, up to `slots`; says so where they are fewer.

    Raises:
        UserError: as `plan`.
    """
    estimates = [known for _, known in runs if known.peak_bytes is not None]
    if not estimates:
        return slots
    on_gpu = estimates[0].gpu_free_bytes
    memory = Memory(free_memory()) if on_gpu is None else Memory(on_gpu, max(1, gpus))
    fitting = memory.fitting(estimates, slots)
    free = f"{gib(memory.free_bytes)} GiB are free{'' if on_gpu is None else ' on the GPU'}"
    if fitting == 0:
        run, largest = max(runs, key=lambda pair: pair[1].peak_bytes or 0)
        raise UserError(
            f"{run.config.method} (seed {run.config.seed}) needs about"
            f" {gib(memory.need([largest], 1))} GiB of memory and {free};"
            f" {remedies(run.config, place)}"
        )
    if fitting < slots:
        needed = f"about {gib(memory.need(estimates, slots))} GiB of memory and {free}"
        if asked:
            raise UserError(f"workers={slots} need {needed}: workers={fitting} fit; {ALL_THE_SAME}")
        print(f"memory: {fitting} at a time instead of {slots}, which need {needed}")
    return fitting


def remedies(config: RunConfig, place: Place) -> str:
    """What may help a run that does not fit, in the end of a sentence."""
    helps = []
    if config.engine == "higher":
        helps.append("engine=exact")
    elif place.activation_memory not in ("auto", "0"):
        helps.append("activation_memory=0")
    size = "width" if config.width else "window_size"
    helps += [f"a smaller target_batch or {size}", "another device"]
    return f"try {', '.join(helps)} ({ALL_THE_SAME})"


def measured(configs: list[RunConfig], place: Place) -> Iterator[Estimate | Failure]:
    """What `bench.estimate` finds of each configuration, in its own process. Where that takes
    long, each is printed. Ends early where the process does.

    Raises:
        UserError: bad data or settings: no run could succeed.
    """
    command = [sys.executable, "-m", "bench.estimate", *place_arguments(place)]
    begun = time.monotonic()
    with (
        tempfile.TemporaryFile("w+") as asking,
        tempfile.TemporaryFile("w+") as errors,
    ):
        json.dump([asdict(config) for config in configs], asking)
        asking.seek(0)
        with subprocess.Popen(
            command,
            stdin=asking,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment(),
            text=True,
        ) as process:
            assert process.stdout is not None
            for config, told in zip(configs, process.stdout, strict=False):
                content = json.loads(told)
                found = Failure(**content) if "cause" in content else Estimate(**content)
                yield found
                if time.monotonic() - begun > QUIET_SECONDS and isinstance(found, Estimate):
                    print(f"  {config.method}: {costs([found])}", flush=True)
        if process.returncode != 0:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["it ended without a word"])[-1]
            if process.returncode == 2:
                raise UserError(last.removeprefix("error: "))
            print(f"no estimate: {last}")


def line(runs: Sequence[tuple[Planned, Estimate]], slots: int) -> str:
    """The line that tells what is left to do, with `slots` runs at a time."""
    left = [
        known.seconds * (1 - progress_of(run.folder).step / run.config.outer_steps)
        for run, known in runs
    ]
    total = max(sum(left) / slots, max(left))
    remaining = [
        Estimate(seconds, known.peak_bytes, known.shared_bytes, known.spare_bytes)
        for seconds, (_, known) in zip(left, runs, strict=True)
    ]
    at_a_time = f"about {duration(total)} in all with {slots} at a time"
    return f"estimate: {costs(remaining)}, {at_a_time}"


def costs(estimates: Sequence[Estimate]) -> str:
    """`12 s to 31 s a run, 0.4 to 1.2 GiB each`; memory with what runs take where it is free."""
    seconds = [duration(each(one.seconds for one in estimates)) for each in (min, max)]
    peaks = [one.peak_bytes + one.spare_bytes for one in estimates if one.peak_bytes is not None]
    if not peaks:
        return f"{span(seconds)} a run, memory: not measured"
    return f"{span(seconds)} a run, {span([gib(min(peaks)), gib(max(peaks))])} GiB each"


def span(ends: Sequence[str]) -> str:
    """`a to b`, or `a` where both are the same."""
    return " to ".join(dict.fromkeys(ends))


def gib(n_bytes: float) -> str:
    """Bytes in GiB, to a tenth."""
    return f"{n_bytes / 2**30:,.1f}"


def count(number: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
