"""Locks on files that one process at a time writes, also where the file system has none."""

import threading
from pathlib import Path

import pytest

from bench.system.errors import Unwritable, UserError
from bench.system.locks import locked
from tests.waiting import wait_until

LOST = "12\nnode7?9\n77\n"  # what filelock writes where the system has no locks


def test_a_second_process_is_refused_or_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, got = tmp_path / "lock", threading.Event()

    def wait() -> None:
        with locked(path, "somebody writes", wait=True):
            got.set()

    with locked(path, "somebody writes"):
        with pytest.raises(UserError, match=r"^somebody writes$"), locked(path, "somebody writes"):
            pass
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        wait_until(lambda: "waiting: somebody writes\n" in capsys.readouterr().out, "it says so")
        assert not got.is_set()
    waiting.join()
    assert got.is_set()


def test_without_locks_the_file_of_a_lost_process_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_locks: None
) -> None:
    path, got = tmp_path / "lock", threading.Event()
    with locked(path, "it is being built"):
        assert path.read_text()
    assert not path.exists()
    path.write_text(LOST)
    said = f"it is being built: process 12 on node7; if it has ended, delete {path}"
    with pytest.raises(UserError) as refused, locked(path, "it is being built"):
        pass
    assert str(refused.value) == said

    def wait() -> None:
        with locked(path, "it is being built", wait=True, quiet=True):
            got.set()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    wait_until(lambda: f"waiting: {said}\n" in capsys.readouterr().out, "it says so")
    path.unlink()  # as the user was told
    waiting.join()
    assert got.is_set()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unwritable, match="file/lock"), locked(tmp_path / "file" / "lock", "x"):
        pass
