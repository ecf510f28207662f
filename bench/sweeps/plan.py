"""The plan of a sweep: what its runs will take, and how many of them fit into memory at a time."""

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from bench.config.run_config import Environment, RunConfig, experiment_identity
from bench.runs.run_folder import RunFolder
from bench.sweeps.cost_model import Estimate, Failure
from bench.sweeps.local_launcher import child_environment, environment_arguments
from bench.system.errors import UserError
from bench.system.machine import free_memory
from bench.system.text import count, duration

QUIET_SECONDS = 8.0  # measuring may take so long before it tells of each experiment
SHOWN_AFTER_SECONDS = 3.0  # what goes on for so long is named
SECONDS_TO_END = 3.0  # for the measuring process
ALL_THE_SAME = "check_memory=false starts all the same"


@dataclass(frozen=True)
class Planned:
    """A run of the sweep, its folder, and the outer steps that are done."""

    config: RunConfig
    folder: RunFolder
    step: int = 0


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


def settings_of(configs: Sequence[RunConfig]) -> tuple[str, list[str]]:
    """(what all runs have in common that is no default; for each run, what others have not)."""
    defaults, first = vars(RunConfig()), vars(configs[0])
    named = [key for key in first if key not in ("method", "seed", "scale")]
    varying = [key for key in named if any(vars(each)[key] != first[key] for each in configs)]
    common = [key for key in named if key not in varying and first[key] != defaults[key]]
    return written(configs[0], common), [written(each, varying) for each in configs]


def written(config: RunConfig, keys: Sequence[str]) -> str:
    """Some settings as one would type them."""
    told = []
    for key in keys:
        value = getattr(config, key)
        options = value.items() if isinstance(value, dict) else ()
        parts = {f"{key}.{option}": part for option, part in options} or {key: value}
        told += [
            f"{name}={str(part).replace(' ', '')}" for name, part in parts.items() if part != {}
        ]
    return " ".join(told)


def plan(
    to_do: Sequence[Planned],
    environment: Environment,
    slots: int,
    *,
    gpus: int = 0,
    asked: bool = False,
    check_memory: bool = True,
    needs_data: bool = True,
) -> int:
    """Print what the runs will take, and return how many to make at a time.

    Args:
        slots: how many at a time the processors allow.
        gpus: how many GPUs the runs are spread over.
        asked: the user asked for just that many.
        check_memory: whether to refuse what cannot fit into memory, and to make fewer at a time
            where all do not fit.
        needs_data: the runs begin now: their data are loaded first, and missing ones refused.

    Raises:
        UserError: some run cannot fit; or so many at a time cannot, and were asked for; or the data
            or the settings of some run cannot be used.
    """
    keys = [experiment_identity(run.config) for run in to_do]
    experiments = dict(zip(keys, (run.config for run in to_do), strict=True))
    told = f"measuring a few steps of {count(len(experiments), 'experiment')}"
    print(f"{told}, for a minute at most ...", flush=True)
    asking = measured(list(experiments.values()), environment, load=needs_data)
    found = dict(zip(experiments, asking, strict=False))
    unknown: dict[str, list[str]] = {}  # method by cause
    for key, failure in found.items():
        if isinstance(failure, Failure):
            method = experiments[key].method
            if failure.out_of_memory and check_memory:
                raise UserError(
                    f"{method} cannot take even a few steps: memory ran out"
                    f" ({failure.cause}); {remedies(experiments[key], environment)}"
                )
            unknown.setdefault(failure.cause, []).append(method)
    for cause, methods in unknown.items():
        # What breaks one experiment may spare the others, and their runs record it properly.
        print(f"no estimate of {', '.join(dict.fromkeys(methods))}: {cause}")
    runs = [
        (run, known)
        for key, run in zip(keys, to_do, strict=True)
        if isinstance(known := found.get(key), Estimate)
    ]
    slots = min(slots, len(to_do))
    if not runs:
        return slots
    if check_memory:
        slots = fit(runs, environment, slots, gpus=gpus, asked=asked)
    print(line(runs, slots), flush=True)
    return slots


