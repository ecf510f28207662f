"""The status of a run, from its files alone."""

import json
import os
import time
from typing import Any

import psutil
import pytest

from bench.runs import heartbeat
from bench.runs.heartbeat import Heartbeat, progress_of
from bench.runs.run_folder import RunFolder
from tests.waiting import wait_until

RESULT = {
    "evaluation": {"test_accuracy_mean": 0.5, "selection": "validation", "n": 2},
    "data": {"source": "made up", "fingerprint": "0"},
}


def beat_of(folder: RunFolder, *, seconds_ago: float = 0, **changed: Any) -> None:
    """A heartbeat of a process that is gone, so old by the file server's clock."""
    with Heartbeat(folder, 100):
        content = json.loads((folder.path / "progress.json").read_text())
    gone = {"pid": 2**22 + 1, "state": "running", "time": 0.0}
    folder.write("progress", {**content, **gone, **changed})
    then = time.time() - seconds_ago
    os.utime(folder.path / "progress.json", (then, then))


def test_a_run_waits_runs_stops_and_is_done(folder: RunFolder) -> None:
    assert progress_of(folder).state == "waiting"
    heartbeat = Heartbeat(folder, 100)
    heartbeat.__enter__()
    assert progress_of(folder).state == "running"
    heartbeat.update(step=25, seconds_per_step=2.0)
    heartbeat.__exit__(KeyboardInterrupt, None, None)
    stopped = progress_of(folder)
    assert (stopped.state, stopped.step, stopped.outer_steps) == ("stopped", 25, 100)
    folder.write("result", RESULT)
    assert progress_of(folder).state == "done"


def test_the_heart_beats_without_being_told(folder: RunFolder) -> None:
    with Heartbeat(folder, 100) as heartbeat:
        heartbeat.update(step=94, seconds_per_step=0.5)
        wait_until(lambda: progress_of(folder).step == 94, "a beat")
        running = progress_of(folder)
    assert (running.step, running.seconds_left) == (94, 3.0)


def test_a_run_that_goes_on_counts_from_where_it_was(folder: RunFolder) -> None:
    with Heartbeat(folder, 100) as heartbeat:
        heartbeat.update(step=25)
    with Heartbeat(folder, 100):
        assert progress_of(folder).step == 25
    folder.request_rerun()
    with Heartbeat(folder, 100):
        assert progress_of(folder).step == 0


def test_a_process_that_is_gone_leaves_a_lost_run(folder: RunFolder) -> None:
    beat_of(folder)
    assert progress_of(folder).state == "lost"
    # The same process id, but another process: it started at another time.
    beat_of(folder, pid=os.getpid(), process_started=1.0, started_after_boot=1.0)
    assert progress_of(folder).state == "lost"


def test_where_the_system_tells_of_no_process_only_the_heartbeat_counts(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*pid: int) -> None:
        raise psutil.NoSuchProcess(1)  # as psutil says where there is no /proc

    monkeypatch.setattr(heartbeat.psutil, "Process", unknown)
    with Heartbeat(folder, 10):
        assert progress_of(folder).state == "running"
        beat = json.loads((folder.path / "progress.json").read_text())
    assert beat["process_started"] is None
    beat_of(folder, pid=os.getpid(), seconds_ago=1000)
    assert progress_of(folder).state == "lost"


def test_on_another_machine_only_the_heartbeat_counts(folder: RunFolder) -> None:
    beat_of(folder, host="elsewhere")
    assert progress_of(folder).description == "starting"
    beat_of(folder, host="elsewhere", seconds_ago=100)
    assert progress_of(folder).description == "silent for 1 min 40 s (starting)"
    beat_of(folder, host="elsewhere", seconds_ago=1000)
    lost = progress_of(folder)
    assert lost.state == "lost"
    assert "no heartbeat from" in lost.cause
    assert "16 min 40 s" in lost.cause


def test_a_failed_run_says_why(folder: RunFolder) -> None:
    with Heartbeat(folder, 10):
        pass
    folder.write("error", {"kind": "diverged", "message": "not finite"})
    progress = progress_of(folder)
    assert (progress.state, progress.cause) == ("failed", "diverged: not finite")
