"""WHAT is compared: methods place windows, clippings limit gradients.

A method is a class in one small file, which says all about it: its window rule, its options, its
label and look in figures. To add one, write the file and add its line to `METHODS`.
"""

import difflib
from typing import Any

from methods.automatic_truncated import AutomaticTruncatedBPTT
from methods.automatic_truncated_policy import PolicyTruncatedBPTT
from methods.bptt import BPTT
from methods.clipping import CLIPPINGS, Clipping, make_clipping
from methods.early_random_truncated import EarlyRandomTruncatedBPTT
from methods.growing import GrowingBPTT
from methods.imagined import imagine_probe, imagine_step
from methods.look import Look
from methods.moving import BackwardWindow, ForwardWindow, MovingWindow
from methods.observations import (
    EvaluationObserver,
    Probe,
    ProbeObserver,
    StepObservation,
    StepObserver,
    missing_observer,
    needs_evaluations,
    needs_inner_gradients,
    observes_probes,
    observes_steps,
)
from methods.random_length import RandomLengthBPTT
from methods.random_truncated import RandomTruncatedBPTT
from methods.signal_to_noise import SignalToNoiseBPTT
from methods.truncated import TruncatedBPTT
from methods.user_class import constructor_options, import_class, option_type
from methods.window import Method, SkippingMethod, StatelessMethod, Window

METHODS: dict[str, type] = {
    "bptt": BPTT,
    "t_bptt": TruncatedBPTT,
    "r_bptt": RandomLengthBPTT,
    "rat_bptt": RandomTruncatedBPTT,
    "early_rat_bptt": EarlyRandomTruncatedBPTT,
    "forward_window": ForwardWindow,
    "backward_window": BackwardWindow,
    "growing_bptt": GrowingBPTT,
    "at_bptt": AutomaticTruncatedBPTT,
    "at_bptt_plus": PolicyTruncatedBPTT,
    "snr_bptt": SignalToNoiseBPTT,
}

__all__ = [
    "CLIPPINGS",
    "METHODS",
    "Clipping",
    "EvaluationObserver",
    "Look",
    "Method",
    "MovingWindow",
    "Probe",
    "ProbeObserver",
    "SkippingMethod",
    "StatelessMethod",
    "StepObservation",
    "StepObserver",
    "Window",
    "imagine_probe",
    "imagine_step",
    "make_clipping",
    "make_method",
    "method_class",
    "method_defaults",
    "method_kinds",
    "method_label",
    "method_look",
    "needs_evaluations",
    "needs_inner_gradients",
    "observes_probes",
    "observes_steps",
    "options_before",
]


def method_class(name: str) -> type:
    """The class of a method: a name in `METHODS`, or a user's own as `package.module:Class`.

    Raises:
        ValueError: there is no such method, module or class.
    """
    if name in METHODS:
        return METHODS[name]
    if ":" in name:
        return import_class(name)
    near = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"unknown method {name[:80]!r}{hint} (known: {', '.join(METHODS)},"
        " or your own as package.module:Class)"
    )


def make_method(
    name: str, unroll_length: int, window_size: int, options: dict[str, Any] | None = None
) -> Method:
    """The method called `name`, in its initial state.

    Raises:
        ValueError: an unknown name, or settings that the method rejects.
    """
    method = method_class(name)
    try:
        made = method(unroll_length=unroll_length, window_size=window_size, **(options or {}))
    except ValueError:
        raise
    except (Exception, SystemExit) as error:  # in a user's constructor
        raise ValueError(f"method {name!r}: {type(error).__name__}: {error}") from error
    if missing := missing_observer(made):
        raise ValueError(f"method {name!r} {missing}")
    return made


def method_defaults(name: str) -> dict[str, Any]:
    """The options of a method beyond the two that all share, with their default values.

    Raises:
        ValueError: no such method, or its constructor does not keep the interface.
    """
    options = constructor_options(name, method_class(name))
    return {key: parameter.default for key, parameter in options.items()}


def options_before(name: str) -> dict[str, Any]:
    """The options that were added to a method, with the values that reproduce what was done before
    (`Method`).

    Raises:
        ValueError: as `method_class`.
    """
    return getattr(method_class(name), "options_before", {})


def method_kinds(name: str) -> dict[str, Any]:
    """The type of each of these options: str, bool, int, float (any number), a list of one of them,
    or Any.

    Raises:
        ValueError: as `method_defaults`.
    """
    options = constructor_options(name, method_class(name))
    return {key: option_type(parameter) for key, parameter in options.items()}


def method_label(name: str) -> str:
    """What figures and tables call a method: the `label` of its class, else the class's name. A
    user's method whose module is gone goes by the name of its class too."""
    try:
        method = method_class(name)
    except ValueError:
        return name.rpartition(":")[2]
    return vars(method).get("label", method.__name__)


def method_look(name: str) -> Look | None:
    """The `look` of a method's class; None where it has none."""
    try:
        return vars(method_class(name)).get("look")
    except ValueError:
        return None
