"""The optimizer that trains fresh networks in an evaluation: the inner one, or a plain one.

The paper distills with SGD whose learning rate decays at inner steps 120 and 200 (C.7), and
evaluates every set with Adam at 0.001 without a schedule (C.1). Accuracy measurements, the final
evaluation, transfers to other networks, scores and `bench.evaluate` all take the same optimizer.
"""

from dataclasses import replace
from typing import Any

from bench.config.run_config import RunConfig
from bench.system.errors import UserError

# What a plain optimizer has none of. Epsilon of Adam is `inner_eps` in either case.
NONE_OF: dict[str, Any] = {
    "inner_momentum": 0.0,
    "inner_weight_decay": 0.0,
    "inner_decay_steps": [],
}
OF_THE_INNER_ONE = ("inner_optimizer", *NONE_OF, "inner_decay_factor")


def as_inner(config: RunConfig) -> RunConfig:
    """The configuration whose inner optimizer is the one that `config` evaluates with."""
    lr = config.evaluation_lr or config.inner_lr
    if config.evaluation_optimizer == "inner":
        return replace(config, inner_lr=lr)
    return replace(config, inner_optimizer=config.evaluation_optimizer, inner_lr=lr, **NONE_OF)


def shortest_evaluation(config: RunConfig) -> RunConfig:
    """The same evaluation with the defaults of its two settings where they say the same."""
    optimizer, lr = config.evaluation_optimizer, config.evaluation_lr
    if optimizer == config.inner_optimizer and replace(config, **NONE_OF) == config:
        optimizer = "inner"
    if optimizer in ("inner", config.inner_optimizer) and lr == config.inner_lr:
        lr = 0.0
    return replace(config, evaluation_optimizer=optimizer, evaluation_lr=lr)


def check_evaluation(config: RunConfig) -> None:
    """Reject an evaluation with one optimizer at the learning rate of another.

    Raises:
        UserError: names the settings.
    """
    same = config.evaluation_optimizer in ("inner", config.inner_optimizer)
    if not same and config.evaluation_lr == 0:
        raise UserError(
            f"evaluation_optimizer={config.evaluation_optimizer} needs evaluation_lr=...:"
            f" inner_lr={config.inner_lr:g} is the learning rate of {config.inner_optimizer}"
        )


def refuse_unused(config: RunConfig, given: dict[str, Any]) -> None:
    """Reject settings of the inner optimizer that the user gave for an evaluation without it.

    Args:
        given: settings of the user for this one evaluation.

    Raises:
        UserError: names the settings that the evaluation takes.
    """
    unused = () if config.evaluation_optimizer == "inner" else OF_THE_INNER_ONE
    if config.evaluation_lr:
        unused = (*unused, "inner_lr")
    for key in unused:
        if key in given:
            raise UserError(
                f"{key}={given[key]} has no effect: networks are evaluated with"
                f" evaluation_optimizer={config.evaluation_optimizer}"
                f" evaluation_lr={config.evaluation_lr:g}; evaluation_optimizer=inner"
                " evaluation_lr=0 takes the settings of the inner optimizer"
            )


def optimizer_text(config: RunConfig) -> str:
    """The optimizer of evaluations in words, such as "adam, lr 0.001"."""
    own = as_inner(config)
    momentum = own.inner_momentum if own.inner_optimizer == "sgd" else 0.0
    steps = ", ".join(map(str, own.inner_decay_steps))
    parts = [
        f"{own.inner_optimizer}, lr {own.inner_lr:g}",
        f"momentum {momentum:g}" if momentum else "",
        f"weight decay {own.inner_weight_decay:g}" if own.inner_weight_decay else "",
        f"times {own.inner_decay_factor:g} at steps {steps}" if steps else "",
    ]
    return ", ".join(filter(None, parts))
