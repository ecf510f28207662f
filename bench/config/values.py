"""Conversion of one value: from the text that was typed to the setting's type, within its range.

A text setting takes the text as typed, also `0123`, `on`, `1e3` and `null`. Whole numbers are
decimal (010 is ten). For a list setting, a single value is a list of one.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import yaml

LARGEST = 10**9  # of any number, unless its range has another end

WHOLE = re.compile(r"[-+]?[0-9]{1,40}")
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.?(inf|infinity|nan)", re.IGNORECASE)
SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "0"), False),
}
LONGEST_SHOWN = 80
# Of a YAML text. No grid or profile comes near either.
MOST_VALUES = 100_000
DEEPEST = 50


@dataclass(frozen=True)
class Range:
    """The valid numbers of a setting; for a list, of each member. All are finite.

    Attributes:
        minimum, maximum: the ends; None: -10**9 and 10**9.
        open_below, open_above: whether the end itself is excluded.
    """

    minimum: float | None = None
    maximum: float | None = None
    open_below: bool = False
    open_above: bool = False

    def __str__(self) -> str:
        if self.minimum is not None and self.maximum is not None:
            left, right = "(" if self.open_below else "[", ")" if self.open_above else "]"
            return f"in {left}{self.minimum}, {self.maximum}{right}"
        if self.minimum is None:
            return "" if self.maximum is None else f"at most {self.maximum}"
        if not self.open_below:
            return f"at least {self.minimum}"
        return "positive" if self.minimum == 0 else f"above {self.minimum}"

    def refusal(self, number: float) -> str:
        """Why a number is out of range, worded to follow the number; empty if it is in range."""
        low = -LARGEST if self.minimum is None else self.minimum
        high = LARGEST if self.maximum is None else self.maximum
        below = number <= low if self.open_below else number < low
        above = number >= high if self.open_above else number > high
        if not (below or above):
            return ""
        if (above and self.maximum is None) or (below and self.minimum is None):
            return f"must be at {'most' if above else 'least'} {high if above else low}"
        return f"must {'lie' if str(self).startswith('in') else 'be'} {self}"


ANY_NUMBER = Range()


def convert(key: str, value: Any, kind: Any, allowed: Range = ANY_NUMBER) -> Any:
    """`value` converted to `kind`: str, int, float, bool, or list[...] or dict[str, ...] of them;
    Any leaves it unchanged.

    Args:
        key: the setting's name, for errors.
        value: text as it was typed, or a value that already has the type.
        allowed: the range of numbers.

    Raises:
        ValueError: of another type or out of range; one line that begins with the key.
    """
    if kind is Any:
        return value
    if get_origin(kind) is list:
        member = get_args(kind)[0]
        return [convert(key, one, member, allowed) for one in members(key, value)]
    if get_origin(kind) is dict:
        member = get_args(kind)[1]
        return {
            str(name): convert(f"{key}.{name}", one, member, allowed)
            for name, one in entries(key, value).items()
        }
    try:
        converted = CONVERSIONS[kind](value)
    except ValueError as error:
        raise ValueError(f"{key}={shown(value)} {error}") from None
    if kind in (int, float) and (refusal := allowed.refusal(converted)):
        raise ValueError(f"{key}={shown(value)} {refusal}")
    return converted


def plain(value: Any) -> Any:
    """A value whose type is not declared: a number, true or false if it looks like one, or text."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if not isinstance(value, str):
        return value
    if WHOLE.fullmatch(value):
        return int(value)
    if NUMBER.fullmatch(value) and math.isfinite(float(value)):
        return float(value)
    return {"true": True, "false": False}.get(value.lower(), value)


def members(key: str, value: Any) -> list[Any]:
    """The members of a list: those within brackets, or the value itself as the only one.

    Raises:
        ValueError: the closing bracket is missing.
    """
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str) or not value.strip().startswith("["):
        return [] if value == "" else [value]
    content = flow(key, value)
    return content if isinstance(content, list) else [value]


def entries(key: str, value: Any) -> dict[Any, Any]:
    """The entries of a mapping, or of a text such as {name: value}.

    Raises:
        ValueError: it is not a mapping.
    """
    content = flow(key, value) if isinstance(value, str) and value.startswith("{") else value
    if not isinstance(content, dict):
        if content == "":
            return {}
        raise ValueError(f"{key}={shown(value)} is not a mapping such as {{name: value}}")
    return content


def flow(key: str, text: str) -> Any:
    """A list or mapping in YAML's one-line notation.

    Raises:
        ValueError: it cannot be parsed.
    """
    try:
        return read(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error) or "not closed?"
        raise ValueError(f"{key}={shown(text)} cannot be read: {problem}") from None


def shown(value: Any) -> str:
    """The value as text, shortened for a one-line error."""
    text = str(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a text")
    if "\0" in value or not _encodes(value):
        raise ValueError("has characters that are not allowed in text")
    return value


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes of the command line that are not UTF-8
        return False
    return True


def _whole(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str) and WHOLE.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        number = float(value)
        hint = f" (write {int(number)})" if abs(number) < 1e15 and number == int(number) else ""
        raise ValueError(f"is not a whole number{hint}")
    hint = " (a time is a whole number of minutes or seconds)" if ":" in str(value) else ""
    raise ValueError(f"is not a whole number{hint}")


def _number(value: Any) -> float:
    if isinstance(value, str):
        if NOT_FINITE.fullmatch(value.strip()):
            raise ValueError("is not finite")
        if not NUMBER.fullmatch(value.strip()):
            raise ValueError("is not a number")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("is not finite")
    return number


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.strip().lower() not in SWITCH:
        raise ValueError("is neither true nor false")
    return SWITCH[value.strip().lower()]


CONVERSIONS = {str: _text, int: _whole, float: _number, bool: _switch}


class _AsTyped(yaml.SafeLoader):
    """A YAML loader that leaves all scalars as text and supports `<<`."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("^<<$"))]}  # noqa: RUF012
    yaml_constructors = {  # noqa: RUF012
        "tag:yaml.org,2002:str": yaml.SafeLoader.construct_yaml_str,
        "tag:yaml.org,2002:seq": yaml.SafeLoader.construct_yaml_seq,
        "tag:yaml.org,2002:map": yaml.SafeLoader.construct_yaml_map,
        None: yaml.SafeLoader.construct_undefined,
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in names:
                problem = f"{shown(key.value)} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            names.add(key.value)
        return node


def read(text: str) -> Any:
    """The content of a YAML text, with all scalars as text.

    Raises:
        yaml.YAMLError: it is not YAML, has a key twice, or has a tag.
    """
    loader = _AsTyped(text)
    try:
        if (node := loader.get_single_node()) is None:
            return None
        _refuse_too_much(node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    finally:
        loader.dispose()


def _refuse_too_much(root: yaml.Node) -> None:
    """Reject what is too much or nested too deeply once every alias (`*name`) is replaced by what
    it stands for: a few lines of aliases of aliases can stand for a thousand million values."""
    values, level = 0, [root]
    for _ in range(DEEPEST):
        below: list[yaml.Node] = []
        for node in level:
            parts = node.value if isinstance(node, yaml.CollectionNode) else []
            values += len(parts)
            if values > MOST_VALUES:
                raise yaml.YAMLError(f"it holds more than {MOST_VALUES:,} values")
            for part in parts:
                below += part if isinstance(part, tuple) else [part]
        if not (level := below):
            return
    raise yaml.YAMLError("nested too deeply")
