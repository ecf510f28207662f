"""What a run will take, from a few measured steps.

No outer step is measured whole: a long window could take minutes, or all memory. Measured are outer
steps of a few inner steps, and what one inner step more of a kind adds; a run's steps are those of
the windows that its method draws.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.batches import make_inner_optimizer
from bench.config import Place, RunConfig, images_per_class
from bench.costs import Estimate, Linear, Steps, fit
from bench.data import TargetSet
from bench.distill import Distillation
from bench.evaluation import FORWARD_BATCH, Trainee, evaluate_trainees
from bench.ingredients import (
    activation_budget,
    check_device,
    choose_device,
    load_data,
    settle_process,
)
from bench.memory import PeakMemory, is_measurable
from bench.metagrad import MeanLoss, make_derivatives
from bench.networks import initial_parameters
from bench.randomness import python_random, torch_generator
from bench.resolving import on_network
from methods import StatelessMethod, Window, make_method

FEW = 4  # inner steps more, to see what one costs
DRAWS = 200  # windows of a run that are looked at
SAMPLES = 10  # single-sample losses at a time
REPEATS, REPEAT_SECONDS = 3, 0.2  # after one to warm up, so often but not for longer
SLOW_SECONDS = 5.0  # what takes so long is not done twice
CUDA_CONTEXT_BYTES = 500 << 20  # what a process takes on a GPU before its first tensor, roughly


class OneWindow(StatelessMethod):
    """Not a method: the window that is measured."""

    def __init__(self, steps: Steps) -> None:
        super().__init__(steps.warm_up + steps.window, steps.window)
        self.window = Window(steps.warm_up, self.unroll_length)

    def next_window(self, step: int, rng: Any) -> Window:
        return self.window


def windows(config: RunConfig, draws: int = DRAWS) -> list[Window]:
    """Windows that the run's method will draw, at outer steps spread over the run.

    How the loss will run is not known: of a method that moves its window when learning stagnates
    half of them are those of a run that never does, half those of a run that always does.
    """
    drawn = []
    for stagnant in (False, True):
        method = make_method(
            config.method, config.unroll_length, config.window_size, config.method_options
        )
        every = max(1, config.outer_steps // draws)
        for step in range(config.outer_steps):
            if step % every == 0:
                rng = python_random(config.seed, "window", step // config.redraw_every)
                drawn.append(method.next_window(step, rng))
            if stagnant:
                method.observe(step, 1.0)
    return drawn


class Meter:
    """Seconds and memory of pieces of work on one device.

    Attributes:
        sees_memory: False where memory cannot be measured: it is 0 then.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sees_memory = is_measurable(device)

    def measure(self, work: Callable[[], object]) -> tuple[float, int]:
        """Median seconds and largest footprint of some repetitions. The first, which warms up,
        counts where it took so long that none follows."""
        if not self.sees_memory:
            return self._seconds(work), 0
        with PeakMemory(self.device) as peak:
            seconds = self._seconds(work)
        return seconds, peak.footprint_bytes

    def _seconds(self, work: Callable[[], object]) -> float:
        seconds: list[float] = []
        while len(seconds) < 2 or (len(seconds) <= REPEATS and sum(seconds) < REPEAT_SECONDS):
            started = time.perf_counter()
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
            if sum(seconds) > SLOW_SECONDS:
                break
        return statistics.median(seconds[1:] or seconds)