def fit(
    runs: Sequence[tuple[Planned, Estimate]],
    environment: Environment,
    slots: int,
    *,
    gpus: int,
    asked: bool,
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
            f" {remedies(run.config, environment)}"
        )
    if fitting < slots:
        needed = f"about {gib(memory.need(estimates, slots))} GiB of memory and {free}"
        if asked:
            raise UserError(f"workers={slots} need {needed}: workers={fitting} fit; {ALL_THE_SAME}")
        print(f"memory: {fitting} at a time instead of {slots}, which need {needed}")
    return fitting


def remedies(config: RunConfig, environment: Environment) -> str:
    """What may help a run that does not fit, in the end of a sentence."""
    helps = []
    if config.engine == "higher":
        helps.append("engine=exact")
    elif environment.activation_memory not in ("auto", "0"):
        helps.append("activation_memory=0")
    size = "width" if config.width else "window_size"
    helps += [f"a smaller target_batch or {size}", "another device"]
    return f"try {', '.join(helps)} ({ALL_THE_SAME})"


def measured(
    configs: list[RunConfig], environment: Environment, load: bool
) -> Iterator[Estimate | Failure]:
    """What `bench.estimate` finds of each configuration, in its own process. Where that takes
    long, what it does and finds is printed. Ends early where the process does.

    Args:
        load: whether to load the data first.

    Raises:
        UserError: bad data or settings: no run could succeed.
    """
    command = [
        sys.executable,
        "-m",
        "bench.estimate",
        f"load={load}",
        *environment_arguments(environment),
    ]
    begun = time.monotonic()
    with (
        tempfile.TemporaryFile("w+") as asking,
        tempfile.TemporaryFile("w+") as errors,
    ):
        json.dump([asdict(config) for config in configs], asking)
        asking.seek(0)
        process = subprocess.Popen(
            command,
            stdin=asking,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment(),
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends that one
        )
        try:
            left = iter(configs)
            for told in lines_shown(process, begun):
                config = next(left)
                content = json.loads(told)
                found = Failure(**content) if "cause" in content else Estimate(**content)
                yield found
                if time.monotonic() - begun > QUIET_SECONDS and isinstance(found, Estimate):
                    print(f"  {config.method}: {costs([found])}", flush=True)
        finally:
            end(process)
        if process.returncode != 0:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["it ended without a word"])[-1]
            if process.returncode == 2:
                raise UserError(last.removeprefix("error: "))
            print(f"no estimate: {last}")


def lines_shown(process: "subprocess.Popen[str]", begun: float) -> Iterator[str]:
    """The lines of answers that a process prints. Those that say what it does are shown instead,
    where one thing goes on for some seconds."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for text in process.stdout:
            lines.put(text)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    doing = ""
    while True:
        try:
            text = lines.get(timeout=SHOWN_AFTER_SECONDS)
        except queue.Empty:
            if doing:
                print(f"  {time.monotonic() - begun:.0f} s: {doing}", flush=True)
            doing = ""
            continue
        if text is None:
            return
        content = json.loads(text)
        if "doing" in content:
            doing = content["doing"]
        elif "missing" in content:
            print(f"the runs will need data: {content['missing']}", flush=True)
        else:
            yield text


def end(process: "subprocess.Popen[str]") -> None:
    """Wait for a process that has closed its output; interrupt one that has not."""
    for ending in (lambda: None, lambda: process.send_signal(signal.SIGINT), process.kill):
        ending()
        try:
            process.wait(SECONDS_TO_END)
            return
        except subprocess.TimeoutExpired:
            continue


def line(runs: Sequence[tuple[Planned, Estimate]], slots: int) -> str:
    """The line that tells what is left to do, with `slots` runs at a time."""
    left = [known.seconds * (1 - run.step / run.config.outer_steps) for run, known in runs]
    total = max(sum(left) / slots, max(left))
    remaining = [
        Estimate(seconds, known.peak_bytes, known.shared_bytes, known.spare_bytes)
        for seconds, (_, known) in zip(left, runs, strict=True)
    ]
    at_a_time = f"about {duration(total)} in all with {slots} at a time"
    scaled = " (scaled from fewer images)" if any(known.scaled for _, known in runs) else ""
    return f"estimate{scaled}: {costs(remaining)}, {at_a_time}"


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
