"""Several processes, and machines, start the same at once: each run is made by one of them."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.runs.run_folder import RunFolder, Store
from tests.reliability.life import GO, NOTICE, Life, Undisturbed
from tests.reliability.whole import check_whole

pytestmark = pytest.mark.slow

Cases = Callable[[int, int], int]
Figure = Callable[[str, object], None]
Start = Callable[..., subprocess.Popen[str]]
Outcomes = Callable[[Path], dict[str, Any]]


def test_processes_that_start_one_grid_at_once_make_every_run_once(
    start: Start, tiny: list[str], tmp_path: Path, cases: Cases, figure: Figure
) -> None:
    methods = ("forward_window", "backward_window", "bptt")
    runs = ", ".join(f"{{method: {method}}}" for method in methods)
    (tmp_path / "mine.yaml").write_text(f"runs: [{runs}]\n")
    grid = ["grid=mine.yaml", "seeds=1", "workers=1", "check_memory=false", *tiny]
    launchers = ["launcher=local", "launcher=inline"]
    sweeps = [
        start("bench.sweep", *grid, launchers[number % 2], stderr=subprocess.STDOUT)
        for number in range(cases(2, 10))
    ]
    for sweep in sweeps:
        told, _ = sweep.communicate()
        assert sweep.returncode == 0, told
        assert "3 runs: 3 done" in told
    folders = [RunFolder(path) for path in (tmp_path / "results" / "runs").iterdir()]
    assert len(folders) == len(methods)
    for folder in folders:
        check_whole(folder.path)
        assert [line["step"] for line in folder.records("metrics")] == list(range(6))
        assert len((folder.read("manifest") or {})["starts"]) == 1
        assert not list(folder.path.glob(".*"))
    figure("sweeps that start one grid at once; runs; starts", f"{len(sweeps)}; 3; 3")


@pytest.fixture(scope="module")
def undisturbed_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture
def undisturbed(
    tiny: list[str], undisturbed_root: Path, cache_root: Path, outcomes: Outcomes
) -> Undisturbed:
    return Undisturbed(tiny, undisturbed_root, cache_root, outcomes)


@pytest.fixture
def folder(undisturbed: Undisturbed, tmp_path: Path) -> RunFolder:
    run = Store(tmp_path).run(undisturbed.config)
    run.create(undisturbed.config)
    return run


Begin = Callable[..., Life]


@pytest.fixture
def begin(folder: RunFolder, cache_root: Path) -> Iterator[Begin]:
    """`begin(host="elsewhere")`: a process that is about to make the run."""
    lives: list[Life] = []

    def new(**how: Any) -> Life:
        lives.append(Life(folder.path, cache_root, **how))
        assert lives[-1].arrive() == ("begun", 0)
        return lives[-1]

    yield new
    for life in lives:
        life.kill()


def ends_undisturbed(life: Life, undisturbed: Undisturbed, root: Path) -> None:
    assert life.go_on_to_the_end() == "done"
    assert undisturbed.outcomes(root) == undisturbed.outcome


def at_step(life: Life, step: int) -> Life:
    """The process, once it has recorded so many outer steps."""
    while life.at != ("stepped", step):
        life.go_on()
        assert not life.ended, life.at
    return life


def test_of_ten_processes_one_makes_the_run_and_one_resumes_it(
    begin: Begin, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    for killed_at in (2, 3, None):
        lives = [begin() for _ in range(10)]
        for life in lives:
            life.pipe.send(GO)
        told = [life.arrive()[0] for life in lives]
        assert sorted(told) == ["started", *["taken"] * 9]
        one = lives[told.index("started")]
        if killed_at is not None:
            at_step(one, killed_at).kill()
    ends_undisturbed(one, undisturbed, tmp_path)


def make_older(folder: RunFolder) -> None:
    """As if nobody had written a heartbeat for a quarter of an hour."""
    then = time.time() - 1000
    os.utime(folder.path / "progress.json", (then, then))


@pytest.mark.parametrize("host", ["", "elsewhere"])
def test_a_living_process_is_left_alone_without_its_lock_and_a_dead_one_is_replaced(
    begin: Begin, folder: RunFolder, undisturbed: Undisturbed, tmp_path: Path, host: str
) -> None:
    first = at_step(begin(host=host), 2)
    os.remove(folder.path / "lock")  # on another machine, it may reach no further than that
    assert begin().go_on()[0] == "taken"
    at_step(first, 3)  # it was not disturbed
    first.kill()
    if host:
        make_older(folder)
    second = begin()
    assert second.go_on() == ("started", 2)
    ends_undisturbed(second, undisturbed, tmp_path)


def test_a_suspended_process_of_another_machine_is_replaced_and_writes_nothing_any_more(
    begin: Begin, folder: RunFolder, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    first = at_step(begin(host="elsewhere"), 2)
    assert first.process.pid is not None
    os.kill(first.process.pid, signal.SIGSTOP)
    os.remove(folder.path / "lock")
    make_older(folder)
    second = begin()
    assert second.go_on() == ("started", 1)
    at_step(second, 3)
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.go_on(NOTICE)[0] == "superseded"
    beat = json.loads((folder.path / "progress.json").read_text())
    assert (beat["state"], beat["pid"]) == ("running", second.process.pid)
    ends_undisturbed(second, undisturbed, tmp_path)
