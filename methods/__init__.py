"""WHAT is compared: methods choose windows, clippings tame gradients.

A method is a class in one small file; `METHODS` is the list. A user's own class is named as
`package.module:Class` and needs no entry here.
"""

import difflib
import importlib
import inspect
from typing import Any

from methods.bptt import BPTT
from methods.clipping import CLIPPINGS, Clipping, make_clipping
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

# What a class must have to be a method, and what its options may be said to be.
INTERFACE = ("next_window", "observe", "state", "load_state")
KINDS = (str, bool, int, float, list[str], list[int], list[float])

__all__ = [
    "CLIPPINGS",
    "METHODS",
    "Clipping",
    "Method",
    "StatelessMethod",
    "Window",
    "make_clipping",
    "make_method",
    "method_class",
    "method_defaults",
    "method_kinds",
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
            f"unknown method {name[:80]!r}{hint} (known: {', '.join(METHODS)},"
            " or your own as package.module:Class)"
        )
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise ValueError(
            f"method {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    lacking = [part for part in INTERFACE if not callable(getattr(found, part, None))]
    if not isinstance(found, type) or lacking:
        raise ValueError(
            f"method {name!r} is no method: "
            + (f"it lacks {', '.join(lacking)}" if isinstance(found, type) else "it is no class")
            + " (methods/window.py says what a method is)"
        )
    return found


def method_defaults(name: str) -> dict[str, Any]:
    """The options of a method beyond the two that all share, with their default values.

    Raises:
        ValueError: no such method, or its class does not take (unroll_length, window_size).
    """
    return {key: parameter.default for key, parameter in _options(name).items()}


def method_kinds(name: str) -> dict[str, Any]:
    """What each of these options is, as its constructor says or else its default value shows: str,
    bool, int, float (any number), a list of one of them; Any where neither tells.

    Raises:
        ValueError: as `method_defaults`.
    """
    return {
        key: parameter.annotation if parameter.annotation in KINDS else _kind_of(parameter.default)
        for key, parameter in _options(name).items()
    }


def _kind_of(default: Any) -> Any:
    # An option whose default is 1 may well be meant to be 0.5.
    kinds = {str: str, bool: bool, int: float, float: float}
    return kinds.get(type(default), Any)


def _options(name: str) -> dict[str, inspect.Parameter]:
    own = method_class(name)
    try:
        parameters = dict(inspect.signature(own, eval_str=True).parameters)
    except Exception as error:  # annotations may be any expression
        raise ValueError(f"method {name!r}: its constructor cannot be read: {error}") from error
    for shared in ("unroll_length", "window_size"):
        if parameters.pop(shared, None) is None:
            raise ValueError(f"method {name!r}: its constructor must take {shared}")
    required = [key for key, value in parameters.items() if value.default is value.empty]
    if required:
        raise ValueError(f"method {name!r}: its option {required[0]} needs a default value")
    return parameters


def make_method(
    name: str, unroll_length: int, window_size: int, options: dict[str, Any] | None = None
) -> Method:
    """The method called `name`, in its first state.

    Raises:
        ValueError: an unknown name, or settings that the method refuses.
    """
    found = method_class(name)
    try:
        return found(unroll_length=unroll_length, window_size=window_size, **(options or {}))
    except ValueError:
        raise
    except Exception as error:  # of somebody's own constructor
        raise ValueError(f"method {name!r}: {type(error).__name__}: {error}") from error
