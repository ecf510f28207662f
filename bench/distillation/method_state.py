"""The state of a method, checked: a checkpoint with anything else could not be read again."""

from typing import Any

from bench.system.errors import UserError
from methods import Method

PLAIN = (bool, int, float, str, type(None))


def method_state(method: Method, name: str) -> dict[str, Any]:
    """`method.state()`.

    Args:
        name: the method, as the user typed it.

    Raises:
        UserError: it is not a dict of numbers, strings, None, and lists and dicts of them. A number
            of numpy is none: its class would have to be imported to read it.
    """
    state: Any = method.state()
    if found := _foreign(state, ""):
        place, value = found
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise UserError(
            f"method {name!r}: its state(){place} is of type {kind}; a checkpoint can hold a dict"
            " of numbers, strings, None, and lists and dicts of them (float(x) makes a number of"
            " one of numpy or torch)"
        )
    return state


def _foreign(state: Any, place: str) -> tuple[str, Any] | None:
    """The first value of another type, and its place; a subclass is another type."""
    if type(state) is dict:
        for key, value in state.items():
            if type(key) not in PLAIN:
                return f"{place}, key {key!r},", key
            if found := _foreign(value, f"{place}[{key!r}]"):
                return found
    elif type(state) is list and place:
        for index, value in enumerate(state):
            if found := _foreign(value, f"{place}[{index}]"):
                return found
    elif type(state) not in PLAIN or not place:
        return place, state
    return None
