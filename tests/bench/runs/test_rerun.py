"""A rerun keeps the previous result until it has a new one, wherever it is stopped."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from bench.config.resolve import resolve
from bench.evaluation.distilled_set import DistilledSet
from bench.evaluation.interpretation import SubjectOptions
from bench.runs.heartbeat import progress_of
from bench.runs.rerun import remove_previous, start_rerun
from bench.runs.run_folder import RunFolder, Store
from bench.runs.subject import load

PARTS = ("manifest.json", "metrics.jsonl", "checkpoint.pt", "distilled.safetensors", "result.json")
CHANGES = ("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.copyfile")
WHOLE = {
    "manifest.json": {"data": {"fingerprint": "0"}, "starts": []},
    "result.json": {
        "evaluation": {"test_accuracy_mean": 0.5, "selection": "validation", "n": 2},
        "data": {"source": "made up", "fingerprint": "0"},
    },
}


class Killed(BaseException):
    """Stands for a kill just before some change in a file system."""


class Killer:
    """Kills before the n-th change from when it is set, counted from 0."""

    def __init__(self) -> None:
        self.left: int | None = None

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left is None or event not in CHANGES:
            return
        self.left -= 1
        if self.left < 0:
            self.left = None
            raise Killed


KILLER = Killer()
sys.addaudithook(KILLER)  # can never be removed


@pytest.fixture
def kill_at() -> Iterator[Callable[[int], None]]:
    def kill_at(number: int) -> None:
        KILLER.left = number

    yield kill_at
    KILLER.left = None


def write_result(folder: RunFolder, which: str) -> None:
    for name in PARTS:
        (folder.path / name).write_text(json.dumps({"of": which, **WHOLE.get(name, {})}))


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    config = resolve({"scale": "quick", "dataset": "digits"})
    run = Store(tmp_path).run(config)
    run.create(config)
    write_result(run, "old")
    (run.path / "log.txt").write_text("what the old one printed")
    return run


def rerun(run: RunFolder) -> None:
    """All that changes a folder from the request to the new result, as `execute.py` does it."""
    run.request_rerun()
    finish(run)


def finish(run: RunFolder) -> None:
    """As the next command does it, without force."""
    if not run.is_done():
        start_rerun(run)
        write_result(run, "new")
    remove_previous(run)


def shown(run: RunFolder) -> set[str]:
    """Whose files are shown."""
    return {json.loads((run.with_result.path / name).read_text())["of"] for name in PARTS}


@pytest.mark.parametrize("links", [True, False])
def test_wherever_it_is_killed_one_whole_result_is_shown_and_the_next_start_makes_the_other(
    finished: RunFolder,
    kill_at: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    links: bool,
) -> None:
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    number, begun = 0, 0
    while True:
        write_result(finished, "old")
        kill_at(number)
        try:
            rerun(finished)
        except Killed:
            pass
        else:
            break
        number += 1
        assert finished.has_result()
        assert shown(finished) in ({"old"}, {"new"}), number
        # Where it was done, the request had not been written yet, or the new result was there.
        expected = shown(finished) if finished.is_done() else {"new"}
        begun += not finished.is_done()
        finish(finished)
        assert finished.is_done()
        assert shown(finished) == expected
        assert {path.name for path in finished.path.iterdir() if path.is_dir()} <= {".previous"}
    assert shown(finished) == {"new"}
    assert begun > 10


def test_a_kill_while_the_new_run_is_made_leaves_the_old_result_and_the_new_checkpoint(
    finished: RunFolder,
) -> None:
    finished.request_rerun()
    start_rerun(finished)
    (finished.path / "checkpoint.pt").write_text(json.dumps({"of": "new"}))
    (finished.path / "metrics.jsonl").write_text(json.dumps({"of": "new"}))
    assert shown(finished) == {"old"}
    assert finished.with_result.name == finished.name
    assert finished.with_result.config() == finished.config()
    assert not finished.is_done()
    start_rerun(finished)  # the next start goes on: nothing asks for a new one
    assert (finished.path / "checkpoint.pt").read_text() == json.dumps({"of": "new"})
    finished.request_rerun()  # asked once more, and it is the last whole result that stays
    start_rerun(finished)
    assert not (finished.path / "checkpoint.pt").exists()
    assert shown(finished) == {"old"}


def test_what_is_asked_for_is_not_done_until_it_has_begun_and_tells_so(
    finished: RunFolder,
) -> None:
    assert progress_of(finished).state == "done"
    finished.write("error", {"kind": "error", "message": "of an earlier time"})
    finished.request_rerun()
    assert progress_of(finished).state == "waiting"
    assert shown(finished) == {"old"}
    start_rerun(finished)
    assert progress_of(finished).state == "waiting"
    assert (finished.with_result.read("result") or {})["of"] == "old"
    assert (finished.path / "log.txt").exists()


def test_the_distilled_set_of_a_rerun_is_the_previous_one(finished: RunFolder) -> None:
    images, labels = torch.rand(10, 1, 8, 8), torch.eye(10)
    path = finished.path / "distilled.safetensors"
    DistilledSet(images, labels, {"classes": list("0123456789")}).save(path)
    finished.request_rerun()
    start_rerun(finished)
    path.write_text("that the new run may have stored, but not evaluated")
    found = load(SubjectOptions(distilled=str(finished.path)))
    assert torch.equal(found.images, images)


def test_a_rerun_without_a_result_starts_with_nothing(finished: RunFolder) -> None:
    finished.remove("result.json")
    finished.request_rerun()
    start_rerun(finished)
    assert not finished.has_result()
    assert {path.name for path in finished.path.iterdir()} == {"config.json", "log.txt"}
