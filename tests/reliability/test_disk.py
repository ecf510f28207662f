"""A disk that is full, fails, or becomes read-only, a folder that is removed, a stale handle of a
network file system: a line says so, the last checkpoint is intact, and the same command resumes."""

import errno
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.runs.heartbeat import progress_of
from bench.runs.records import load_checkpoint
from bench.runs.run_folder import RunFolder
from bench.system.errors import UserError, as_unwritable
from tests.reliability.small_run import SmallRun
from tests.waiting import Gate, wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Outcomes = Callable[[Path], dict[str, Any]]
Cases = Callable[[int, int], int]
Figure = Callable[[str, object], None]

ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE]
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.chmod", "os.link", "os.truncate")

# --- errors of the system, at every write of a run


class Faults:
    """Makes calls of the system fail, in one thread, below one folder.

    Attributes:
        count: how many calls there were that can fail.
    """

    def __init__(self) -> None:
        self.folder, self.fails, self.code, self.count = "", lambda number: False, 0, 0
        self.in_main_thread = True
        sys.addaudithook(self.hook)  # it stays until the process ends

    @contextmanager
    def below(
        self, folder: Path, fails: Callable[[int], bool], code: int, main: bool = True
    ) -> Iterator[None]:
        """Within the block, the calls with the numbers for which `fails` is true fail with `code`.

        Args:
            main: whether in the main thread or in the others.
        """
        self.folder, self.fails, self.code, self.count = str(folder), fails, code, 0
        self.in_main_thread = main
        try:
            yield
        finally:
            self.folder = ""

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder or (event != "open" and event not in WRITES):
            return
        if (threading.current_thread() is threading.main_thread()) != self.in_main_thread:
            return
        if not str(arguments[0]).startswith(self.folder):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        self.count += 1
        if self.fails(self.count - 1):
            raise OSError(self.code, os.strerror(self.code), str(arguments[0]))


@pytest.fixture(scope="session")
def faults() -> Faults:
    return Faults()


@pytest.fixture
def undisturbed(tmp_path: Path, cache_root: Path) -> dict[str, Any]:
    run = SmallRun(tmp_path / "undisturbed", cache_root)
    run.execute()
    return run.outcome()


def test_a_failing_write_anywhere_in_a_run_costs_no_more_than_the_step(
    tmp_path: Path,
    cache_root: Path,
    undisturbed: dict[str, Any],
    faults: Faults,
    cases: Cases,
    figure: Figure,
) -> None:
    counting = SmallRun(tmp_path / "counted", cache_root)
    with faults.below(counting.folder.path, lambda number: False, 0):
        counting.execute()
    writes = faults.count
    assert writes > 50
    chosen = [(number, code) for number in range(writes) for code in ERRORS]
    random.Random(0).shuffle(chosen)
    told = 0
    for number, code in chosen[: cases(3, 300)]:
        run = SmallRun(tmp_path / f"{number}-{code}", cache_root)
        with faults.below(run.folder.path, lambda n, bad=number: n == bad, code):
            told += failed(run, code)
        checkpoint = load_checkpoint(run.folder.path)
        steps = len(run.folder.records("metrics"))
        assert steps - (checkpoint["distillation"]["step"] if checkpoint else 0) <= 1
        run.execute()
        assert run.outcome() == undisturbed
        shutil.rmtree(run.root)
    figure(
        f"{cases(3, 300)} runs, each with an error of the disk at one of its {writes} writes",
        f"{told} stopped with a line, all finished when started again, with equal results",
    )


def failed(run: SmallRun, code: int) -> bool:
    """Whether the run failed, in words, because of this error."""
    try:
        run.execute()
    except (UserError, OSError) as error:
        known = as_unwritable(error) or error
        assert os.strerror(code) in str(known), known
        assert isinstance(known, UserError)
        assert "\n" not in str(known)
        return True
    return False


def test_a_run_outlives_a_heart_that_cannot_be_written(
    tmp_path: Path, cache_root: Path, undisturbed: dict[str, Any], faults: Faults
) -> None:
    run = SmallRun(tmp_path / "results", cache_root)

    class Slow:
        """Gives the heart time to beat."""

        def stepped(self, record: object) -> None:
            beats = faults.count
            wait_until(lambda: faults.count > beats, "a beat")

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *arguments: None

    with faults.below(run.folder.path, lambda number: True, errno.ESTALE, main=False):
        run.execute(Slow())
    assert run.outcome() == undisturbed
    assert progress_of(run.folder).state == "done"


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
def test_a_stale_handle_makes_only_its_own_run_unreadable(
    tmp_path: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    run = SmallRun(tmp_path, cache_root)
    run.folder.create(run.config)
    folder = run.folder
    real: dict[str, Any] = {"stat": os.stat, "listdir": os.listdir}

    def stale(name: str, path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).startswith(str(folder.path)):
            raise OSError(code, os.strerror(code), str(path))
        return real[name](path, *arguments, **options)

    for name in real:
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *a, name=name, **o: stale(name, *a, **o))
            found = progress_of(folder)
            assert found.state == "damaged"
            assert os.strerror(code) in found.cause
    assert progress_of(folder).state == "waiting"


