"""WHAT is compared: methods choose windows, conditioners tame gradients.

A method is a class in one small file; `METHODS` is the list. A user's own class is named as
`package.module:Class` and needs no entry here.
"""

import difflib
import importlib
import inspect
from typing import Any

from methods.bptt import BPTT
from methods.conditioning import CONDITIONERS, Conditioner, make_conditioner
from methods.growing import GrowingBPTT
from methods.moving import BackwardWindow, ForwardWindow
from methods.random_length import RandomLengthBPTT
from methods.random_truncated import RandomTruncatedBPTT
from methods.truncated import TruncatedBPTT
from methods.weighted import EarlyRandomTruncatedBPTT
from methods.window import Method, StatelessMethod, Window

METHODS: dict[str, type] = {
    "bptt": BPTT,
    "t_bptt": TruncatedBPTT,
    "r_bptt": RandomLengthBPTT,
    "rat_bptt": RandomTruncatedBPTT,
    "early_rat_bptt": EarlyRandomTruncatedBPTT,
    "forward_window": ForwardWindow,
    "backward_window": BackwardWindow,
    "growing_bptt": GrowingBPTT,
}

__all__ = [
    "CONDITIONERS",
    "METHODS",
    "Conditioner",
    "Method",
    "StatelessMethod",
    "Window",
    "make_conditioner",
    "make_method",
    "method_class",
    "method_defaults",
]


def method_class(name: str) -> type:
    """The class of a method: a name from `METHODS`, or a user's own as `package.module:Class`.

    Raises:
        ValueError: there is no such method, module or class.
    """
    if name in METHODS:
        return METHODS[name]
    module_name, separator, class_name = name.partition(":")
    if not separator:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"unknown method {name!r}{hint} (known: {', '.join(METHODS)},"
            " or your own as package.module:Class)"
        )
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"method {name!r} cannot be imported: {error}") from error


def method_defaults(name: str) -> dict[str, Any]:
    """The options of a method beyond the two that all share, with their default values.

    Raises:
        ValueError: no such method, or its class does not take (unroll_length, window_size).
    """
    parameters = dict(inspect.signature(method_class(name)).parameters)
    for shared in ("unroll_length", "window_size"):
        if parameters.pop(shared, None) is None:
            raise ValueError(f"method {name!r}: its constructor must take {shared}")
    required = [key for key, value in parameters.items() if value.default is value.empty]
    if required:
        raise ValueError(f"method {name!r}: its option {required[0]} needs a default value")
    return {key: parameter.default for key, parameter in parameters.items()}


def make_method(
    name: str, unroll_length: int, window_size: int, options: dict[str, Any] | None = None
) -> Method:
    """The method called `name`, in its first state.

    Raises:
        ValueError: an unknown name, or settings that the method refuses.
    """
    try:
        return method_class(name)(
            unroll_length=unroll_length, window_size=window_size, **(options or {})
        )
    except TypeError as error:
        raise ValueError(f"method {name!r}: {error}") from error
