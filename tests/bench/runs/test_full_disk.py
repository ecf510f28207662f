"""A disk that takes nothing more, or that belongs to somebody else: one line says so, nothing stays
half made, and the same command resumes when there is space again."""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.config.grid import expand, load_grid
from bench.config.run_config import Environment
from bench.runs.failure import describe_error
from bench.runs.heartbeat import Heartbeat, progress_of, record_failure
from bench.runs.records import Recorder
from bench.runs.run_folder import RunFolder, Store
from bench.sweeps.launcher import PlannedRun
from bench.system import files
from bench.system.errors import Unwritable
from bench.system.files import atomic_write, is_full
from slurm import scheduler, submit
from slurm.profile import Profile

Command = Callable[..., subprocess.CompletedProcess[str]]
Disk = Callable[[int], Path]

REFUSALS = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "quota exceeded",
    errno.EROFS: "Read-only file system",
    errno.EACCES: "Permission denied",
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """`disk(24)`: a file system of so many KiB; the same again: as large as that from now on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def sized(kib: int) -> Path:
        nonlocal mounted
        option = f"{'remount,' if mounted else ''}size={kib}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)])
        if done.returncode != 0:
            pytest.skip("only root mounts a small file system")
        mounted = True
        return folder

    yield sized
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_space(
    disk: Disk, command: Command, tiny: list[str]
) -> None:
    results = disk(28)  # the checkpoint needs more
    run = ["bench.run", *tiny, f"results_root={results}"]
    failed = command(*run)
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert line.startswith("disk full: ")
    assert "cannot be written: No space left on device; free some space" in line
    status = command("bench.status", f"results_root={results}")
    assert "1 run: 1 failed" in status.stdout
    assert f"{line}\n" in status.stdout
    assert "no space is left" in status.stderr
    assert is_full(results)
    disk(4096)
    assert not is_full(results)
    done = command(*run)
    assert done.returncode == 0, done.stderr
    assert "1 run: 1 done" in command("bench.status", f"results_root={results}").stdout


def test_a_sweep_on_a_full_disk_ends_with_a_line(
    disk: Disk, command: Command, tiny: list[str]
) -> None:
    results = disk(8)
    grid = ["grid=window_ablation", "seeds=2", "launcher=inline", "check_memory=false", *tiny]
    done = command("bench.sweep", *grid, f"results_root={results}")
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert no_empty_folder(results)


def no_empty_folder(root: Path) -> bool:
    return all(names or folders for _, folders, names in os.walk(root))


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """`refusing(3, errno.ENOSPC)`: the fourth file that is written from now on is refused."""

    def refuse_at(number: int, code: int) -> None:
        left = number
        real = tempfile.mkstemp

        def mkstemp(**how: Any) -> tuple[int, str]:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(code, os.strerror(code), "a temporary name")
            return real(**how)

        monkeypatch.setattr(files.tempfile, "mkstemp", mkstemp)

    return refuse_at


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("number", range(6))
def test_a_submission_that_cannot_be_written_leaves_nothing_of_itself(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusing: Callable[[int, int], None],
    number: int,
    code: int,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no SLURM
    monkeypatch.setattr(scheduler, "largest_array", lambda: 1000)
    monkeypatch.setattr(scheduler, "send", lambda *arguments: pytest.fail("it was sent"))
    monkeypatch.setattr(
        submit, "settled", lambda runs, must_answer: [(r, progress_of(r)) for r in runs]
    )
    root = tmp_path / "results"
    configs = expand(load_grid("window_ablation"), "quick", {}, 1)[:2]
    runs = [PlannedRun(config, Store(root).run(config)) for config in configs]
    refusing(number, code)  # two configurations, submission.json, the script, two notes
    with pytest.raises(Unwritable, match=REFUSALS[code]) as refused:
        submit.submit(
            runs, lambda progress: True, "grid", Profile(), Environment(results_root=str(root))
        )
    assert str(root) in str(refused.value)
    assert "a temporary name" not in str(refused.value)
    assert [path.name for path in (root / "slurm").iterdir()] == ["lock"]
    assert not list(root.rglob("job.json"))
    assert no_empty_folder(root)


@pytest.mark.parametrize("code", REFUSALS)
def test_a_run_that_cannot_write_is_recorded_in_its_last_heartbeat(
    tmp_path: Path, refusing: Callable[[int, int], None], code: int
) -> None:
    config = expand(load_grid("window_ablation"), "quick", {}, 1)[0]
    run = Store(tmp_path).run(config)
    run.create(config)
    with Heartbeat(run, 300) as heartbeat:
        heartbeat.update(step=7)
    refusing(0, code)
    with pytest.raises(Unwritable) as refused:
        run.write("manifest", {})
    described = describe_error(refused.value)
    assert described["kind"] == ("disk full" if refused.value.full else "error")
    assert record_failure(run, described) is False
    found = progress_of(run)
    assert (found.state, found.kind) == ("failed", described["kind"])
    assert REFUSALS[code] in found.cause
    assert str(run.path / "manifest.json") in found.cause


def test_what_a_library_says_of_the_disk_is_told_like_the_rest(tmp_path: Path) -> None:
    with (
        pytest.raises(Unwritable, match=r"x\.safetensors cannot be written: No space left"),
        atomic_write(tmp_path / "x.safetensors"),
    ):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert os.listdir(tmp_path) == []


def test_metrics_that_the_disk_does_not_take_are_named(disk: Disk) -> None:
    run = RunFolder(disk(8))
    with pytest.raises(Unwritable, match=r"metrics\.jsonl cannot be written: No space left"):
        write_metrics(run, lines=5000)


def write_metrics(run: RunFolder, lines: int) -> None:
    with Recorder(run.path, {}) as recorder:
        for step in range(lines):
            recorder.append("metrics", {"step": step})


def test_output_that_goes_to_a_full_disk_ends_a_command_with_a_line(
    environment: dict[str, str], tmp_path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bench.status"],
            cwd=tmp_path,
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the output cannot be written: No space left on device")
