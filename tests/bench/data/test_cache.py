"""The cache of decoded images: built once, never read when it is damaged."""

import threading
from pathlib import Path

import pytest
import torch

from bench.data import cache, load_raw
from bench.system.errors import UserError
from tests.bench.data.small_copies import failure, pictures, zip_of


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    zip_of(tmp_path, pictures())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file/decoded cannot be written"):
        load_raw("cifar10", tmp_path, tmp_path / "file")


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    zip_of(tmp_path, pictures())
    monkeypatch.setattr(cache, "save_file", no_space)
    assert "No space left on device" in failure(tmp_path)
    assert [p.suffix for p in (tmp_path / "cache" / "decoded").iterdir()] in ([], [".lock"])


def test_a_complete_cache_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zip_of(tmp_path, pictures())
    first = load_raw("cifar10", tmp_path, tmp_path / "cache")
    for name in ("make_folder", "locked", "atomic_write"):
        monkeypatch.setattr(cache, name, lambda *_, **__: pytest.fail("tried to write"))
    assert load_raw("cifar10", tmp_path, tmp_path / "cache").fingerprint == first.fingerprint


def test_simultaneous_loads_build_once_and_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zip_of(tmp_path, pictures())
    builds, start, fingerprints = [], threading.Barrier(4), []
    save = cache.save
    monkeypatch.setattr(cache, "save", lambda *args: (builds.append(1), save(*args)))

    def load() -> None:
        start.wait()
        fingerprints.append(load_raw("cifar10", tmp_path, tmp_path / "cache").fingerprint)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert len(fingerprints) == 4
    assert len(set(fingerprints)) == 1


def test_what_a_killed_writer_left_is_removed_and_never_read(tmp_path: Path) -> None:
    path = tmp_path / "thing.safetensors"
    orphan = tmp_path / f".{path.name}.abc.safetensors"
    orphan.write_bytes(b"half a file")
    stored = cache.load_or_build(path, lambda: cache.Stored({"x": torch.arange(3)}, {"a": 1}))
    assert torch.equal(stored.tensors["x"], torch.arange(3))
    assert stored.facts == {"a": 1}
    assert not orphan.exists()
