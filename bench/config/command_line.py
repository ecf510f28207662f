"""`key=value` on the command line: text becomes typed dataclasses; `--help`; one-line errors."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import MISSING, Field, field, fields, make_dataclass
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from yaml import YAMLError

from bench.config.values import Range, convert, read, shown
from bench.system.errors import INTERRUPTED, UserError, as_unwritable
from bench.system.text import one_line

Schema = TypeVar("Schema")

# Names of settings and values before schema 2. The error for an old name gives the new one.
RENAMED = {
    "conditioner": "clipping",
    "full_batch": "full_train_batch_size",
    "full_steps": "full_train_steps",
    "bases": "basis_images",
    "boost_factor": "boost_beta",
    "redraw_every": "window_resample_every",
    "batch": "scripts_only",
    "claim": "takeover",
    "ema_clip": "ema",
    "normalised": "normalized",
}


def setting(
    default: Any,
    help: str,
    choices: tuple[str, ...] = (),
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    before: Any = MISSING,
) -> Any:
    """A dataclass field with its help text and its valid values.

    Args:
        choices: valid texts; for a list, valid members.
        minimum, above, maximum, below: the range of a number or of each number in a list, with
            (minimum, maximum) or without (above, below) the end itself. Every numeric setting
            states its lower end; the upper end is 10**9 by default. Numbers are always finite.
        before: the value that reproduces what was done before the setting existed. A run setting
            that is added later must have it: at this value it stays out of the run's hash.
    """
    low = minimum if above is None else above
    high = maximum if below is None else below
    allowed = Range(low, high, open_below=above is not None, open_above=below is not None)
    metadata = {"help": help, "choices": choices, "range": allowed}
    if before is not MISSING:
        metadata["before"] = before
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def key_of(item: "Field[Any]") -> str:
    """The key of a field: its name, without the underscore of one that is a word of Python."""
    return item.name.removesuffix("_")


def part_of(schema: type, keys: Iterable[str], about: str) -> type:
    """A schema with some of the fields of another one. `parse` refuses the other fields by name."""
    items = {item.name: item for item in fields(schema)}
    chosen = [(name, items[name].type, _again(items[name])) for name in keys]
    return make_dataclass("Part", chosen, namespace={"__doc__": about, "whole": schema})


def _again(item: "Field[Any]") -> Any:
    """A field is of one class only."""
    given = {"default": item.default, "default_factory": item.default_factory}
    return field(**given, metadata=item.metadata)


def _names(schema: type) -> dict[str, str]:
    """The name of each field, by key."""
    return {key_of(item): item.name for item in fields(schema)}


def keys_of(*schemas: type) -> list[str]:
    """The keys of some dataclasses."""
    return [key_of(item) for schema in schemas for item in fields(schema)]


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The error for an unknown key, which names the nearest valid one."""
    known = list(known)
    if (new := RENAMED.get(key)) in known:
        return f"unknown key {key!r}: it is called {new} now"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4) or [
        name for name in known if key in name or name in key
    ]
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown key {shown(key)!r}{hint} (--help lists all)"


def typed(schema: type[Schema], values: dict[str, Any]) -> Schema:
    """`schema(**values)` with every value converted to its field's type.

    Raises:
        UserError: as `converted`.
    """
    return schema(**{_names(schema)[k]: value for k, value in converted(schema, values).items()})


def converted(schema: type, values: dict[str, Any]) -> dict[str, Any]:
    """Some settings of a schema, each converted to its field's type; converted values stay as they
    are.

    Raises:
        UserError: an unknown key, a value of another type, not among the choices or out of range.
    """
    known = {key_of(item): item for item in fields(schema)}
    result = {}
    for key, value in values.items():
        if key not in known:
            raise UserError(unknown_key(key, known))
        metadata = known[key].metadata
        try:
            result[key] = convert(key, value, known[key].type, metadata["range"])
        except ValueError as error:
            raise UserError(str(error)) from error
        if choices := metadata["choices"]:
            _refuse_other(key, result[key], choices)
    return result


