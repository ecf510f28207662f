"""A flipped bit, a missing part or another version, in any file of a run, a cache or published
records: it is found and named, and replaced or refused; it is never used."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.data import cache
from bench.evaluation.distilled_set import load_distilled_set
from bench.publishing.catalog import SUMS, check, digest
from bench.publishing.reading import Published
from bench.runs.execute import Interrupted
from bench.runs.heartbeat import progress_of
from bench.runs.records import CHECKPOINT, CHECKPOINT_BEFORE
from bench.runs.run_folder import RunFolder
from bench.system.errors import UserError
from tests.reliability.small_run import SmallRun

Cases = Callable[[int, int], int]
Figure = Callable[[str, object], None]

# Not read by anything that computes or shows results.
OF_NO_RESULT = ("lock", "distilled.png", "uncommitted.diff")
# Damage of these costs the work since the checkpoint before, at most.
RESTORED = (CHECKPOINT, CHECKPOINT_BEFORE, "manifest.json", "evaluations.json", "progress.json")


def damage(path: Path, draw: random.Random) -> str:
    """Flip a bit of a file, cut it short, or overwrite a part with zeros, as disks do."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    match draw.choice(["bit", "bit", "bit", "cut", "zeros"]):
        case "bit":
            content[place] ^= 1 << draw.randrange(8)
            what = f"a bit of byte {place}"
        case "cut":
            del content[place:]
            what = f"cut to {place} bytes"
        case _:
            content[place : place + 64] = bytes(len(content[place : place + 64]))
            what = f"zeros from byte {place}"
    path.write_bytes(content)
    return f"{path.name}: {what}"


def refusal_of(action: Callable[[], object]) -> str:
    """The message of the error for the user that an action ends with; empty if it has none."""
    try:
        action()
    except UserError as error:
        return str(error)
    return ""


class Stopping:
    """A reporter that interrupts a run at a point of its life."""

    def __init__(self, at: str) -> None:
        self.at, self.steps = at, 0

    def stepped(self, record: object) -> None:
        self.steps += 1
        if self.at == "step" and self.steps == 3:
            raise Interrupted("for a test")

    def evaluating(self, what: str, trained: int, networks: int) -> None:
        if self.at == "evaluation" and what:  # the first evaluation is saved
            raise Interrupted("for a test")

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


@pytest.fixture
def undisturbed(tmp_path: Path, cache_root: Path) -> SmallRun:
    run = SmallRun(tmp_path / "undisturbed", cache_root)
    run.execute()
    return run