class Measurement:
    """The parts of one run, measured.

    Args:
        budget: bytes of activations that the run may keep.
    """

    def __init__(self, config: RunConfig, target_set: TargetSet, budget: int) -> None:
        # A boosted set is measured as if all blocks were there from the beginning: an upper bound.
        self.config, self.target_set = replace(config, boost_block=0), target_set
        config = self.config
        self.device = target_set.train.images.device
        self.meter = Meter(self.device)
        self.recomputing = Distillation(config, target_set, 0)
        self.copies_bytes, kept_bytes = self._bytes_per_step()
        self.affordable = budget // kept_bytes if config.engine == "exact" else 0
        self.keeping = Distillation(config, target_set, budget)

    def _bytes_per_step(self) -> tuple[int, int]:
        """What a step of the window holds: (parameters, optimiser state and gradient; activations
        of an inner batch)."""
        one = self.recomputing
        drawn = initial_parameters(one.network, torch_generator(self.config.seed, "estimate"))
        loss = MeanLoss(make_derivatives(one.network))
        theta = loss.derivatives.flatten(
            {name: value.to(one.images) for name, value in drawn.items()}
        )
        state = make_inner_optimizer(self.config).initial_state(theta)
        classes = len(self.target_set.classes)
        batch = min(self.config.inner_classes or classes, classes) * (
            self.config.inner_ipc or images_per_class(self.config)
        )
        kept = loss.linearization_bytes(theta, one.images[:batch], one.labels[:batch])
        return (2 + len(state)) * theta.nbytes, max(kept, 1)

    def outer_step(self) -> tuple[Linear, Linear]:
        """Seconds and footprint of an outer step that keeps nothing.

        What an inner step adds is seen with a single target image; the target batch takes as long
        at every window, and is measured once.
        """
        points = (Steps(0, 1), Steps(FEW, 1), Steps(0, 1 + FEW))
        measured = {steps: self._outer_step(steps, target_batch=1) for steps in points}
        whole = self._outer_step(points[0], self.config.target_batch)
        lines = []
        for part, least in ((0, 0.0), (1, float(self.copies_bytes))):
            line = fit({steps: value[part] for steps, value in measured.items()}, least)
            target = max(whole[part] - measured[points[0]][part], 0)
            lines.append(replace(line, constant=line.constant + target))
        return lines[0], lines[1]

    def kept_step(self) -> tuple[float, float]:
        """Seconds that a step saves (negative) and bytes that it adds where its activations are
        kept. To be measured last: an allocator does not give everything back."""
        if not self.affordable:
            return 0.0, 0.0
        longer = Steps(0, 1 + FEW)
        kept = min(longer.window, self.affordable)
        without = self._outer_step(longer, target_batch=1)
        with_kept = self._outer_step(replace(longer, kept=kept), target_batch=1)
        saved, taken = ((b - a) / kept for a, b in zip(without, with_kept, strict=True))
        return min(saved, 0.0), max(taken, 0.0)

    def _outer_step(self, steps: Steps, target_batch: int) -> tuple[float, int]:
        distillation = self.keeping if steps.kept else self.recomputing
        distillation.method = OneWindow(steps)
        distillation.config = replace(self.config, target_batch=target_batch)
        return self.meter.measure(distillation.outer_step)

    def variance(self, warm_up: float) -> tuple[Linear, Linear]:
        """Seconds and footprint of a normalised variance.

        Args:
            warm_up: seconds of a step of the warm-up, which is that of an outer step.
        """
        samples = min(SAMPLES, self.config.variance_samples)
        distillation = self.recomputing
        distillation.config = replace(self.config, variance_samples=samples)
        measured = {}
        for steps in (Steps(0, 1), Steps(0, 1 + FEW)):
            distillation.method = OneWindow(steps)
            measured[steps] = self.meter.measure(distillation.normalized_variance)
        line = fit({steps: value[0] for steps, value in measured.items()})
        times = self.config.variance_samples / samples
        seconds = Linear(times * line.constant, warm_up, times * line.window)
        n_bytes = fit({steps: value[1] for steps, value in measured.items()}, self.copies_bytes)
        return seconds, n_bytes

    def evaluation(self, config: RunConfig) -> tuple[float, float, int]:
        """Seconds of one training step of a fresh network on the distilled set and of measuring
        its accuracy; and the footprint. `config` is the run's, or names another network."""
        return self._evaluation(config, self.recomputing.images, self.recomputing.labels, 0)

    def evaluation_of_all(self) -> tuple[float, float, int]:
        """The same on the full training set."""
        train = self.target_set.train
        labels = F.one_hot(train.labels, len(self.target_set.classes)).to(train.images)
        return self._evaluation(self.config, train.images, labels, self.config.full_batch)

    def _evaluation(
        self, config: RunConfig, images: Tensor, labels: Tensor, batch_size: int
    ) -> tuple[float, float, int]:
        parts = {}
        for name in ("validation", "test"):
            split = getattr(self.target_set, name)
            parts[name] = replace(
                split, images=split.images[:FORWARD_BATCH], labels=split.labels[:FORWARD_BATCH]
            )
        some = replace(self.target_set, **parts)
        share = (len(some.validation) + len(some.test)) / (
            len(self.target_set.validation) + len(self.target_set.test)
        )

        footprints = []

        def train(networks: int, steps: int) -> float:
            trainees = [Trainee(images, labels, (k,), batch_size) for k in range(networks)]

            def work() -> None:
                evaluate_trainees(config, some, trainees, [steps], "estimate")

            seconds, n_bytes = self.meter.measure(work)
            footprints.append(n_bytes)
            return seconds / networks

        few = train(1, 1)
        # Networks that are trained at once take less time each, and more memory.
        networks = self.config.evaluation_networks if few < REPEAT_SECONDS else 1
        if networks > 1:
            few = train(networks, 1)
        step = max(train(networks, 1 + FEW) - few, 0.0) / FEW
        return step, max(few - step, 0.0) / share, max(footprints)


