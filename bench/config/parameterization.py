"""What the settings of a distilled set mean together: its parameterization within the budget, its
inner batches, its blocks."""

from dataclasses import replace
from typing import Any

from bench.config.identity import images_per_class
from bench.config.run_config import RunConfig
from bench.config.storage_budget import Budget, nominal_budget
from bench.system.choices import SHAPES
from bench.system.errors import UserError

# The settings that only one parameterization reads, with their defaults. Those of `linear` are
# older than this rule: sets of pixels keep them as they were given, or runs would be renamed.
OF_ONE: dict[str, dict[str, Any]] = {
    "linear": {"basis_images": 0, "basis_downsample": 2, "decoded_ipc": 0},
    "idc": {"idc_factor": 2},
    "haba": {"haba_hallucinators": 5, "haba_bases": 0, "haba_single_channel": False},
}


def shortest_parameterization(config: RunConfig) -> RunConfig:
    """The same set with one value for what makes no difference: the settings of other
    parameterizations have their defaults, and the number of bases of a `haba` set is stated.

    Raises:
        UserError: a `haba` set exceeds the budget.
    """
    unread = dict(OF_ONE)
    unread.pop(config.parameterization, None)
    if config.parameterization == "pixels":
        unread.pop("linear")
    config = replace(config, **{k: v for values in unread.values() for k, v in values.items()})
    if config.parameterization != "haba":
        return config
    if SHAPES[config.dataset].channels == 1:
        config = replace(config, haba_single_channel=False)
    try:
        return replace(config, haba_bases=haba_bases(config, _budget(config)))
    except ValueError as error:
        raise UserError(str(error)) from error


def haba_bases(config: RunConfig, budget: Budget) -> int:
    """The number of bases per class of a `haba` set.

    Raises:
        ValueError: they exceed the budget.
    """
    return budget.haba_bases(
        config.haba_bases, config.haba_hallucinators, config.haba_single_channel
    )


def _budget(config: RunConfig) -> Budget:
    return nominal_budget(
        config.dataset,
        config.image_size,
        config.ipc,
        config.learn_labels,
        config.basis_downsample,
    )


def check_distilled_set(config: RunConfig) -> None:
    """Reject invalid combinations of the settings of the distilled set.

    Raises:
        UserError: names the settings.
    """
    if config.inner_classes > (classes := SHAPES[config.dataset].classes):
        raise UserError(
            f"inner_classes={config.inner_classes} is more than the {classes} classes of"
            f" {config.dataset}"
        )
    count = images_per_class(config)
    try:
        _check_storage(config, count)
    except ValueError as error:
        raise UserError(str(error)) from error
    name = f"parameterization={config.parameterization}"
    if config.inner_ipc > count:
        decoded = f"the {count} images per class of {name}"
        named = {"linear": f"decoded_ipc={count}", "pixels": f"ipc={count}"}
        most = named.get(config.parameterization, decoded)
        raise UserError(f"inner_ipc={config.inner_ipc} is more than {most}")
    if config.parameterization == "linear" and config.init != "noise":
        raise UserError(
            f"init={config.init}: {name} learns no single images and supports init=noise only"
        )
    if config.boost_block:
        if config.parameterization != "pixels":
            raise UserError(f"boost_block adds single images, and {name} does not learn any")
        _check_blocks(config)


def _check_storage(config: RunConfig, count: int) -> None:
    """Raises a ValueError where the set cannot be stored, or exceeds the budget.

    Args:
        count: images per class.
    """
    budget = _budget(config)
    match config.parameterization:
        case "linear":
            budget.bases(config.basis_images, count)
        case "idc":
            budget.part_shape(config.idc_factor)
        case "haba":
            haba_bases(config, budget)


def _check_blocks(config: RunConfig) -> None:
    if config.ipc % config.boost_block:
        raise UserError(f"ipc={config.ipc} is not a multiple of boost_block={config.boost_block}")
    if config.outer_steps < (blocks := config.ipc // config.boost_block):
        raise UserError(
            f"outer_steps={config.outer_steps} are too few for {blocks} blocks"
            f" (boost_block={config.boost_block})"
        )
