"""The small JSON files of runs and submissions: what each must contain, and what to do if it does
not. A damaged file is named in an error message and affects no other run."""

import json
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.system.errors import Damaged
from bench.system.files import read_json

# What the value of each key must be: types, a pattern, or the shape of an object. A key with a
# question mark may be missing.
Shape = Mapping[str, Any]

NUMBER = (int, float)
CHECKSUM = "checksum"  # of the other values of a file
FILE_NAME = re.compile(r"\w[\w.-]*")

OF_A_RUN: dict[str, Shape] = {
    "config": {"schema": int, "command?": str},
    "manifest": {
        "data": {"fingerprint": str},
        "starts": list,
        "threads?": int,
        "compiled?": bool,
        "config?": {"schema": int, "method": str},
        "identity?": str,
    },
    "progress": {
        "state": str,
        "host": str,
        "pid": int,
        "process_started": (*NUMBER, type(None)),  # unknown without /proc
        "started_after_boot?": (*NUMBER, type(None)),
        "job": str,
        "node?": str,
        "step": int,
        "outer_steps": int,
        "activity": str,
        "seconds_per_step": (*NUMBER, type(None)),
        "time": NUMBER,
        "error?": {"kind": str, "message": str},
    },
    "result": {
        "evaluation": {
            "test_accuracy_mean": NUMBER,
            "test_accuracy_std?": (*NUMBER, type(None)),
            "selection": str,
            "n": int,
        },
        "data": {"source": str, "fingerprint": str},
    },
    "error": {"kind": str, "message": str},
    "evaluations": {
        "of": str,
        "made": dict,
        "begun?": {"name": str, "by": str, "measured": list},
    },
    "job": {"name": FILE_NAME, "task": int, "time": NUMBER, "by_hand?": bool},
    "takeover": {"by": str},
    "anew": {"time": str},
}
# What to do if a file is damaged.
REMEDIES = {
    "config": "the command that started the run restores it",
    "manifest": "restore it, or delete it; a run that is not finished then needs force=true",
    "progress": "delete it; a running process writes it again",
    "result": "delete it; the same command then computes it again from the checkpoint",
    "error": "delete it",
    "evaluations": "delete it; its evaluations are computed again",
    "job": "check with squeue whether the run still has a job, then delete it",
    "takeover": "delete it",
    "anew": "delete it, then force=true again",
}
OF_A_SUBMISSION: dict[str, Shape] = {
    "submission": {"runs": list, "processes": int, "place": list, "profile": dict},
    "accepted": {"job": str},
}


@dataclass(frozen=True)
class SmallFiles:
    """The small JSON files of a run, read at one moment.

    Attributes:
        contents: of the intact files, by name without ".json".
        damages: of the damaged files, by name: what is wrong and what to do, in one line.
        written: when each intact file was written, by the clock of the file server.
        previous: the previous result of a rerun.
    """

    contents: dict[str, dict[str, Any]] = field(default_factory=dict)
    damages: dict[str, str] = field(default_factory=dict)
    written: dict[str, float] = field(default_factory=dict)
    previous: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the run has its result, and no rerun was requested."""
        return "result" in self.contents and not {"anew"} & {*self.contents, *self.damages}


def read_whole(path: Path | str, shape: Shape, remedy: str = "") -> dict[str, Any] | None:
    """The content of a small JSON file, or None if it does not exist.

    Raises:
        Damaged: it cannot be read, or does not have `shape`; the message ends with `remedy`.
    """
    hint = f"; {remedy}" if remedy else ""
    try:
        content = read_json(path)
    except Damaged as error:
        raise Damaged(f"{error}{hint}") from error
    if content is None:
        return None
    if wrong := misfit(content, shape):
        raise Damaged(f"{path} is damaged ({wrong}){hint}")
    return without_checksum(content, path, remedy)


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a file with their checksum, by which a flipped bit is noticed."""
    own = {key: value for key, value in content.items() if key != CHECKSUM}  # of values read before
    return {**own, CHECKSUM: checksum_of(own)}


def without_checksum(
    content: Mapping[str, Any], path: Path | str, remedy: str = ""
) -> dict[str, Any]:
    """The values of a file that `with_checksum` made; or of one of before it was used.

    Raises:
        Damaged: they do not have their checksum; the message ends with `remedy`.
    """
    values = {key: value for key, value in content.items() if key != CHECKSUM}
    hint = f"; {remedy}" if remedy else ""
    if CHECKSUM in content and content[CHECKSUM] != checksum_of(values):
        raise Damaged(f"{path} is damaged (its checksum is another){hint}")
    if CHECKSUM not in content and _has_misnamed_checksum(values):
        raise Damaged(f"{path} is damaged (its checksum has another name){hint}")
    return values


def _has_misnamed_checksum(values: Mapping[str, Any]) -> bool:
    """Whether the last value is the checksum of the others: its name was damaged."""
    *others, last = values or [""]
    return bool(others) and values[last] == checksum_of({key: values[key] for key in others})


def checksum_of(content: Mapping[str, Any]) -> int:
    """The CRC-32 of values, as JSON has them."""
    return zlib.crc32(json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode())


def misfit(content: Any, shape: Shape) -> str:
    """How `content` differs from `shape`, in a few words; empty if it does not."""
    if not isinstance(content, dict):
        return "it is no object of named values"
    for key, expected in shape.items():
        name = key.removesuffix("?")
        if name in content:
            if wrong := _wrong(content[name], expected):
                return f"{name} {wrong}" if wrong.startswith("is") else f"{name}: {wrong}"
        elif name == key:
            return f"it has no {name}"
    return ""


def _wrong(value: Any, expected: Any) -> str:
    if isinstance(expected, Mapping):
        return misfit(value, expected)
    if isinstance(expected, re.Pattern):
        return "" if isinstance(value, str) and expected.fullmatch(value) else "is no name"
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return f"is {shortened(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}"
    return ""


def shortened(value: Any) -> str:
    """The representation of a value, cut to 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
