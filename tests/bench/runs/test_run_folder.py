"""Run folders: nothing half-written, one process at a time."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from bench.config.resolve import resolve
from bench.runs.run_folder import RunFolder, Store
from bench.runs.run_lock import RunIsTaken, is_being_run, lock
from bench.system.errors import UserError
from bench.system.files import (
    ORPHANED_AFTER_SECONDS,
    atomic_write,
    make_folder,
    read_json,
    remove_orphans,
    write_json,
)
from tests.waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    config = resolve({"scale": "quick", "dataset": "digits"})
    run = Store(tmp_path).run(config)
    run.create(config)
    return run


def write_half(path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("half of a")
        raise RuntimeError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"old": True})
    with pytest.raises(RuntimeError):
        write_half(path)
    assert read_json(path) == {"old": True}
    assert os.listdir(tmp_path) == ["file.json"]


def test_temporary_files_in_a_shared_folder_are_removed_once_no_process_can_be_writing_them(
    tmp_path: Path,
) -> None:
    young, old = tmp_path / ".one.json.abcdefgh.json", tmp_path / ".two.json.abcdefgh.json"
    for path in (young, old, tmp_path / "three.json"):
        path.write_text("half of a")
    killed = time.time() - 2 * ORPHANED_AFTER_SECONDS
    for path in (old, tmp_path / "three.json"):
        os.utime(path, (killed, killed))
    remove_orphans(tmp_path, by_others=None)
    assert sorted(os.listdir(tmp_path)) == [young.name, "three.json"]
    remove_orphans(tmp_path, by_others=["two.json"])
    assert os.listdir(tmp_path) == ["three.json"]


def test_the_configuration_comes_back_as_it_was(folder: RunFolder) -> None:
    config = resolve({"scale": "quick", "dataset": "digits"})
    assert folder.config() == config
    assert [run.name for run in Store(folder.path.parent.parent).runs()] == [folder.name]


def test_a_configuration_of_another_schema_is_refused(folder: RunFolder) -> None:
    content = json.loads((folder.path / "config.json").read_text())
    (folder.path / "config.json").write_text(json.dumps({**content, "schema": -1}))
    with pytest.raises(UserError, match="schema"):
        folder.config()


def hold(path: Path, held: object, release: object) -> None:
    with lock(RunFolder(path)):
        held.set()  # type: ignore[attr-defined]
        release.wait()  # type: ignore[attr-defined]


def test_a_run_is_made_by_one_process_and_freed_by_its_death(folder: RunFolder) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(folder.path, held, release))
    process.start()
    wait_until(lambda: held.is_set() or not process.is_alive(), "the lock")
    assert held.is_set()
    assert is_being_run(folder)
    with pytest.raises(RunIsTaken), lock(folder):
        pass
    process.kill()
    process.join()
    assert not is_being_run(folder)
    with lock(folder):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"results folder .*file/below"):
        make_folder(tmp_path / "file" / "below", "results folder")
