"""How a run stands, from its files alone."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from bench.progress import Heartbeat, progress_of
from bench.store import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_a_run_waits_runs_stops_and_is_done(folder: RunFolder) -> None:
    assert progress_of(folder).state == "waiting"
    heartbeat = Heartbeat(folder, 100)
    heartbeat.__enter__()
    assert progress_of(folder).state == "running"
    heartbeat.update(step=25, seconds_per_step=2.0)
    heartbeat.__exit__(KeyboardInterrupt, None, None)
    stopped = progress_of(folder)
    assert (stopped.state, stopped.step, stopped.outer_steps) == ("stopped", 25, 100)
    folder.write("result", {})
    assert progress_of(folder).state == "done"


def test_the_heart_beats_without_being_told(folder: RunFolder) -> None:
    with Heartbeat(folder, 10) as heartbeat:
        heartbeat.update(step=4, seconds_per_step=0.5)
        deadline = time.monotonic() + 30
        while progress_of(folder).step != 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        running = progress_of(folder)
    assert (running.step, running.seconds_left) == (4, 3.0)


def test_a_process_that_is_gone_leaves_a_lost_run(folder: RunFolder) -> None:
    with Heartbeat(folder, 10):
        beat = json.loads((folder.path / "progress.json").read_text())
    folder.write("progress", {**beat, "pid": 2**22 + 1})
    assert progress_of(folder).state == "lost"
    # The same process id, but another process: it started at another time.
    folder.write("progress", {**beat, "pid": os.getpid(), "process_started": 1.0})
    assert progress_of(folder).state == "lost"


def test_on_another_machine_only_the_heartbeat_counts(folder: RunFolder) -> None:
    with Heartbeat(folder, 10):
        beat = json.loads((folder.path / "progress.json").read_text())
    elsewhere = {**beat, "host": socket.gethostname() + "-other", "pid": 2**22 + 1}
    folder.write("progress", {**elsewhere, "time": time.time()})
    assert progress_of(folder).state == "running"
    folder.write("progress", {**elsewhere, "time": time.time() - 1000})
    assert progress_of(folder).state == "lost"


def test_a_failed_run_says_why(folder: RunFolder) -> None:
    with Heartbeat(folder, 10):
        pass
    folder.write("error", {"kind": "diverged", "message": "not finite"})
    progress = progress_of(folder)
    assert (progress.state, progress.cause) == ("failed", "diverged: not finite")
