"""Settings become a complete, valid configuration, or a `UserError` says why they cannot."""

from dataclasses import asdict, replace
from typing import Any

from bench.config.command_line import typed, unknown_key
from bench.config.evaluation_optimizer import check_evaluation, shortest_evaluation
from bench.config.objectives import OBJECTIVES, UNROLLED
from bench.config.parameterization import check_distilled_set, shortest_parameterization
from bench.config.run_config import RunConfig
from bench.config.values import convert, plain
from bench.system.choices import SHAPES, SIZED_ARCHITECTURES, SMALLEST_SIDES, UNBIASED_ARCHITECTURES
from bench.system.errors import UserError
from methods import (
    make_method,
    method_defaults,
    method_kinds,
    needs_evaluations,
    options_before,
)

# Further evaluations at the end of a run; a single evaluation does neither.
NOT_OF_AN_EVALUATION: dict[str, Any] = {"transfer_to": [], "scores": False}

# What only the unrolled objective reads, beside the method.
OF_THE_UNROLLED = (
    *("window_size", "unroll_length", "method_options", "window_resample_every"),
    *("outer_loss", "engine", "variance_every", "variance_until", "variance_samples"),
)
OF_TARGET_BATCHES = ("target_batch", "augment_target")


def resolve(settings: dict[str, Any]) -> RunConfig:
    """The complete configuration of some settings. The defaults of the method's options are filled
    in, so that a change of a default changes the run's identity; an option that was added later is
    left out at the value that reproduces what was done before. What makes no difference has one
    value, whatever scale and grid say: a network that has one size gets width 0 and depth 0,
    `clipped` is "all" where nothing but images is clipped, and so on. So one computation has one
    identity, and a setting that was added later renames no run that it does not change.

    This is done once, where settings come in: folders and files keep the resolved configuration.

    Raises:
        UserError: a value of the wrong type or an invalid combination.
    """
    config = typed(RunConfig, settings)
    if config.objective != UNROLLED:
        config = _of_other_objective(config)
        return _canonical(config)
    if config.objective_options:
        raise UserError("objective_options: objective=unrolled has none")
    if config.method in OBJECTIVES:
        raise UserError(f"method={config.method} is an objective: give objective={config.method}")
    try:
        defaults, before = method_defaults(config.method), options_before(config.method)
    except ValueError as error:
        raise UserError(str(error)) from error
    options = {**defaults, **converted_options(config, defaults)}
    written = {k: v for k, v in options.items() if k not in before or v != before[k]}
    return _canonical(replace(config, method_options=written))


def _canonical(config: RunConfig) -> RunConfig:
    """The same with one value for what makes no difference, and checked."""
    if config.arch not in SIZED_ARCHITECTURES:
        config = replace(config, width=0, depth=0)
    config = _conv_bias_where_it_matters(config)
    if not config.learn_labels or config.clipping == "none":
        config = replace(config, clipped="all")
    if not config.variance_every or config.variance_until >= config.outer_steps:
        config = replace(config, variance_until=0)
    if config.outer_optimizer == "adam":
        config = replace(config, outer_momentum=0.0)
    config = shortest_evaluation(shortest_parameterization(config))
    check(config)
    return config


def _of_other_objective(config: RunConfig) -> RunConfig:
    """A run that follows another objective: it goes by the objective's name instead of a method's,
    and what only the unrolled objective reads has one value."""
    options = OBJECTIVES[config.objective]
    try:
        chosen = typed(options, config.objective_options)
    except UserError as error:
        raise UserError(f"objective_options.{error}") from error
    defaults = RunConfig()
    unread = (*OF_THE_UNROLLED, *(() if options.takes_target_batch else OF_TARGET_BATCHES))
    return replace(
        config,
        **{key: getattr(defaults, key) for key in unread} | {"variance_every": 0},
        method=config.objective,
        objective_options=asdict(chosen),
    )


def converted_options(config: RunConfig, defaults: dict[str, Any]) -> dict[str, Any]:
    """The options of the method in `config`, converted to the types in the method's constructor.

    Args:
        defaults: all options of the method.

    Raises:
        UserError: an option that the method does not have, or a value of another type.
    """
    kinds = method_kinds(config.method)
    options = {}
    for key, value in config.method_options.items():
        name = f"method_options.{key}"
        if key not in defaults:
            raise UserError(unknown_key(name, [f"method_options.{each}" for each in defaults]))
        if value == defaults[key]:  # such as infinity, which no text converts to
            options[key] = value
            continue
        kind = kinds[key]
        try:
            option = convert(name, plain(value) if kind is Any else value, kind)
        except ValueError as error:
            raise UserError(str(error)) from error
        # 2 and 2.0 give different hashes, and there are stored runs of both.
        options[key] = plain(value) if kind is float and type(plain(value)) is int else option
    return options


def has_settings(config: RunConfig, given: dict[str, Any]) -> bool:
    """Whether a resolved configuration has these settings, as typed; the scale is not one."""
    if all(getattr(config, key) == value for key, value in given.items() if key != "scale"):
        return True
    settings = {**vars(config), **given, "scale": config.scale}
    for owner in ("method_options", "objective_options"):
        settings[owner] = {**getattr(config, owner), **given.get(owner, {})}
    try:
        return resolve(settings) == config
    except UserError:  # such as an option of another method
        return False


