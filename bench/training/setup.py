"""What a run needs before it can start: its device, target set, network and inner optimizer."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from bench.config.evaluation_optimizer import as_inner
from bench.config.objectives import UNROLLED
from bench.config.run_config import Environment, RunConfig
from bench.config.values import Range, convert, shown
from bench.data import TargetSet, load_target_set
from bench.metagrad import SGD, Adam, InnerOptimizer, compile_error, storage_type
from bench.networks import build_network
from bench.system.errors import UserError
from bench.system.machine import cpu_cores, free_memory, keep_freed_memory
from methods import Method, make_method

COMPILING_BYTES = 1 << 30  # what is compiled for one network and batch takes some 100 MB


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # of "meta" there are only shapes
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
        why = f" ({str(error).splitlines()[0]})" if name.startswith("cuda") else ""
        raise UserError(
            f"device={shown(name)} cannot be used{why}; this machine has {', '.join(there)}"
        ) from error
    return device


def check_device(config: RunConfig, device: torch.device) -> None:
    """Raise UserError if the device lacks something that the run needs."""
    if config.engine == "higher" and config.precision == "tf32" and device.type != "cuda":
        raise UserError("engine=higher takes precision=tf32 from a GPU, and this run has none")


def settle_process() -> None:
    """Set what holds for the whole process: float32 means float32 on a GPU too (by default torch's
    convolutions use TF32, with 10 bits of mantissa), and freed memory stays with the process."""
    torch.backends.fp32_precision = "ieee"  # pyright: ignore[reportAttributeAccessIssue]
    keep_freed_memory()


def activation_budget(environment: Environment, device: torch.device) -> int:
    """Bytes of activations that the exact engine may keep: `activation_memory` in GiB, or, for
    "auto", a quarter of the memory that is free now, because the allocator was seen to take nearly
    twice what it was asked for. On a CPU a run gets the share of that quarter that its threads are
    of the cores. The budget changes the speed, and no number.

    Raises:
        UserError: `activation_memory` is neither "auto" nor a number of GiB.
    """
    if environment.activation_memory != "auto":
        key, gib = "activation_memory", environment.activation_memory
        try:
            return int(convert(key, gib, float, Range(minimum=0)) * 2**30)
        except ValueError as error:
            raise UserError(f"{key}={shown(gib)} is neither auto nor a number of GiB") from error
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    share = min(1.0, torch.get_num_threads() / cpu_cores())
    return int(free_memory() * share / 4)


def compiles(config: RunConfig, environment: Environment, device: torch.device) -> bool:
    """Whether the exact engine compiles its steps in this run, by `environment.compile`. Compiled
    code rounds differently, so a resumed run keeps what it started with.

    Raises:
        UserError: compile=always, and torch.compile does not work here.
    """
    if config.engine != "exact" or environment.compile == "never":
        return False
    # On a CPU compiling gains little over keeping activations, and takes minutes at the start.
    if environment.compile == "auto" and device.type != "cuda":
        return False
    find_room_to_compile(Path(environment.cache_root) / "compiling")
    why_not = compile_error(device)
    if why_not and environment.compile == "always":
        raise UserError(f"compile=always: torch.compile does not work here: {why_not}")
    return not why_not


def find_room_to_compile(folder: Path) -> None:
    """Move temporary files to `folder` if it has room for compilers and compiled code and the
    default place has not (a small tmpfs, as in many containers)."""
    with suppress(OSError):
        if shutil.disk_usage(tempfile.gettempdir()).free >= COMPILING_BYTES:
            return
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free >= COMPILING_BYTES:
            os.environ["TMPDIR"] = str(folder)  # for compilers, and for Python once it looks again
            tempfile.tempdir = None


def load_data(config: RunConfig, environment: Environment, device: torch.device) -> TargetSet:
    """The run's target set, on the device. No validation part is held out if selection=test, which
    is a published protocol; selection=train is one with validation_fraction=0.

    Raises:
        UserError: as `load_target_set`, or nothing is held out that could select.
    """
    target_set = load_target_set(
        config.dataset,
        data_root=Path(environment.data_root),
        cache_root=Path(environment.cache_root),
        zca=config.zca,
        zca_lambda=config.zca_lambda,
        validation_fraction=0.0 if config.selection == "test" else config.validation_fraction,
        image_size=config.image_size,
    )
    # The accuracy on no image is NaN, and no set is better than the first one, which is noise.
    if config.selection == "validation" and not len(target_set.validation):
        images = len(target_set.train)
        raise UserError(
            f"validation_fraction={config.validation_fraction:g} holds out none of the {images:,}"
            f" training images, and selection=validation needs some: give at least {1 / images:.2g}"
        )
    return target_set.to(device, storage_type(config.precision))


def make_network(config: RunConfig, target_set: TargetSet) -> nn.Module:
    """The network of `config` for the images of `target_set`.

    Raises:
        UserError: the images are too small for the network.
    """
    try:
        return build_network(
            config.arch,
            image_shape=target_set.image_shape,
            classes=len(target_set.classes),
            width=config.width,
            depth=config.depth,
            conv_bias=config.conv_bias,
        )
    except ValueError as error:
        small = config.image_size == 0 and min(target_set.image_shape[1:]) < 32
        remedy = "; image_size=32 enlarges them" if small else ""
        raise UserError(f"{error}{remedy}") from error


def make_inner_optimizer(config: RunConfig) -> InnerOptimizer:
    """The inner optimizer of a configuration."""
    decay = {
        "decay_steps": tuple(config.inner_decay_steps),
        "decay_factor": config.inner_decay_factor,
    }
    if config.inner_optimizer == "sgd":
        return SGD(config.inner_lr, config.inner_momentum, config.inner_weight_decay, **decay)
    return Adam(
        config.inner_lr,
        eps=config.inner_eps,
        eps_form=config.inner_eps_form,
        weight_decay=config.inner_weight_decay,
        **decay,
    )


def method_of(config: RunConfig) -> Method:
    """The method of a run in its initial state; for another objective one that always places the
    same window, which is not used."""
    if config.objective != UNROLLED:
        return make_method("bptt", 1, 1)
    return make_method(
        config.method, config.unroll_length, config.window_size, config.method_options
    )


def make_evaluation_optimizer(config: RunConfig) -> InnerOptimizer:
    """The optimizer that trains fresh networks in every evaluation (`evaluation_optimizer`)."""
    return make_inner_optimizer(as_inner(config))
