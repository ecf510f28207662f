"""Publishing: a kill at any point leaves the former records or the new ones; damage is found."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from bench.publishing.catalog import SUMS, Problems, check, digest, read_sums
from bench.publishing.publication import Files, publication
from bench.publishing.reading import Published
from bench.system.errors import Damaged, UserError

FORMER: Files = {
    "runs/a-000000000000/result.json": b'{"former": 1}',
    "runs/a-000000000000/config.json": b"{}",
    "runs/b-000000000000/result.json": b'{"former": 2}',
    "runs/f-000000000000/result.json": b'{"former": 5}',
    "runs/f-000000000000/distilled.png": b"a picture",
    "evaluations/e.json": b"{}",
}
NEW: Files = {
    "runs/a-000000000000/result.json": b'{"new": 1}',
    "runs/a-000000000000/metrics.parquet": b"metrics",
    "runs/c-000000000000/result.json": b'{"new": 3}',
    "runs/f-000000000000/result.json": b'{"former": 5}',
    "evaluations/e.json": b'{"new": 4}',
    "report.html": b"<html>",
}
# Units are replaced as a whole: the former config.json of run a and the picture of f are gone.
AFTER = {
    **NEW,
    "runs/b-000000000000/result.json": FORMER["runs/b-000000000000/result.json"],
}


class Killed(BaseException):
    """What a kill does, as far as a test can tell: nothing that comes after it happens."""


def publish(root: Path, files: Files) -> None:
    with publication(root) as records:
        records.stage(files)
        records.publish()


def contents(root: Path) -> Files:
    """What a reader finds, by path: each file where its unit is intact."""
    published = Published(root)
    assert published.damaged == []
    found = {}
    for path in published.sums:
        unit = "/".join(path.split("/")[:2])
        rest = path.removeprefix(unit).lstrip("/")
        place = published.intact[unit]
        found[path] = (place / rest if rest else place).read_bytes()
    return found


def in_place(root: Path) -> Files:
    """The files of the folder, without the checksums."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != SUMS]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_a_publication_adds_and_replaces_whole_units_and_keeps_the_others(tmp_path: Path) -> None:
    publish(tmp_path / "p", FORMER)
    assert in_place(tmp_path / "p") == FORMER
    publish(tmp_path / "p", NEW)
    assert in_place(tmp_path / "p") == contents(tmp_path / "p") == AFTER
    assert not check(tmp_path / "p")


def test_the_same_records_in_any_order_make_the_same_bytes(tmp_path: Path) -> None:
    publish(tmp_path / "one", FORMER)
    publish(tmp_path / "one", NEW)
    publish(tmp_path / "two", dict(reversed(AFTER.items())))
    sums = [(tmp_path / name / SUMS).read_bytes() for name in ("one", "two")]
    assert sums[0] == sums[1]


# Everything that changes the folder goes through one of these.
STEPS = (
    "os.replace",
    "shutil.rmtree",
    "Path.write_bytes",
    "Path.mkdir",
    "Path.unlink",
    "Path.rmdir",
)


def killed_at(number: int, root: Path, files: Files) -> bool:
    """Publish, and be killed before the `number`-th step, or in its middle if it removes a folder;
    returns whether there was such a step."""
    taken = 0

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken > number:
                raise Killed
            if taken == number:
                if name == "shutil.rmtree" and Path(arguments[0]).is_dir():
                    for path in sorted(Path(arguments[0]).rglob("*.json"))[:1]:
                        os.remove(path)
                raise Killed
            return real(*arguments, **options)

        return step

    patches = []
    for name in STEPS:
        owner, _, attribute = name.rpartition(".")
        module = {"os": os, "shutil": shutil, "Path": Path}[owner]
        patches.append(patch.object(module, attribute, counted(name, getattr(module, attribute))))
    try:
        for one in patches:
            one.start()
        publish(root, files)
    except Killed:
        return True
    finally:
        for one in patches:
            one.stop()
    return False