@pytest.mark.parametrize("stage", ["step", "evaluation"])
def test_a_damaged_file_of_an_interrupted_run_is_replaced_or_refused_by_name(
    undisturbed: SmallRun,
    tmp_path: Path,
    cache_root: Path,
    cases: Cases,
    figure: Figure,
    stage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun, run = (SmallRun(tmp_path / name, cache_root) for name in ("begun", "results"))
    with pytest.raises(Interrupted):
        begun.execute(Stopping(stage))
    files = [
        path
        for path in sorted(begun.folder.path.iterdir())
        if path.name not in OF_NO_RESULT and path.stat().st_size
    ]
    assert {CHECKPOINT, CHECKPOINT_BEFORE, "config.json", "manifest.json", "metrics.jsonl"} <= {
        path.name for path in files
    }
    assert (stage == "evaluation") == any(path.name == "evaluations.json" for path in files)
    draw, replaced, refused = random.Random(stage), 0, set()
    for number in range(cases(len(files), 300)):
        shutil.copytree(begun.root, run.root)
        what = damage(run.folder.path / files[number % len(files)].name, draw)
        capsys.readouterr()
        refusal = refusal_of(run.execute)
        if refusal:
            name = what.partition(":")[0]
            assert name in refusal, what
            assert "; " in refusal, "it says what to do"
            assert name not in RESTORED
            refused.add(name)
        else:
            replaced += 1
            assert run.outcome() == undisturbed.outcome(), what
        shutil.rmtree(run.root)
    figure(
        f"{cases(len(files), 300)} damaged files of a run interrupted in its {stage}",
        f"{replaced} went on to equal results, others refused by name: {', '.join(refused) or '-'}",
    )


def test_a_damaged_file_of_a_finished_run_is_never_used(
    undisturbed: SmallRun, tmp_path: Path, cache_root: Path, cases: Cases, figure: Figure
) -> None:
    run = SmallRun(tmp_path / "results", cache_root)
    names = ("config.json", "result.json", "metrics.jsonl", "measurements.jsonl")
    names = (*names, "distilled.safetensors", "manifest.json")
    draw, found = random.Random(1), 0
    for number in range(cases(60, 2000)):
        shutil.copytree(undisturbed.root, run.root)
        what = damage(run.folder.path / names[number % len(names)], draw)
        refusal = refusal_of(lambda: whole(run.folder))
        if refusal:
            assert what.partition(":")[0] in refusal
            found += 1
        else:  # spaces between values of JSON, or the command that made the folder
            assert whole(run.folder) == whole(undisturbed.folder), what
        assert progress_of(run.folder).state in ("done", "damaged")
        shutil.rmtree(run.root)
    figure(
        f"{cases(60, 2000)} damaged files of a finished run",
        f"{found} found and named, in the others the damage changes no value",
    )


def whole(folder: RunFolder) -> Any:
    """What is read of a finished run by figures and commands."""
    config, result, manifest = folder.config(), folder.read("result"), folder.read("manifest")
    folder.compare()
    tensors = load_distilled_set(folder.path / "distilled.safetensors")
    lines = folder.records("metrics"), folder.records("measurements")
    labels = None if tensors.labels is None else tensors.labels.tolist()
    return config, result, manifest, repr(lines), tensors.images.tolist(), labels


def test_files_of_another_version_are_refused_with_what_to_do(
    undisturbed: SmallRun, tmp_path: Path, cache_root: Path
) -> None:
    run = SmallRun(tmp_path / "results", cache_root)
    with pytest.raises(Interrupted):
        run.execute(Stopping("step"))
    state = torch.load(run.folder.path / CHECKPOINT, weights_only=True)
    for lacking in ("distillation", "seconds", "best"):
        torch.save({k: v for k, v in state.items() if k != lacking}, run.folder.path / CHECKPOINT)
        with pytest.raises(UserError, match="does not belong to this config"):
            run.execute()
    config = json.loads((run.folder.path / "config.json").read_text())
    run.folder.write("config", {**config, "schema": 1})
    with pytest.raises(UserError, match="written by an earlier version"):
        run.folder.config()


def test_a_missing_manifest_is_written_again_as_the_checkpoint_has_it(
    tmp_path: Path, cache_root: Path, undisturbed: SmallRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = SmallRun(tmp_path / "results", cache_root)
    with pytest.raises(Interrupted):
        run.execute(Stopping("step"))
    before = run.folder.read("manifest")
    run.folder.remove("manifest.json")
    run.execute()
    assert "manifest.json is missing; written again" in capsys.readouterr().err
    after = run.folder.read("manifest")
    assert before is not None
    assert after is not None
    assert after["starts"][:-1] == before["starts"]
    assert run.outcome() == undisturbed.outcome()


def test_a_damaged_cache_is_built_again(tmp_path: Path, cases: Cases, figure: Figure) -> None:
    path, draw = tmp_path / "images", random.Random(2)
    stored = cache.Stored({"images": torch.randn(20, 3), "labels": torch.arange(20)}, {"n": 20})
    cache.save(path, stored)
    whole_file, rebuilt = path.read_bytes(), 0

    def build() -> cache.Stored:
        nonlocal rebuilt
        rebuilt += 1
        return stored

    for _ in range(cases(200, 5000)):
        path.write_bytes(whole_file)
        what = damage(path, draw)
        loaded = cache.load_or_build(path, build)
        assert loaded.facts == stored.facts, what
        assert loaded.tensors.keys() == stored.tensors.keys(), what
        assert all(torch.equal(loaded.tensors[k], t) for k, t in stored.tensors.items()), what
    assert rebuilt > 0
    figure(f"{cases(200, 5000)} damaged caches of images", f"{rebuilt} built again, none used")


def test_damaged_published_records_are_named_and_not_read(
    undisturbed: SmallRun, tmp_path: Path, cases: Cases, figure: Figure
) -> None:
    root, draw = tmp_path / "published", random.Random(3)
    name, source = undisturbed.folder.name, undisturbed.folder.path
    names = ("config.json", "manifest.json", "result.json", "distilled.safetensors")
    contents = {f"runs/{name}/{one}": (source / one).read_bytes() for one in names}
    lines = [f"{digest(content)}  {path}\n" for path, content in contents.items()]
    contents[SUMS] = "".join(lines).encode()
    found = 0
    for number in range(cases(100, 2000)):
        for path, content in contents.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        assert [run.name for run in Published(root).runs()] == [name]
        path = root / [*contents][number % len(contents)]
        what = damage(path, draw)
        refusal = refusal_of(lambda: Published(root).runs())
        if refusal:
            assert SUMS in refusal
        else:
            assert Published(root).runs() == [], what
            assert check(root), what
        found += 1
    figure(f"{cases(100, 2000)} damaged published records", f"{found} found, none read")
