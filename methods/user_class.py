"""A user's own method, named `package.module:Class`: importing it, checking it, reading its options
from its constructor."""

import importlib
import inspect
import json
from typing import Any

from methods.look import Look

INTERFACE = ("next_window", "observe", "state", "load_state")
OPTION_TYPES = (str, bool, int, float, list[str], list[int], list[float])


def import_class(name: str) -> type:
    """The class that `package.module:Class` names.

    Raises:
        ValueError: it cannot be imported, or is not a method.
    """
    module_name, _, class_name = name.partition(":")
    try:
        value = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise ValueError(
            f"method {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if defect := _defect(value):
        raise ValueError(
            f"method {name!r} is not a method: {defect} (methods/README.md describes the interface)"
        )
    return value


def _defect(value: Any) -> str:
    """What keeps a value from being a method's class; empty where nothing does."""
    if not isinstance(value, type):
        return "it is not a class"
    if missing := [part for part in INTERFACE if not callable(getattr(value, part, None))]:
        return f"it lacks {', '.join(missing)}"
    if not isinstance(vars(value).get("label", ""), str):
        return "its label is not a string"
    if not isinstance(vars(value).get("look"), Look | None):
        return "its look is not a methods.Look"
    if not isinstance(getattr(value, "options_before", {}), dict):
        return "its options_before is not a dictionary"
    return ""


def constructor_options(name: str, method: type) -> dict[str, inspect.Parameter]:
    """The parameters of a method's constructor beyond the two that all share.

    Raises:
        ValueError: it does not take (unroll_length, window_size), or an option has no default, or
            one that JSON cannot write: runs are named by their options.
    """
    try:
        parameters = dict(inspect.signature(method, eval_str=True).parameters)
    except Exception as error:  # annotations may be any expression
        raise ValueError(f"method {name!r}: its constructor cannot be read: {error}") from error
    for shared in ("unroll_length", "window_size"):
        if parameters.pop(shared, None) is None:
            raise ValueError(f"method {name!r}: its constructor must take {shared}")
    required = [key for key, value in parameters.items() if value.default is value.empty]
    if required:
        raise ValueError(f"method {name!r}: its option {required[0]} needs a default value")
    for key, parameter in parameters.items():
        try:
            json.dumps(parameter.default)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"method {name!r}: the default of its option {key} cannot be written as JSON:"
                f" {error}"
            ) from error
    return parameters


def option_type(parameter: inspect.Parameter) -> Any:
    """The type that an option is declared as or that its default value shows: one of
    `OPTION_TYPES`, or Any where neither tells. A default of 1 may be meant to become 0.5, so
    whole numbers show float."""
    if parameter.annotation in OPTION_TYPES:
        return parameter.annotation
    shown = {str: str, bool: bool, int: float, float: float}
    return shown.get(type(parameter.default), Any)
