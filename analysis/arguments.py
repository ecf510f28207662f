"""The request behind a command of the analysis: its arguments as written, and what they mean."""

import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.command_line import keys_of, setting
from bench.config.run_config import RunConfig
from bench.publishing.reading import Published


@dataclass(frozen=True)
class PublishedOptions:
    """Published records."""

    published: str = setting(
        os.environ.get("BENCH_PUBLISHED", "results/published"),
        "folder of published records, which are read where results_root has no newer run; empty:"
        " none ($BENCH_PUBLISHED)",
    )


@dataclass(frozen=True)
class Request:
    """What a command should make.

    Attributes:
        argv: the arguments as written.
        overrides: the settings of runs among them.
        scale: of the runs.
        seeds: how many seeds there should be; 0: as many as a grid states.
        grid: name or path of a grid; empty: the one that belongs to the figure or table.
        only: only these methods, comma-separated.
        published: the published records that are read too.
        unfinished: whether curves show runs that are not finished, as far as they have come.
    """

    argv: Sequence[str]
    overrides: dict[str, Any]
    scale: str
    seeds: int = 0
    grid: str = ""
    only: str = ""
    published: Published = field(default_factory=Published)
    unfinished: bool = False

    def written(self, *keys: str) -> list[str]:
        """The arguments that set these keys, as written."""
        return [argument for argument in self.argv if re.split(r"[.=]", argument)[0] in keys]

    def settings(self) -> list[str]:
        """The settings of runs among the arguments, as written."""
        keys = [key for key in keys_of(RunConfig) if key not in ("scale", "seed")]
        return self.written(*keys)

    def has_paper_settings(self) -> bool:
        """Whether the runs have the settings of scale=paper, whatever selects their checkpoint.
        The paper's code holds nothing out, so `validation_fraction=0` is no change either."""
        given = {key: value for key, _, value in (t.partition("=") for t in self.settings())}
        given.pop("selection", None)
        if float(given.get("validation_fraction", 1)) == 0:
            del given["validation_fraction"]
        return self.scale == "paper" and not given

    def stem(self, what: str) -> str:
        """The name of a file, such as figure5_quick. Settings are part of it, so that figures of
        other settings do not overwrite each other."""
        parts = [what, self.scale]
        other = [_grid_name(self.grid)] if self.grid else []
        other += [*self.settings(), *self.written("only", "seed", "unfinished")]
        suffix = "_".join(re.sub(r"[^A-Za-z0-9+]+", "-", part).strip("-") for part in other)
        if len(suffix) > 80:
            suffix = hashlib.sha256(" ".join(other).encode()).hexdigest()[:12]
        return "_".join([*parts, suffix] if suffix else parts)

    def sweep(self, grid: str, results_root: str = "") -> str:
        """The command that makes the runs of a grid, under `results_root` if another is given."""
        grid = self.grid or grid
        root = [f"results_root={results_root}"] if results_root else self.written("results_root")
        same = [*self.settings(), *self.written("seed", "seeds", "only"), *root]
        words = ["python", "-m", "bench.sweep", f"grid={grid}", f"scale={self.scale}", *same]
        return shlex.join(words)

    def evaluate(self, distilled: Sequence[str], network: str) -> str:
        """The command that tests the distilled sets of runs on a network."""
        return self.for_each("bench.evaluate", distilled, [f"arch={network}"])

    def for_each(self, module: str, distilled: Sequence[str], settings: Sequence[str]) -> str:
        """The command that runs a module with these settings on the distilled set of each run."""
        same = [*settings, *self.written("results_root")]
        if len(distilled) == 1:
            return shlex.join(["python", "-m", module, f"distilled={distilled[0]}", *same])
        return (
            f"for run in {shlex.join(distilled)}; do"
            f' python -m {module} "distilled=$run" {shlex.join(same)}; done'
        )


def _grid_name(grid: str) -> str:
    """Its name; with a hash of its folder, as another folder may have a grid of that name."""
    path = Path(grid)
    if path.parent == Path():
        return path.stem
    return f"{path.stem}-{hashlib.sha256(str(path.parent).encode()).hexdigest()[:4]}"


def sweeps_first(commands: Iterable[str]) -> list[str]:
    """Each command once; those that make runs come before those that test distilled sets."""
    return sorted(dict.fromkeys(commands), key=lambda line: "bench.sweep" not in line)
