"""Sweeps, and commands that collect results, killed anywhere: typed again, they leave what they
leave if nobody kills them."""

import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.reliability.mortal import MORTAL, VARIES
from tests.reliability.whole import check_whole

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Cases = Callable[[int, int], int]
Figure = Callable[[str, object], None]
Outcomes = Callable[[Path], dict[str, Any]]

GRID = "runs: [{method: rat_bptt}, {method: bptt, learn_labels: true}]\n"
SWEEP = ["grid=mine.yaml", "seeds=1", "threads=1", "check_memory=false", "checkpoint_seconds=0"]


@pytest.fixture
def undisturbed(command: Command, tiny: list[str], tmp_path: Path) -> Path:
    """The results of a sweep that nobody killed, as `undisturbed` below the folder of commands."""
    (tmp_path / "mine.yaml").write_text(GRID)
    done = command(
        "bench.sweep", *SWEEP, "launcher=inline", *tiny, "results_root=undisturbed_results"
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "undisturbed_results"


def check_swept(results: Path, undisturbed: Path, outcomes: Outcomes) -> None:
    assert outcomes(results) == outcomes(undisturbed)
    for folder in (results / "runs").iterdir():
        check_whole(folder)
        assert not list(folder.glob(".*"))


def operations_of(
    command: Command, environment: dict[str, str], log: Path, *arguments: str
) -> list[str]:
    """What an undisturbed command always does to files."""
    environment["OPERATIONS"] = str(log)
    done = command(MORTAL, *arguments)
    del environment["OPERATIONS"]
    assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines()
    return [line for line in dict.fromkeys(lines) if not VARIES.search(line)]


def test_a_sweep_in_one_process_killed_at_any_change_of_a_file_goes_on(
    command: Command,
    environment: dict[str, str],
    tiny: list[str],
    tmp_path: Path,
    undisturbed: Path,
    outcomes: Outcomes,
    cases: Cases,
    figure: Figure,
) -> None:
    if cases(0, 1) == 0:
        pytest.skip("make reliability kills sweeps; each start of one measures its runs anew")
    sweep = ["bench.sweep", *SWEEP, "launcher=inline", *tiny]
    operations = operations_of(command, environment, tmp_path / "log", *sweep)
    check_swept(tmp_path / "results", undisturbed, outcomes)
    chosen = random.Random(1).sample(operations, 4)
    for number, operation in enumerate(chosen):
        results = f"results_root=results{number}"
        environment["DIE_AT"] = operation
        assert command(MORTAL, *sweep, results).returncode == -signal.SIGKILL
        del environment["DIE_AT"]
        done = command(*sweep, results)
        assert done.returncode == 0, done.stderr
        check_swept(tmp_path / f"results{number}", undisturbed, outcomes)
    figure("kills of a sweep before a change of a file; results that differ", f"{len(chosen)}; 0")


def test_a_pool_of_runs_killed_again_and_again_ends_as_if_it_had_not_been(
    start: Start,
    tiny: list[str],
    tmp_path: Path,
    undisturbed: Path,
    outcomes: Outcomes,
    cases: Cases,
    figure: Figure,
) -> None:
    if cases(0, 1) == 0:
        pytest.skip("make reliability kills sweeps; tests/bench/test_sweep.py kills one")
    drawn, kills = random.Random(1), 0
    sweep = ["bench.sweep", *SWEEP, "workers=2", *tiny]
    for number in range(2):
        results = f"results_root=results{number}"
        for victim in ("sweep", "a run", "all"):
            process = start(*sweep, results, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            running = at_work(process)
            time.sleep(drawn.uniform(0, 2))
            doomed = {"sweep": [], "a run": running[:1], "all": running}[victim]
            for one in [process, *doomed] if victim != "a run" else doomed:
                kills += one.is_running() if isinstance(one, psutil.Process) else 1
                one.kill()
            process.wait()
        told = start(*sweep, results)
        out, errors = told.communicate()
        assert told.returncode == 0, out + errors
        check_swept(tmp_path / f"results{number}", undisturbed, outcomes)
    figure(
        "kills in a sweep with two workers: sweep, runs, all; results that differ", f"{kills}; 0"
    )


def at_work(sweep: subprocess.Popen[str]) -> list[psutil.Process]:
    """The runs of a sweep, once it has started one; none if it ends without."""
    while sweep.poll() is None:
        with suppress(psutil.Error):  # one has just ended
            children = psutil.Process(sweep.pid).children()
            if runs := [child for child in children if "bench.run" in child.cmdline()]:
                return runs
        time.sleep(0.05)
    return []


def files_below(folder: Path) -> dict[str, bytes]:
    """All files but temporary ones."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.parametrize(
    "collect",
    [["analysis.table", "table=norms"], ["analysis.plot", "figure=5"]],
    ids=["table", "figure"],
)
def test_what_collects_results_leaves_whole_files_where_it_is_killed(
    command: Command,
    environment: dict[str, str],
    tiny: list[str],
    tmp_path: Path,
    undisturbed: Path,
    cases: Cases,
    figure: Figure,
    collect: list[str],
) -> None:
    if collect[1] != "table=norms" and cases(0, 1) == 0:
        pytest.skip("make reliability kills this command too")
    settings = [setting for setting in tiny if setting != "scale=quick"]
    collect = [*collect, "grid=mine.yaml", "scale=quick", *settings]
    collect.append("results_root=undisturbed_results")
    before = files_below(undisturbed)
    operations = operations_of(command, environment, tmp_path / "log", *collect)
    after = files_below(undisturbed)
    assert len(after) > len(before)
    chosen = random.Random(1).sample(operations, cases(2, min(20, len(operations))))
    for operation in chosen:
        for name in set(after) - set(before):
            (undisturbed / name).unlink(missing_ok=True)
        environment["DIE_AT"] = operation
        died = command(MORTAL, *collect)
        del environment["DIE_AT"]
        assert died.returncode == -signal.SIGKILL, (operation, died.stderr)
        assert files_below(undisturbed).items() <= after.items()
        done = command(*collect)
        assert done.returncode == 0, done.stderr
        assert files_below(undisturbed) == after
    figure(f"kills of {collect[0]} before a change of a file; half files", f"{len(chosen)}; 0")
