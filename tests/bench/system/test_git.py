"""What is recorded of the source tree."""

import subprocess
from pathlib import Path

import pytest

from bench.system import git


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of another source tree, which is a repository with a commit."""
    monkeypatch.setattr(git, "SOURCE", tmp_path)
    path = tmp_path / "notes.txt"
    path.write_text("before\n")
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    return path


def test_changes_in_any_encoding_are_recorded_so_that_git_can_apply_them(changed: Path) -> None:
    assert git.commit()["uncommitted_changes"] is False
    git.record_uncommitted_diff(changed.parent)
    assert not (changed.parent / git.DIFF_FILE).exists()

    changed.write_bytes(b"caf\xe9\n")
    assert git.commit()["uncommitted_changes"] is True
    git.record_uncommitted_diff(changed.parent)
    changed.write_text("before\n")
    apply = ["git", "-C", str(changed.parent), "apply", git.DIFF_FILE]
    subprocess.run(apply, check=True)
    assert changed.read_bytes() == b"caf\xe9\n"


def test_the_user_s_settings_of_git_do_not_change_the_record(
    changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "-C", str(changed.parent), "config", "color.ui", "always"], check=True)
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    changed.write_text("after\n")
    assert git.uncommitted_diff().endswith(b"\n-before\n+after\n")


def test_large_changes_are_cut_and_the_record_says_so(
    changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git, "LARGEST_DIFF", 200)
    changed.write_text("after\n" * 100)
    git.record_uncommitted_diff(changed.parent)
    *kept, last = (changed.parent / git.DIFF_FILE).read_text().splitlines()
    assert kept[-1] == "+after"
    assert sum(len(line) + 1 for line in kept) <= 200
    assert last.startswith("[cut here: ")
    assert last.endswith(f" of {len(git.uncommitted_diff())} bytes]")
