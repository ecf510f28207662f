"""The time and memory of a run: the measured cost of its parts (`cost_measurement.py`), times how
often each part occurs.

The number of inner steps follows from a sample of the windows that the method will draw.
"""

import statistics
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace

import torch

from bench.config.identity import images_per_class
from bench.config.resolve import on_network
from bench.config.run_config import Environment, RunConfig
from bench.evaluation.fresh_networks import FORWARD_BATCH
from bench.metagrad import storage_type
from bench.metagrad.flat import map_bytes, multiply_adds
from bench.networks import build_network
from bench.runs.measurements import variance_steps
from bench.sweeps.cost_measurement import IMAGE_COPIES, Measurement
from bench.sweeps.cost_model import Estimate, Linear, Parts, Steps, Trained
from bench.sweeps.placeholder_data import (
    data_bytes,
    image_shape,
    measured_images,
    random_target_set,
)
from bench.system.choices import SHAPES
from bench.training.randomness import python_random
from bench.training.setup import (
    activation_budget,
    check_device,
    choose_device,
    method_of,
    settle_process,
)
from methods import (
    Window,
    imagine_probe,
    imagine_step,
    needs_evaluations,
    observes_probes,
)

SAMPLED_WINDOWS = 200
CUDA_CONTEXT_BYTES = 500 << 20  # what a process takes on a GPU before its first tensor, roughly

# Settings that change how often something is done, or with which numbers, but not what it costs.
# Runs that differ only in these are measured once. A new setting that is not listed is measured
# apart: that costs time, but is never wrong.
WITHOUT_COST = (
    *("method", "window_size", "unroll_length", "method_options", "window_resample_every"),
    *("clipping", "clipped", "clip_ratio", "clip_decay", "seed", "scale", "zca", "zca_lambda"),
    *("boost_block", "boost_beta", "outer_steps", "outer_lr", "accuracy_every"),
    *("inner_lr", "inner_momentum", "inner_eps", "inner_weight_decay", "evaluation_lr"),
    *("inner_decay_steps", "inner_decay_factor", "accuracy_networks", "accuracy_steps"),
    *("evaluation_steps", "full_train_steps", "variance_until"),
)


def measured_alike(config: RunConfig) -> str:
    """A key that is equal for runs whose parts cost the same."""
    settings = {key: value for key, value in vars(config).items() if key not in WITHOUT_COST}
    settings["variance_every"] = config.variance_every > 0
    return str(settings)


