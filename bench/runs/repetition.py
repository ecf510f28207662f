"""A run made again from its manifest (`bench.run from=`), and what differs from the first time.

The second run has a folder of its own, `results_root/repeats/runs/<name>`. Nothing of the first one
is changed, and nothing but its manifest is needed; what it recorded is compared if it is there.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.config.run_config import Environment, RunConfig
from bench.config.values import shown
from bench.runs.configuration import read_config
from bench.runs.json_files import OF_A_RUN, REMEDIES, read_whole
from bench.runs.run_folder import SET_FILE, RunFolder, Store
from bench.system.errors import UserError
from bench.system.files import exists
from bench.system.text import accuracy_text, count

FOLDER = "repeats"
TIMES = ("seconds", "probe_seconds")  # in the records; never the same twice
NORMS = ("gradient_norm", "image_gradient_norm")

MANIFEST = "manifest.json"

Record = dict[str, Any]


@dataclass(frozen=True)
class FirstRun:
    """The run to make again.

    Attributes:
        folder: of the manifest and, if they are there, the records.
        manifest: as `record_start` wrote it.
    """

    folder: RunFolder
    config: RunConfig
    manifest: Record

    @classmethod
    def read(cls, path: Path) -> "FirstRun":
        """The run of a folder, or of a manifest.json anywhere.

        Raises:
            UserError: there is no manifest, or it is of another version.
            Damaged: it is, or what the run recorded, which would be compared.
        """
        if not exists(path):
            raise UserError(f"from={shown(path)}: there is no such run folder or manifest.json")
        place = path.parent if path.suffix == ".json" else path
        file = path if path.suffix == ".json" else RunFolder(place).with_result.path / MANIFEST
        manifest = read_whole(file, OF_A_RUN["manifest"], REMEDIES["manifest"])
        if manifest is None:
            raise UserError(f"from={path}: it has no {MANIFEST}, which is all that is needed")
        # Manifests had no configuration before `from=` existed; then its own file is read.
        content = manifest.get("config")
        if content is None:
            config = RunFolder(place).config()
        else:
            method = content["method"].rpartition(":")[2]
            name = f"{method}-{manifest.get('identity')}"
            config = read_config(content, name, str(file), REMEDIES["manifest"])
        folder = RunFolder(place).with_result
        folder.compare()
        return cls(folder, config, manifest)

    def environment(self, environment: Environment, given: Record) -> Environment:
        """The environment of the second run: with as many threads as the first one, and compiled
        if that was, unless the command line says otherwise."""
        before: Record = {}
        if threads := self.manifest.get("threads"):
            before["threads"] = threads
        if "compiled" in self.manifest:
            before["compile"] = "always" if self.manifest["compiled"] else "never"
        return replace(environment, **{k: v for k, v in before.items() if k not in given})

    def second(self, environment: Environment) -> RunFolder:
        """The folder of the second run.

        Raises:
            UserError: it is that of the first one.
        """
        again = Store(Path(environment.results_root) / FOLDER).run(self.config)
        if again.path.resolve() == self.folder.path.resolve():
            raise UserError(
                f"from={self.folder.path} is where the run would be repeated; give the folder of"
                " the first run, or another results_root"
            )
        return again

    @property
    def fingerprint(self) -> str:
        """Of the data that the run was made on."""
        return self.manifest["data"]["fingerprint"]


def report(first: FirstRun, second: RunFolder) -> list[str]:
    """What differs between two runs, in lines: what produced them, then what they recorded."""
    manifest = second.read("manifest") or {}
    lines = [f"compared with {first.folder.path}:"]
    made = list(_differences_of_manifests(first.manifest, manifest))
    lines += made or ["versions, hardware, threads and commit: the same"]
    lines += _differences_of_steps(_records(first.folder, "metrics"), _records(second, "metrics"))
    measured = [_records(folder, "measurements") for folder in (first.folder, second)]
    lines += _difference_of_measurements(*measured)
    lines += _differences_of_results(first.folder.read("result"), second.read("result"))
    lines += _differences_of_sets(first.folder.path / SET_FILE, second.path / SET_FILE)
    return [lines[0], *(f"  {line}" for line in lines[1:])]


# --- what produced the numbers


def _differences_of_manifests(first: Record, second: Record) -> Iterator[str]:
    one, other = _facts(first), _facts(second)
    for what in dict.fromkeys([*one, *other]):
        before, now = one.get(what, ["not recorded"]), other.get(what, ["not recorded"])
        if before != now:
            yield f"{what}: {' and '.join(before)}, now {' and '.join(now)}"


def _facts(manifest: Record) -> dict[str, list[str]]:
    """What can change a number, by name, with each value that it had in some start of the run."""
    facts: dict[str, list[str]] = {}
    for start in manifest.get("starts", []):  # none if it ended before it began
        hardware = {
            key: value
            for key, value in (start.get("hardware") or {}).items()
            if key in ("cpu", "cpu_capability", "device", "gpu", "cuda")
        }
        changed = " with uncommitted changes" if start.get("uncommitted_changes") else ""
        values = {
            **(start.get("versions") or {}),
            **hardware,
            "processes": start.get("world_size", 1),
            "commit": f"{start.get('commit', 'unknown')}{changed}",
        }
        for name, value in values.items():
            if str(value) not in facts.setdefault(name, []):
                facts[name].append(str(value))
    for name in ("threads", "compiled"):
        facts[name] = [str(manifest.get(name, "unknown"))]
    return facts


# --- what they recorded


def _records(folder: RunFolder, name: str) -> list[Record]:
    """The lines of a record; of a published run the rows of its table."""
    table = folder.path / f"{name}.parquet"
    if not (folder.path / f"{name}.jsonl").exists() and table.exists():
        import pyarrow.parquet

        return pyarrow.parquet.read_table(table).to_pylist()
    return folder.records(name)


def _differences_of_steps(first: list[Record], second: list[Record]) -> Iterator[str]:
    if not first:
        yield "outer steps: the first run has no records to compare"
        return
    pairs = list(zip(first, second, strict=False))
    unequal = [number for number, pair in enumerate(pairs) if _unequal(*pair)]
    steps = count(len(pairs), "outer step")
    if len(first) != len(second):
        yield f"outer steps: {len(first)} recorded, now {len(second)}; {len(pairs)} are compared"
    if not unequal:
        yield f"{steps}: equal bit for bit"
        return
    one, other = pairs[unequal[0]]
    yield f"outer steps: the first that differs is {one['step']}, of {steps}"
    for key in _unequal(one, other):
        size = f" (relative difference {_relative(one[key], other[key]):.1e})"
        yield f"  {key} {one[key]}, now {other[key]}{'' if isinstance(one[key], bool) else size}"
    for key in NORMS:
        sizes = [_relative(a[key], b[key]) for a, b in pairs if key in a and key in b]
        if sizes:
            half = sorted(sizes)[len(sizes) // 2]
            yield f"{key}: relative differences up to {max(sizes):.1e}, median {half:.1e}"


def _difference_of_measurements(first: list[Record], second: list[Record]) -> Iterator[str]:
    pairs = list(zip(first, second, strict=False))
    unequal = [(one, other) for one, other in pairs if _unequal(one, other)]
    if not unequal:
        if pairs:
            yield f"{count(len(pairs), 'measurement')}: equal bit for bit"
        return
    one, other = unequal[0]
    keys = _unequal(one, other)
    yield (
        f"measurements: {len(unequal)} of {len(pairs)} differ, first at outer step {one['step']}:"
        f" {keys[0]} {one[keys[0]]}, now {other[keys[0]]}"
    )


def _differences_of_results(first: Record | None, second: Record | None) -> Iterator[str]:
    if first is None or second is None:
        missing = "the first run" if first is None else "the repetition"
        yield f"final accuracy: {missing} has no result"
        return
    for key in ("distilled_step", "storage_floats"):
        if first.get(key) != second.get(key):
            yield f"{key}: {first.get(key)}, now {second.get(key)}"
    one, other = first["evaluation"], second["evaluation"]
    same = "equal bit for bit" if not _unequal(one, other) else f"now {accuracy_text(other)}"
    yield f"final accuracy: {accuracy_text(one)}, {same}"


def _differences_of_sets(first: Path, second: Path) -> Iterator[str]:
    if not (first.exists() and second.exists()):
        return
    from safetensors.numpy import load_file

    one, other = load_file(first), load_file(second)
    if one["images"].dtype == other["images"].dtype:  # published sets may be rounded
        equal = all((one[name] == other[name]).all() for name in one)
        yield f"distilled set: {'equal bit for bit' if equal else 'differs'}"


def _unequal(one: Record, other: Record) -> list[str]:
    """The keys of two records that both have, times apart, whose values differ."""
    return [
        key
        for key in one
        if key in other and key not in TIMES and json.dumps(one[key]) != json.dumps(other[key])
    ]


def _relative(one: Any, other: Any) -> float:
    if one == other:
        return 0.0
    if not all(isinstance(value, int | float) for value in (one, other)):
        return math.nan
    return abs(one - other) / max(abs(one), abs(other))
