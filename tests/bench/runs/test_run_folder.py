"""The run store: nothing half-written, nothing believed that is damaged."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from bench.config.resolve import resolve
from bench.runs.run_folder import RunFolder, RunIsTaken, Store
from bench.system.errors import UserError
from bench.system.files import atomic_write, make_folder, read_json, write_json
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


def test_the_configuration_comes_back_as_it_was(folder: RunFolder) -> None:
    config = resolve({"scale": "quick", "dataset": "digits"})
    assert folder.config() == config
    assert [run.name for run in Store(folder.path.parent.parent).runs()] == [folder.name]


def test_a_configuration_of_another_schema_is_refused(folder: RunFolder) -> None:
    content = json.loads((folder.path / "config.json").read_text())
    (folder.path / "config.json").write_text(json.dumps({**content, "schema": -1}))
    with pytest.raises(UserError, match="schema"):
        folder.config()


def test_a_damaged_checkpoint_is_noticed_wherever_the_damage_matters(folder: RunFolder) -> None:
    images = torch.randn(100)
    folder.save_checkpoint({"images": images, "step": 3})
    path = folder.path / "checkpoint.pt"
    whole = path.read_bytes()
    data = whole.find(images.numpy().tobytes())
    noticed: list[int] = []
    for position in [data, data + 399, *range(0, len(whole), 37)]:
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            loaded = folder.load_checkpoint()
        except UserError:
            noticed.append(position)
        else:  # padding between the parts of the file
            assert loaded is not None
            assert torch.equal(loaded["images"], images)
            assert loaded["step"] == 3
    assert {data, data + 399} <= set(noticed)
    assert len(noticed) > 10


def test_a_checkpoint_that_was_cut_short_is_noticed(folder: RunFolder) -> None:
    folder.save_checkpoint({"images": torch.randn(1000)})
    path = folder.path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="force=true"):
        folder.load_checkpoint()


def test_records_are_cut_back_to_what_the_checkpoint_states(folder: RunFolder) -> None:
    with folder.recorder({}) as recorder:
        recorder.append("metrics", {"step": 0})
        sizes = recorder.sizes()
        recorder.append("metrics", {"step": 1, "loss": float("nan")})
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')  # a kill in the middle of a line
    assert [record["step"] for record in folder.records("metrics")] == [0, 1]
    with folder.recorder(sizes) as recorder:
        recorder.append("metrics", {"step": 1})
    assert folder.records("metrics") == [{"step": 0}, {"step": 1}]


def test_records_shorter_than_the_checkpoint_says_are_refused(folder: RunFolder) -> None:
    with pytest.raises(UserError, match="shorter"), folder.recorder({"metrics.jsonl": 10}):
        pass


def hold(path: Path, held: object, release: object) -> None:
    with RunFolder(path).lock():
        held.set()  # type: ignore[attr-defined]
        release.wait()  # type: ignore[attr-defined]


def test_a_run_is_made_by_one_process_and_freed_by_its_death(folder: RunFolder) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(folder.path, held, release))
    process.start()
    wait_until(lambda: held.is_set() or not process.is_alive(), "the lock")
    assert held.is_set()
    assert folder.is_taken()
    with pytest.raises(RunIsTaken), folder.lock():
        pass
    process.kill()
    process.join()
    assert not folder.is_taken()
    with folder.lock():
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"results folder .*file/below"):
        make_folder(tmp_path / "file" / "below", "results folder")