def on_network(config: RunConfig, arch: str) -> RunConfig:
    """The configuration that tests the distilled set of `config` on one of its `transfer_to`: the
    same as `bench.evaluate distilled=RUN arch=...` resolves to."""
    sized = {} if arch in SIZED_ARCHITECTURES else {"width": 0, "depth": 0}
    other = replace(config, arch=arch, **sized, **NOT_OF_AN_EVALUATION)
    return _conv_bias_where_it_matters(other)


def _conv_bias_where_it_matters(config: RunConfig) -> RunConfig:
    """`conv_bias` as it is, or True where no network of the run has biases to leave out."""
    unbiased = {config.arch, *config.transfer_to} <= set(UNBIASED_ARCHITECTURES)
    return replace(config, conv_bias=True) if unbiased else config


def refuse_size_of_one_size(config: RunConfig, given: dict[str, Any]) -> None:
    """Reject a width or depth that the user gave for a network of one size.

    Args:
        given: settings of the user for this one run, as opposed to those of a scale or a grid.

    Raises:
        UserError: names the networks that have a width and a depth.
    """
    for key in ("width", "depth"):
        if config.arch not in SIZED_ARCHITECTURES and given.get(key, 0) != 0:
            raise UserError(
                f"{key}={given[key]}: arch={config.arch} has only one size; {key} is for"
                f" {' and '.join(SIZED_ARCHITECTURES)}"
            )


def check(config: RunConfig) -> None:
    """Reject invalid combinations of settings.

    Raises:
        UserError: names the settings.
    """
    if config.objective == UNROLLED:
        _check_method(config)
    else:
        _check_objective(config)
    if config.variance_every:
        check_variance_samples(config)
    if config.engine == "higher" and config.precision == "bf16":
        raise UserError("engine=higher does not support precision=bf16: use float32 or tf32")
    if config.arch in SIZED_ARCHITECTURES:
        for key in ("width", "depth"):
            if getattr(config, key) < 1:
                raise UserError(
                    f"{key}={getattr(config, key)} must be at least 1 for arch={config.arch}"
                )
    check_distilled_set(config)
    if not config.evaluation_steps:
        raise UserError("evaluation_steps needs at least one number of steps")
    check_evaluation(config)
    _check_networks(config)
    if config.selection == "validation" and config.validation_fraction == 0:
        raise UserError(
            "selection=validation needs validation_fraction > 0; the two published versions of the"
            " paper's code hold nothing out: selection=train (the one that the paper cites) and"
            " selection=test"
        )


def check_variance_samples(config: RunConfig) -> None:
    """Reject a number of samples from which no variance can be measured.

    Raises:
        UserError: names the settings.
    """
    if config.variance_samples < 2:
        raise UserError(f"variance_samples={config.variance_samples} must be at least 2")
    if config.variance_samples > config.target_batch:
        raise UserError(
            f"variance_samples={config.variance_samples} is more than"
            f" target_batch={config.target_batch}, which they are taken from"
        )


def _check_method(config: RunConfig) -> None:
    try:
        method = make_method(
            config.method, config.unroll_length, config.window_size, config.method_options
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    if needs_evaluations(method) and not config.accuracy_every:
        raise UserError(
            f"accuracy_every=0: with these options method={config.method} places its window by"
            " measurements of the accuracy; give a number of outer steps"
        )


def _check_objective(config: RunConfig) -> None:
    name, options = f"objective={config.objective}", OBJECTIVES[config.objective]
    if config.learn_labels and not options.learns_labels:
        raise UserError(f"learn_labels=true: {name} takes the labels only as classes")
    if config.replicas > 1 and options.keeps_state:
        raise UserError(
            f"replicas={config.replicas}: {name} keeps one network from one outer step to the next"
        )
    if config.precision not in ("float32", "float64"):
        raise UserError(f"precision={config.precision} is for objective=unrolled: use float32")
    depth = config.objective_options["depth"] if options.pools else 0
    side = config.image_size or SHAPES[config.dataset].side
    if side < 2**depth:
        raise UserError(
            f"objective_options.depth={depth}: images of {side}x{side} cannot be halved so often"
        )


def _check_networks(config: RunConfig) -> None:
    """Whether the networks can be built; otherwise this shows in the run, or hours later."""
    _check_size("arch", config.arch, config)
    for arch in config.transfer_to:
        name = f"transfer_to={arch}"
        if arch == config.arch:
            raise UserError(f"{name} is the same as arch, on which the set is always tested")
        if config.transfer_to.count(arch) > 1:
            raise UserError(f"{name} is given more than once")
        if arch in SIZED_ARCHITECTURES and config.arch not in SIZED_ARCHITECTURES:
            raise UserError(f"{name} needs a width and a depth, and arch={config.arch} has none")
        _check_size("transfer_to", arch, config)


def _check_size(key: str, arch: str, config: RunConfig) -> None:
    """Raise UserError if images are too small for a network."""
    side = config.image_size or SHAPES[config.dataset].side
    sized = arch in SIZED_ARCHITECTURES
    least = 2**config.depth if sized else SMALLEST_SIDES[arch]
    if side < least:
        deep = f" depth={config.depth}" if sized else ""
        raise UserError(
            f"{key}={arch}{deep} needs images of at least {least}x{least}, and those of"
            f" {config.dataset} have {side}x{side}; image_size={max(least, 32)} enlarges them"
        )