def _refuse_other(key: str, value: str | list[str], choices: tuple[str, ...]) -> None:
    for one in [value] if isinstance(value, str) else value:
        if one not in choices:
            new = RENAMED.get(one)
            near = [new] if new in choices else difflib.get_close_matches(one, choices, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{key}={shown(one)} is not one of {', '.join(choices)}{hint}")


def parse(argv: Sequence[str], *schemas: type) -> dict[str, Any]:
    """The settings on the command line, converted: `["ipc=1", "sbatch.exclude=node7"]` ->
    `{"ipc": 1, "sbatch": {"exclude": "node7"}}`. If several schemas have a key, the first one
    decides its type. Options of a method stay text: only the method knows their types.

    Raises:
        UserError: an argument that is not key=value, a key that no schema has, or as `converted`.
    """
    given: dict[str, Any] = {}
    for argument in argv:
        name, separator, value = argument.partition("=")
        if not separator or not name:
            raise UserError(f"{shown(argument)!r} is not key=value (--help lists the keys)")
        key, dot, inner = name.partition(".")
        schema = next((one for one in schemas if key in keys_of(one)), None)
        if schema is None:
            if any(key in keys_of(one.whole) for one in schemas if hasattr(one, "whole")):
                raise UserError(f"{key} has no effect on this command (--help lists what has)")
            raise UserError(unknown_key(key, keys_of(*schemas)))
        if not dot:
            if value.startswith("~/"):  # shells expand ~ only where a word begins
                value = os.path.expanduser(value)
            setting_value = converted(schema, {key: value})[key]
        else:
            # In methods.package.module:Class.mem_gb the text between the outer dots is one name.
            outer, _, last = inner.rpartition(".")
            whole = {outer: {last: value}} if outer else {last: value}
            try:
                setting_value = converted(schema, {key: whole})[key]
            except UserError:
                raise UserError(f"{shown(argument)}: {key} has no such parts") from None
        given[key] = merged(given.get(key), setting_value)
    return given


def merged(earlier: Any, later: Any) -> Any:
    """The later value; two mappings are merged key by key."""
    if not isinstance(earlier, dict) or not isinstance(later, dict):
        return later
    return {**earlier, **{key: merged(earlier.get(key), value) for key, value in later.items()}}


def only(given: dict[str, Any], schema: type) -> dict[str, Any]:
    """The part of `given` that belongs to `schema`."""
    keys = set(keys_of(schema))
    return {key: value for key, value in given.items() if key in keys}


def yaml_names(folder: Path) -> list[str]:
    """The names of the .yaml files in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def yaml_path(name: str, folder: Path, what: str) -> Path:
    """The file called `name` in the project's `folder`, or a path of the user.

    Args:
        what: the kind of file for the error message, e.g. "grid".

    Raises:
        UserError: there is no such file.
    """
    own = name.endswith((".yaml", ".yml"))
    path = Path(name).expanduser() if own else folder / f"{name}.yaml"
    if not is_file(path):
        raise UserError(
            f"there is no {what} {shown(name)!r}; known: {', '.join(yaml_names(folder))},"
            " or a path to your own .yaml"
        )
    return path


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for a name that is too long for a file."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file as text, for `converted`.

    Raises:
        UserError: the file cannot be read or is not a mapping.
    """
    try:
        content = deepcopy(_content(path.read_text(encoding="utf-8")))
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a mapping of settings")
    return {str(key): value for key, value in content.items()}


@cache
def _content(text: str) -> Any:
    """A report reads some files a hundred times, and the loader takes long."""
    return read(text)


def words(text: str) -> list[str]:
    """The parts of a comma-separated value."""
    return [part.strip() for part in text.split(",") if part.strip()]


def help_text(usage: str, *schemas: type) -> str:
    """The text of `--help`: the usage, then every key with its default, meaning and choices; behind
    a schema its `option_groups`, which are schemas whose keys begin with their `prefix`. A key
    without a prefix that two schemas have is that of the first."""
    lines = [usage.strip(), ""]
    seen: set[str] = set()
    for schema in [part for one in schemas for part in (one, *getattr(one, "option_groups", ()))]:
        lines.append(f"{(schema.__doc__ or schema.__name__).strip().splitlines()[0]}")
        for item in fields(schema):
            default = item.default if item.default is not MISSING else item.default_factory()  # pyright: ignore[reportCallIssue]
            allowed = " | ".join(item.metadata["choices"]) or str(item.metadata["range"])
            listed = f" ({allowed})" if allowed else ""
            prefix, key = getattr(schema, "prefix", ""), key_of(item)
            if not prefix and key in seen:
                continue
            seen.add(key)
            text = f"{prefix}{key}={str(default).replace(' ', '')}"
            lines.append(f"  {text:<36} {item.metadata['help']}{listed}")
        lines.append("")
    return "\n".join(lines)


def command(main: Callable[[list[str]], int], usage: str, *schemas: type) -> NoReturn:
    """Run a command's `main(argv)` and exit the process. `--help` prints the help, a `UserError`
    one line with exit status 2; Ctrl-C exits with status 130."""
    _make_output_safe()
    argv = sys.argv[1:]
    try:
        if {"--help", "-h", "help"} & set(argv):
            print(help_text(usage, *schemas))
            status = 0
        else:
            status = main(argv)
        sys.stdout.flush()
        sys.exit(status)
    except UserError as error:
        refuse(error)
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (head, less) has exited, which is no error.
        discard_output()
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if (unwritable := as_unwritable(error)) is None:
            raise
        if error.filename is None:  # output goes to a full disk: a later flush would fail again
            discard_output()
        refuse(unwritable)


def _make_output_safe() -> None:
    """A closed stream (`>&-`) discards what is printed, and a character that the stream's encoding
    lacks becomes a question mark: neither may end what has been computed for hours."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def say(text: str) -> None:
    """Print a line of a command that is to go on if nobody reads its output any more."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_output()


def discard_output() -> None:
    """What is printed from now on, or not written yet, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def refuse(error: UserError) -> NoReturn:
    """Exit with status 2 and the error in one line."""
    with suppress(OSError):  # standard error may go to a full disk too
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
    sys.exit(2)
