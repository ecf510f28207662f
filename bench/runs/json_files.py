"""The small JSON files of runs and submissions: what must be in them for anybody to rely on it, and
what to do where it is not. A file that fails this is named, and spares all others."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.system.errors import Damaged
from bench.system.files import read_json

# By key what its value must be: types, a pattern of a text, or the same of an object within. A key
# with a question mark may be missing.
Shape = Mapping[str, Any]

NUMBER = (int, float)
FILE_NAME = re.compile(r"\w[\w.-]*")

OF_A_RUN: dict[str, Shape] = {
    "config": {"schema": int, "command?": str},
    "manifest": {"data": {"fingerprint": str}, "starts": list, "threads?": int, "compiled?": bool},
    "progress": {
        "state": str,
        "host": str,
        "pid": int,
        "process_started": (*NUMBER, type(None)),  # not told without /proc
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
    "evaluations": {"of": str, "made": dict},
    "job": {"name": FILE_NAME, "task": int, "time": NUMBER, "by_hand?": bool},
    "takeover": {"by": str},
    "anew": {"time": str},
}
# What a user does about each.
REMEDIES = {
    "config": "the command that made the run restores it",
    "manifest": "restore it, or delete it; a run that is not finished then needs force=true",
    "progress": "delete it; a run at work writes it anew",
    "result": "delete it; the same command then makes it anew from the checkpoint",
    "error": "delete it",
    "evaluations": "delete it; what it held is computed again",
    "job": "look with squeue whether the run still has a job, then delete it",
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
    """The content of a small JSON file, or None where there is none.

    Raises:
        Damaged: it cannot be read, or lacks something of `shape`; the message ends in `remedy`.
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
    return content


def misfit(content: Any, shape: Shape) -> str:
    """What of `content` is not as `shape` wants it, in a few words; empty where all is."""
    if not isinstance(content, dict):
        return "it is no object of named values"
    for key, wanted in shape.items():
        name = key.removesuffix("?")
        if name in content:
            if wrong := _wrong(content[name], wanted):
                return f"{name} {wrong}" if wrong.startswith("is") else f"{name}: {wrong}"
        elif name == key:
            return f"it has no {name}"
    return ""


def _wrong(value: Any, wanted: Any) -> str:
    if isinstance(wanted, Mapping):
        return misfit(value, wanted)
    if isinstance(wanted, re.Pattern):
        return "" if isinstance(value, str) and wanted.fullmatch(value) else "is no name"
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return f"is {shortened(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}"
    return ""


def shortened(value: Any) -> str:
    """A value as it is written, cut after a few words."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
