"""`key=value` on the command line: from text to typed dataclasses, with help and clear refusals."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import MISSING, field, fields
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import ScalarToken, YAMLError

from bench.errors import INTERRUPTED, UserError, as_unwritable

Schema = TypeVar("Schema")

# YAML 1.1 takes 1:30:00 for the number 5400. No setting means that.
BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-9]+)+")
NO_BASE_60 = "a number with colons is no setting; a time is a whole number of minutes or seconds"


def setting(
    default: Any, help: str, choices: tuple[str, ...] = (), minimum: float | None = None
) -> Any:
    """A dataclass field with its help text and, where there are any, the values it may take."""
    metadata = {"help": help, "choices": choices, "minimum": minimum}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def keys_of(*schemas: type) -> list[str]:
    """All keys of some dataclasses."""
    return [item.name for schema in schemas for item in fields(schema)]


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The line that refuses a key and names the nearest valid one."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4) or [
        name for name in known if key in name or name in key
    ]
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown key {key!r}{hint} (--help lists all)"


def typed(schema: type[Schema], values: dict[str, Any]) -> Schema:
    """`schema(**values)` with every value converted to its field's type, or refused.

    Raises:
        UserError: an unknown key, a value of another type, one that is not among the choices or
            below the minimum.
    """
    for key in values:
        if key not in keys_of(schema):
            raise UserError(unknown_key(key, keys_of(schema)))
    try:
        result: Any = OmegaConf.to_object(OmegaConf.merge(_structured(schema), values))
    except OmegaConfBaseException as error:
        key = str(error.full_key or "").partition("[")[0]  # type: ignore[attr-defined]
        raise UserError(f"{key}={values.get(key)}: {str(error).splitlines()[0]}") from error
    for item in fields(schema):  # pyright: ignore[reportArgumentType]
        choices, value = item.metadata["choices"], getattr(result, item.name)
        if choices and value not in choices:
            near = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{item.name}={value} is not one of {', '.join(choices)}{hint}")
        minimum = item.metadata["minimum"]
        if minimum is not None and value < minimum:
            raise UserError(f"{item.name}={value} must be at least {minimum}")
    return result


@cache
def _structured(schema: type) -> DictConfig:
    """Made once: it takes longer than all else, and merging copies it."""
    return OmegaConf.structured(schema)


def parse(argv: Sequence[str], *schemas: type) -> dict[str, Any]:
    """The settings given on the command line, untyped: `["ipc=1", "method_options.patience=5"]` ->
    `{"ipc": 1, "method_options": {"patience": 5}}`.

    Raises:
        UserError: an argument that is no key=value, or a key that no schema has.
    """
    for argument in argv:
        key, separator, _ = argument.partition("=")
        if not separator or not key:
            raise UserError(f"{argument!r} is not of the form key=value (--help lists the keys)")
        if key.partition(".")[0] not in keys_of(*schemas):
            raise UserError(unknown_key(key, keys_of(*schemas)))
        if BASE_60.fullmatch(argument.partition("=")[2]):
            raise UserError(f"{argument}: {NO_BASE_60}")
    try:
        given = OmegaConf.to_container(OmegaConf.from_dotlist(list(argv)), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(
            f"cannot be read: {' '.join(argv)} ({str(error).splitlines()[0]})"
        ) from error
    assert isinstance(given, dict)
    return {str(key): value for key, value in given.items()}


def only(given: dict[str, Any], schema: type) -> dict[str, Any]:
    """The part of `given` that belongs to `schema`."""
    return {key: value for key, value in given.items() if key in keys_of(schema)}


def yaml_names(folder: Path) -> list[str]:
    """The names of the .yaml files in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def yaml_path(name: str, folder: Path, what: str) -> Path:
    """Where `name` lies: in the project's `folder`, or at the user's own path.

    Raises:
        UserError: it is not there; `what` says what it is, e.g. "grid".
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        raise UserError(
            f"there is no {what} {name!r}; known: {', '.join(yaml_names(folder))},"
            " or a path to your own .yaml"
        )
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        scalars = [token for token in yaml.scan(path.read_text()) if isinstance(token, ScalarToken)]
    except (OmegaConfBaseException, YAMLError, OSError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a mapping of settings")
    for scalar in scalars:
        if scalar.plain and BASE_60.fullmatch(scalar.value):
            raise UserError(f"{path}: {scalar.value}: {NO_BASE_60}")
    return {str(key): value for key, value in content.items()}


def words(text: str) -> list[str]:
    """The parts of a comma-separated value."""
    return [part.strip() for part in text.split(",") if part.strip()]


def help_text(usage: str, *schemas: type) -> str:
    """What `--help` prints: the usage, then every key with its default, meaning and choices."""
    lines = [usage.strip(), ""]
    for schema in schemas:
        lines.append(f"{(schema.__doc__ or schema.__name__).strip().splitlines()[0]}")
        for item in fields(schema):
            default = item.default if item.default is not MISSING else item.default_factory()  # pyright: ignore[reportCallIssue]
            choices = item.metadata["choices"]
            listed = f" ({' | '.join(choices)})" if choices else ""
            shown = f"{item.name}={str(default).replace(' ', '')}"
            lines.append(f"  {shown:<36} {item.metadata['help']}{listed}")
        lines.append("")
    return "\n".join(lines)


def command(main: Callable[[list[str]], int], usage: str, *schemas: type) -> NoReturn:
    """Run a command's `main(argv)` as a process: help, one-line errors with exit status 2, Ctrl-C
    with exit status 130."""
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
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (head, less) went away: not an error of ours.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if (unwritable := as_unwritable(error)) is None:
            raise
        if error.filename is None:  # what is printed goes to a full disk: let nobody flush it again
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        refuse(unwritable)


def refuse(error: UserError) -> NoReturn:
    """End this process with one line that says why."""
    with suppress(OSError):  # it goes to a full disk too
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    sys.exit(2)
