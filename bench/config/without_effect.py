"""Settings that a run does not read, because another setting says so."""

from collections.abc import Callable, Sequence
from typing import Any

from bench.config.evaluation_optimizer import as_inner
from bench.config.objectives import OBJECTIVES, UNROLLED
from bench.config.parameterization import OF_ONE
from bench.config.resolve import OF_TARGET_BATCHES, OF_THE_UNROLLED
from bench.config.run_config import RunConfig
from bench.config.values import shown
from bench.system.errors import UserError


def _is(key: str, value: Any) -> tuple[str, Callable[[RunConfig], bool]]:
    return f"{key}={value}", lambda config: getattr(config, key) == value


def _has(key: str, needed: str) -> tuple[str, Callable[[RunConfig], bool]]:
    return needed, lambda config: bool(getattr(config, key))


def _some_adam(config: RunConfig) -> bool:
    return "adam" in (config.inner_optimizer, as_inner(config).inner_optimizer)


_ADAM = ("inner_optimizer=adam or evaluation_optimizer=adam", _some_adam)
_HELD_OUT = ("selection=validation or selection=train", lambda config: config.selection != "test")

_UNROLLED = _is("objective", UNROLLED)
_VARIANCE = (
    f"objective={UNROLLED} and variance_every of 1 or more",
    lambda config: config.variance_every > 0,
)
_TAKE_TARGETS = [UNROLLED, *(name for name, one in OBJECTIVES.items() if one.takes_target_batch)]
_TARGET_BATCH = (
    f"objective={' or '.join(_TAKE_TARGETS)}",
    lambda config: config.objective in _TAKE_TARGETS,
)


# `resolve` gives them a value of its own in runs of an objective that does not read them.
OF_SOME_OBJECTIVES = ("method", *OF_THE_UNROLLED, *OF_TARGET_BATCHES)

# By setting: what it needs, in words and as a condition.
NEEDS: dict[str, tuple[str, Callable[[RunConfig], bool]]] = {
    "inner_momentum": _is("inner_optimizer", "sgd"),
    "inner_decay_factor": _has("inner_decay_steps", "inner_decay_steps=[...]"),
    **dict.fromkeys(("inner_eps", "inner_eps_form"), _ADAM),
    "outer_momentum": _is("outer_optimizer", "sgd"),
    "clip_ratio": _is("clipping", "ema"),
    "clip_decay": _is("clipping", "ema"),
    "zca_lambda": _has("zca", "zca=true"),
    "validation_fraction": _HELD_OUT,
    **dict.fromkeys(
        ("accuracy_networks", "accuracy_steps"),
        _has("accuracy_every", "accuracy_every of 1 or more"),
    ),
    **dict.fromkeys(("method", *OF_THE_UNROLLED), _UNROLLED),
    **dict.fromkeys(OF_TARGET_BATCHES, _TARGET_BATCH),
    **dict.fromkeys(("variance_samples", "variance_until"), _VARIANCE),
    "boost_beta": _has("boost_block", "boost_block of 1 or more"),
    "full_train_batch_size": _has("scores", "scores=true"),
    "full_train_steps": _has("scores", "scores=true"),
    **{key: _is("parameterization", name) for name, keys in OF_ONE.items() for key in keys},
}


def refuse_without_effect(configs: Sequence[RunConfig], given: dict[str, Any]) -> None:
    """Reject a setting of the user that none of the runs reads, unless it has its default (of a
    method, even then) or a run has that value all the same.

    Args:
        given: the converted settings of the command line.

    Raises:
        UserError: names the setting, and what it needs.
    """
    default = RunConfig()
    for key, value in given.items():
        if key not in NEEDS or (value == getattr(default, key) and key != "method"):
            continue
        others = [config for config in configs if config.objective != UNROLLED]
        if key in OF_SOME_OBJECTIVES and any(getattr(one, key) == value for one in others):
            continue
        needed, is_read = NEEDS[key]
        if not any(map(is_read, configs)):
            raise UserError(f"{key}={shown(value)} has no effect here; it needs {needed}")