def test_a_kill_at_any_step_leaves_the_former_records_or_the_new_ones(tmp_path: Path) -> None:
    """After it, the next publication of anything ends in whole records."""
    seen = []
    for number in range(1, 200):
        root = tmp_path / f"p{number}"
        publish(root, FORMER)
        if not killed_at(number, root, NEW):
            break
        found = contents(root)
        seen.append(found == AFTER)
        assert found in (FORMER, AFTER), number
        other = {"runs/d-000000000000/result.json": b"{}"}
        publish(root, other)
        assert in_place(root) == contents(root) == {**found, **other}, number
        assert not check(root)
    else:
        raise AssertionError("the publication has no end")
    assert sorted(seen) == seen  # from one step on it is the new state
    assert 3 < sum(seen) < len(seen) - 3


def test_verification_names_what_is_damaged_missing_and_surplus(tmp_path: Path) -> None:
    publish(tmp_path, AFTER)
    (tmp_path / "picture.png").write_bytes(b"of a document")  # no record
    assert check(tmp_path) == Problems()
    (tmp_path / "runs/a-000000000000/result.json").write_bytes(b'{"new": 2}')
    (tmp_path / "runs/c-000000000000/result.json").unlink()
    (tmp_path / "runs/c-000000000000/other.json").write_bytes(b"{}")
    assert check(tmp_path) == Problems(
        ["runs/a-000000000000/result.json"],
        ["runs/c-000000000000/result.json"],
        ["runs/c-000000000000/other.json"],
    )
    published = Published(tmp_path)
    assert published.damaged == ["runs/a-000000000000", "runs/c-000000000000"]
    units = {*("runs/b-000000000000", "runs/f-000000000000"), "evaluations/e.json", "report.html"}
    assert published.intact.keys() == units
    with pytest.raises(UserError, match=r"no checksum of 1 record, such as runs/c.*/other\.json"):
        publish(tmp_path, AFTER)
    (tmp_path / "runs/c-000000000000/other.json").unlink()
    publish(tmp_path, AFTER)  # restores the others
    assert not check(tmp_path)


@pytest.mark.parametrize("lines", [0, 3])
def test_no_record_is_removed_because_checksums_were_lost(tmp_path: Path, lines: int) -> None:
    root = tmp_path / "p"
    publish(root, FORMER)
    kept = (root / SUMS).read_text().splitlines(keepends=True)[:lines]
    (root / SUMS).write_text("".join(kept))
    with pytest.raises(UserError, match=r"SHA256SUMS in .* has lost lines"):
        publish(root, NEW)
    assert in_place(root) == FORMER


def test_what_a_system_leaves_in_a_folder_damages_no_unit(tmp_path: Path) -> None:
    publish(tmp_path, AFTER)
    run = tmp_path / "runs/b-000000000000"
    (run / "empty").mkdir()
    (run / ".DS_Store").write_bytes(b"")
    (run / ".checkpoints").mkdir()
    (run / ".checkpoints" / "a").write_bytes(b"")
    assert check(tmp_path) == Problems()
    assert Published(tmp_path).damaged == []
    (run / "empty" / "a").write_bytes(b"")
    assert check(tmp_path) == Problems(surplus=["runs/b-000000000000/empty/a"])
    assert Published(tmp_path).damaged == ["runs/b-000000000000"]


def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    publish(tmp_path, {"report.html": b"abc"})
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (tmp_path / SUMS).read_text() == f"{sha}  report.html\n"
    assert read_sums(tmp_path) == {"report.html": digest(b"abc")}


@pytest.mark.parametrize(
    "text", ["no checksum\n", f"{'0' * 64}  a\v{'0' * 64}  b\n", f"{'0' * 64}  a"]
)
def test_checksums_that_are_damaged_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / SUMS).write_text(text)
    with pytest.raises(Damaged, match="SHA256SUMS is damaged"):
        check(tmp_path)
    with pytest.raises(Damaged), publication(tmp_path):
        pass


def test_a_folder_of_other_files_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    config = tmp_path / "results/runs/rat_bptt-1/config.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    with (
        pytest.raises(UserError, match="has files without SHA256SUMS"),
        publication(tmp_path / "results"),
    ):
        pass
    assert config.read_text() == "{}"


def test_two_publications_at_a_time_are_refused(tmp_path: Path) -> None:
    with publication(tmp_path / "p"), pytest.raises(UserError, match="another process"):
        publish(tmp_path / "p", NEW)
