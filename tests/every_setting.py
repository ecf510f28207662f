"""Every setting of every command, found in the source: one that is added later is there too."""

import importlib
import re
from dataclasses import Field, dataclass, fields
from types import ModuleType
from typing import Any, get_args, get_origin

from bench.config.command_line import key_of
from tests.conftest import REPOSITORY

COMMAND = re.compile(r"^    command\(main, USAGE, ([\w, ]+)\)$", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """A command and the dataclasses of its settings."""

    name: str
    module: ModuleType
    schemas: tuple[type, ...]

    def __str__(self) -> str:
        return self.name

    def settings(self) -> dict[str, Field[Any]]:
        """By key; of two with one key the first, as on the command line."""
        items = [item for schema in self.schemas for item in fields(schema)]
        return {key_of(item): item for item in reversed(items)}


def commands() -> list[Command]:
    """Everything that can be typed as `python -m NAME key=value`."""
    listed = []
    folders = ("bench", "analysis", "slurm", "methods", "tests/slurm/lab")
    for path in sorted(path for folder in folders for path in REPOSITORY.glob(f"{folder}/**/*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        if schemas := COMMAND.search(path.read_text()):
            module = importlib.import_module(".".join(parts))
            types = tuple(getattr(module, name) for name in schemas[1].split(", "))
            listed.append(Command(".".join(parts).removesuffix(".__main__"), module, types))
    return listed


def member(item: Field[Any]) -> Any:
    """The type of a setting; of a list, that of its members."""
    return get_args(item.type)[0] if get_origin(item.type) is list else item.type


def is_list(item: Field[Any]) -> bool:
    return get_origin(item.type) is list