def estimate(
    config: RunConfig, target_set: TargetSet, drawn: list[Window], budget: int
) -> Estimate:
    """What a run will take, its windows being like those `drawn`."""
    parts = Measurement(config, target_set, budget)
    windows_of_run = [Steps(window.start, window.size) for window in drawn]
    kept = [min(steps.window, parts.affordable) for steps in windows_of_run]
    seconds, n_bytes = parts.outer_step()
    total, peak = 0.0, max(n_bytes.at(steps) for steps in windows_of_run)
    if config.variance_every:
        variance, variance_bytes = parts.variance(seconds.warm_up)
        one = statistics.fmean(variance.at(steps) for steps in windows_of_run)
        total += -(-config.outer_steps // config.variance_every) * one
        peak = max(peak, *(variance_bytes.at(steps) for steps in windows_of_run))
    step, measuring, footprint = parts.evaluation(config)
    if config.accuracy_every:
        one = config.accuracy_networks * (config.accuracy_steps * step + measuring)
        total += (-(-config.outer_steps // config.accuracy_every) + 1) * one
    evaluations = config.ipc // config.boost_block if config.boost_block else 1
    if config.scores:  # random real images; and, where labels are learned, both with hard ones
        evaluations += 3 if config.learn_labels else 1
    total += evaluations * _final(config, step, measuring, config.evaluation_steps)
    for arch in config.transfer_to:
        step, measuring, n_bytes = parts.evaluation(on_network(config, arch))
        total += _final(config, step, measuring, config.evaluation_steps)
        footprint = max(footprint, n_bytes)
    if config.scores:
        step, measuring, n_bytes = parts.evaluation_of_all()
        total += _final(config, step, measuring, config.full_steps or config.evaluation_steps)
        footprint = max(footprint, n_bytes)
    kept_seconds, kept_bytes = parts.kept_step()
    seconds = replace(seconds, kept=max(kept_seconds, -seconds.window))
    total += config.outer_steps * statistics.fmean(
        seconds.at(replace(steps, kept=n)) for steps, n in zip(windows_of_run, kept, strict=True)
    )
    return Estimate(
        total,
        int(max(peak, footprint)) if parts.meter.sees_memory else None,
        spare_bytes=int(kept_bytes * max(kept)),
    )


def _final(config: RunConfig, step: float, measuring: float, steps: list[int]) -> float:
    """Seconds of an evaluation at the end of a run."""
    return config.evaluation_networks * (max(steps) * step + len(steps) * measuring)


def whole_estimate(
    config: RunConfig, place: Place, begun: Callable[[], object] = lambda: None
) -> Estimate:
    """What a run will take: everything, from its data on.

    Args:
        begun: called when the method has named its windows, before memory is taken.
    """
    torch.set_num_threads(place.threads or torch.get_num_threads())
    settle_process()
    device = choose_device(place.device)
    check_device(config, device)
    drawn = windows(config)
    begun()
    target_set = load_data(config, place, device)
    parts = (target_set.train, target_set.validation, target_set.test)
    data_bytes = sum(part.images.nbytes for part in parts)
    free = torch.cuda.mem_get_info(device)[0] + data_bytes if device.type == "cuda" else None
    found = estimate(config, target_set, drawn, activation_budget(place, device))
    peak = found.peak_bytes
    if place.activation_memory != "auto" and peak is not None:  # asked for, so not to spare
        found = replace(found, peak_bytes=peak + found.spare_bytes, spare_bytes=0)
    if free is None:
        # The cache holds float32; another type is a copy of the process's own.
        return replace(found, shared_bytes=data_bytes if config.precision == "float32" else 0)
    return replace(
        found,
        peak_bytes=None if found.peak_bytes is None else found.peak_bytes + CUDA_CONTEXT_BYTES,
        gpu_free_bytes=free + CUDA_CONTEXT_BYTES,
    )