def sample_windows(config: RunConfig, number: int = SAMPLED_WINDOWS) -> list[Window]:
    """Windows that the run's method will draw, at outer steps spread over the run.

    The course of the loss is not known: for methods that move the window when learning stagnates,
    half of the sample is from a run that never stagnates, half from one that always does.
    """
    sample = []
    for stagnant in (False, True):
        method = method_of(config)
        every = max(1, config.outer_steps // number)
        for step in range(config.outer_steps):
            if (
                step % every == 0
            ):  # all imagined probes are alike: one before each sampled step will do
                imagine_probe(method, step, config.unroll_length)
                rng = python_random(config.seed, "window", step // config.window_resample_every)
                sample.append(method.next_window(step, rng))
            if stagnant:
                imagine_step(method, step, sample[-1], 1.0)
                if needs_evaluations(method) and step % config.accuracy_every == 0:
                    method.observe_evaluation(step, 1.0)
    return sample


def measured_parts(
    config: RunConfig,
    environment: Environment,
    seconds: float,
    report: Callable[[str], object] = lambda part: None,
) -> Parts:
    """Measure the cost of the parts of a run.

    Args:
        seconds: how long measuring may take, roughly.
        report: called with the name of each part before it is measured.

    Raises:
        UserError: the settings cannot be used here.
    """
    torch.set_num_threads(environment.threads or torch.get_num_threads())
    settle_process()
    device = choose_device(environment.device)
    check_device(config, device)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    report("the network")
    target_set = random_target_set(config, device)
    # On a CPU it is in the memory of this process; a run's own is a mapped file.
    own_bytes = sum(
        part.images.nbytes for part in (target_set.train, target_set.validation, target_set.test)
    )
    parts = Measurement(config, target_set, activation_budget(environment, device), seconds)
    report("outer steps")
    step, step_bytes = parts.outer_step()
    variance = variance_bytes = None
    if config.variance_every:
        report("normalized variances")
        variance, variance_bytes = parts.variance(step.warm_up)
    report("evaluations")
    networks = {config.arch: config}
    networks |= {arch: on_network(config, arch) for arch in config.transfer_to}
    share = 1 / (len(networks) + config.scores)
    trained = {arch: parts.evaluation(each, share) for arch, each in networks.items()}
    full = parts.evaluation_of_all(share) if config.scores else None
    footprints = [n_bytes for _, n_bytes in [*trained.values(), *([full] if full else [])]]
    report("activations")
    kept_seconds, kept_bytes = parts.kept_step()
    return Parts(
        step=replace(step, kept=max(kept_seconds, -step.window)),
        step_bytes=_less(replace(step_bytes, kept=kept_bytes), own_bytes),
        variance=variance,
        variance_bytes=variance_bytes and _less(variance_bytes, own_bytes),
        trained={arch: seconds for arch, (seconds, _) in trained.items()},
        full=full[0] if full else None,
        evaluation_bytes=max(footprints) - own_bytes,
        affordable=parts.affordable,
        data_bytes=data_bytes(config),
        sees_memory=parts.meter.sees_memory,
        scaled=parts.scaled,
        gpu_free_bytes=free,
    )


def _less(line: Linear, n_bytes: int) -> Linear:
    return replace(line, constant=line.constant - n_bytes)


@dataclass(frozen=True)
class Size:
    """The sizes that determine the cost of a run's parts.

    Attributes:
        operations: multiply-adds of a forward pass of an inner batch.
        theta_bytes: of the network's parameters.
        map_bytes: of an image's largest maps.
        image_bytes: of an image of the target set.
    """

    operations: int
    theta_bytes: int
    map_bytes: int
    image_bytes: int

    @classmethod
    def of(cls, config: RunConfig) -> "Size":
        """Of a run, from its settings alone."""
        classes, shape = SHAPES[config.dataset][0], image_shape(config)
        network = build_network(
            config.arch,
            image_shape=shape,
            classes=classes,
            width=config.width,
            depth=config.depth,
            conv_bias=config.conv_bias,
        )
        images = min(config.inner_classes or classes, classes) * (
            config.inner_ipc or images_per_class(config)
        )
        image = torch.empty(shape)
        theta_bytes = sum(parameter.nbytes for parameter in network.parameters())
        operations = images * multiply_adds(network, image)
        return cls(operations, theta_bytes, map_bytes(network, image), image.nbytes)


def predicted_parts(parts: Parts, measured: RunConfig, config: RunConfig) -> Parts:
    """The parts of a run that there is no time to measure, from those of another run with the same
    engine: time is proportional to operations, memory to the size of what is stored."""
    size, other = Size.of(config), Size.of(measured)
    times, copies = size.operations / other.operations, size.theta_bytes / other.theta_bytes
    maps = 2 * FORWARD_BATCH * (size.map_bytes - other.map_bytes)
    target = IMAGE_COPIES * (
        config.target_batch * size.image_bytes - measured.target_batch * other.image_bytes
    )

    def seconds(line: Linear | None) -> Linear | None:
        return line and Linear(*(times * part for part in astuple(line)))

    def n_bytes(line: Linear | None) -> Linear | None:
        return line and replace(
            line, constant=line.constant + target, window=line.window * copies, kept=0.0
        )

    step, step_bytes = seconds(parts.step), n_bytes(parts.step_bytes)
    assert step is not None
    assert step_bytes is not None
    network = parts.trained[measured.arch]
    trained = {}
    for arch in (config.arch, *config.transfer_to):
        factor = Size.of(on_network(config, arch)).operations / other.operations
        trained[arch] = Trained(network.step * factor, network.measuring * factor)
    return replace(
        parts,
        step=step,
        step_bytes=step_bytes,
        variance=seconds(parts.variance) if config.variance_every else None,
        variance_bytes=n_bytes(parts.variance_bytes) if config.variance_every else None,
        trained=trained,
        full=trained[config.arch] if config.scores else None,
        evaluation_bytes=parts.evaluation_bytes + max(maps, 0),
        affordable=0,
        data_bytes=data_bytes(config),
        scaled=True,
    )


def run_seconds(config: RunConfig, sample: list[Window], parts: Parts) -> float:
    """Seconds of the whole run, from a sample of its windows."""
    steps = [Steps(w.start, w.size, min(w.size, parts.affordable)) for w in sample]
    total = config.outer_steps * statistics.fmean(map(parts.step.at, steps))
    if parts.variance is not None:
        one = statistics.fmean(parts.variance.at(each) for each in steps)
        total += len(variance_steps(config)) * one
    method = method_of(config)
    if observes_probes(method):
        probes = sum(map(method.needs_probe, range(config.outer_steps)))
        total += probes * config.unroll_length * parts.step.warm_up
    trained = parts.trained[config.arch]
    if config.accuracy_every:
        between = _between_steps(config, trained)
        one = between.seconds(config.accuracy_networks, [config.accuracy_steps])
        total += (-(-config.outer_steps // config.accuracy_every) + 1) * one
    evaluations = config.ipc // config.boost_block if config.boost_block else 1
    if config.scores:  # random real images; and, where labels are learned, both with hard ones
        evaluations += 3 if config.learn_labels else 1
    finals = dict.fromkeys(config.transfer_to, 1) | {config.arch: evaluations}
    for arch, times in finals.items():
        one = parts.trained[arch].seconds(config.evaluation_networks, config.evaluation_steps)
        total += times * one
    if parts.full is not None:
        steps_at = config.full_train_steps or config.evaluation_steps
        total += parts.full.seconds(config.evaluation_networks, steps_at)
    return total


def _between_steps(config: RunConfig, trained: Trained) -> Trained:
    """A network that is measured between outer steps: on the training part too, if the method needs
    it."""
    selects = config.selection == "train"
    images = measured_images(config, selects or needs_evaluations(method_of(config)))
    return replace(trained, measuring=trained.measuring * images / measured_images(config, selects))


def estimate(
    config: RunConfig, sample: list[Window], parts: Parts, environment: Environment
) -> Estimate:
    """Time and memory of the whole run, from a sample of its windows."""
    seconds = run_seconds(config, sample, parts)
    if not parts.sees_memory:
        return Estimate(seconds, None, scaled=parts.scaled)
    steps = [Steps(w.start, w.size) for w in sample]
    peak = max(parts.evaluation_bytes, *map(parts.step_bytes.at, steps))
    if parts.variance_bytes is not None:
        peak = max(peak, *map(parts.variance_bytes.at, steps))
    spare = parts.step_bytes.kept * min(max(w.size for w in sample), parts.affordable)
    if environment.activation_memory != "auto":  # the user wants it, so it is not spare
        peak, spare = peak + spare, 0.0
    free, shared = parts.gpu_free_bytes, 0
    if free is None and storage_type(config.precision) == torch.float32:
        shared = parts.data_bytes  # the cache holds float32: it is mapped
    else:
        peak += parts.data_bytes
    if free is not None:
        peak, free = peak + CUDA_CONTEXT_BYTES, free + CUDA_CONTEXT_BYTES
    return Estimate(seconds, int(peak), shared, int(spare), free, parts.scaled)