# --- real disks


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`mounted("-t", "tmpfs", "-o", "size=8k", "tmpfs")` mounts at tmp_path / "disk"."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounts = 0

    def mount(*arguments: str) -> Path:
        nonlocal mounts
        if subprocess.run(["mount", *arguments, str(folder)]).returncode != 0:
            pytest.skip("only root mounts file systems")
        mounts += not any("remount" in one for one in arguments)
        return folder

    yield mount
    for _ in range(mounts):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_on_a_disk_that_grows_page_by_page_a_run_comes_to_its_end(
    mounted: Callable[..., Path],
    command: Command,
    tiny: list[str],
    tmp_path: Path,
    outcomes: Outcomes,
    cases: Cases,
    figure: Figure,
) -> None:
    settings = ["bench.run", *tiny, "threads=1", "checkpoint_seconds=0"]
    assert command(*settings, "results_root=undisturbed").returncode == 0
    disk, full, steps = mounted("-t", "tmpfs", "-o", "size=4k", "tmpfs"), [], [0]
    for kib in range(4, 400, cases(28, 4)):
        mounted("-o", f"remount,size={kib}k", "tmpfs")
        done = command(*settings, f"results_root={disk}")
        if done.returncode == 0:
            break
        (line,) = done.stderr.splitlines()
        assert "cannot be written: No space left on device; free some space" in line
        full += re.findall(r"(\S+) cannot be written", line)
        (folder,) = (disk / "runs").glob("*") if (disk / "runs").exists() else [tmp_path]
        if (checkpoint := load_checkpoint(folder)) is not None:
            steps.append(checkpoint["distillation"]["step"])
            assert progress_of(RunFolder(folder)).state == "failed"
    assert command("bench.status", f"results_root={disk}").stdout.endswith("1 run: 1 done\n")
    assert outcomes(disk) == outcomes(tmp_path / "undisturbed")
    assert steps == sorted(steps)
    kinds = {Path(one).name if one.startswith(str(disk)) else one for one in full}
    figure(f"a full disk, {len(full)} sizes of it", f"noticed at {', '.join(sorted(kinds))}")


def test_a_folder_that_becomes_read_only_ends_a_run_with_a_line(
    mounted: Callable[..., Path],
    start: Start,
    command: Command,
    gate: Gate,
    tiny: list[str],
    tmp_path: Path,
    outcomes: Outcomes,
) -> None:
    settings = ["method=gated:Random", *tiny, "threads=1", "checkpoint_seconds=0"]
    assert command("bench.run", *settings, "results_root=undisturbed").returncode == 0
    disk = mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs")
    gate.open(3)
    run = start("bench.run", *settings, f"results_root={disk}")
    gate.await_at(1, run)
    mounted("--bind", str(disk))  # a second mount, with no open files, can be read-only
    mounted("-o", "remount,bind,ro")
    gate.open()
    _, errors = run.communicate()
    assert run.returncode == 2
    (line,) = errors.splitlines()
    assert "cannot be written: Read-only file system" in line
    refused = command("bench.run", *settings, f"results_root={disk}")
    assert refused.returncode == 2
    assert "Read-only file system" in refused.stderr
    mounted("-o", "remount,bind,rw")
    (folder,) = (disk / "runs").iterdir()
    checkpoint = load_checkpoint(folder)
    assert checkpoint is not None
    assert checkpoint["distillation"]["step"] == 3
    assert command("bench.run", *settings, f"results_root={disk}").returncode == 0
    assert outcomes(disk) == outcomes(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_folder_that_is_removed_ends_its_run_and_no_other(
    start: Start, command: Command, gate: Gate, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(
        "runs: [{method: 'gated:Random'}, {method: 'gated:Backward'}]\n"
    )
    grid = ["bench.sweep", "grid=mine.yaml", "seeds=1", "workers=2", "check_memory=false", *tiny]
    gate.open(2)
    sweep = start(*grid, "checkpoint_seconds=0")
    gate.await_at(2, sweep)
    (folder,) = (tmp_path / "results/runs").glob("Random-*")
    shutil.rmtree(folder)
    gate.open()
    printed, errors = sweep.communicate()
    assert sweep.returncode == 1, errors
    assert "Traceback" not in errors
    (line,) = errors.splitlines()
    assert folder.name in line
    assert "2 runs: 1 done, 1 " in printed
    again = command(*grid)
    assert again.returncode == 0, again.stderr
    assert "2 runs: 2 done" in again.stdout
