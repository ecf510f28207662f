"""One process at a time makes a run, also where the lock cannot tell."""

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from bench.runs import heartbeat, run_lock
from bench.runs.heartbeat import LOST_AFTER_SECONDS, SILENCE_SECONDS, Heartbeat
from bench.runs.run_folder import RunFolder
from bench.runs.run_lock import RunIsTaken, await_silence, is_being_run, lock
from bench.system.errors import Unwritable
from tests.waiting import wait_until

BEAT = {
    "state": "running",
    "host": "elsewhere",
    "pid": 1,
    "process_started": 1.0,
    "job": "",
    "step": 5,
    "outer_steps": 100,
    "activity": "distilling",
    "seconds_per_step": 0.5,
    "time": 1.0,
}


def test_the_process_of_a_run_notices_a_takeover_which_waits_for_it(
    folder: RunFolder,
) -> None:
    entered = threading.Event()

    def take_over() -> None:
        with lock(folder, "newer"):
            entered.set()

    successor = threading.Thread(target=take_over)
    with lock(folder), Heartbeat(folder, 10) as heartbeat:
        assert not heartbeat.superseded
        successor.start()
        wait_until(lambda: heartbeat.superseded, "the takeover to be noticed")
        assert not entered.is_set()
    successor.join()
    assert entered.is_set()


def test_a_takeover_gives_way_to_a_later_one(folder: RunFolder) -> None:
    refused: list[str] = []

    def take_over() -> None:
        try:
            with lock(folder, "older"):
                pass
        except RunIsTaken as error:
            refused.append(str(error))

    with lock(folder):
        successor = threading.Thread(target=take_over)
        successor.start()
        wait_until(lambda: folder.taken_over_by() == "older", "the takeover")
        folder.write("takeover", {"by": "newer"})
        successor.join()
    assert len(refused) == 1


@pytest.mark.parametrize(
    ("beat", "waits"),
    [
        ({"host": "elsewhere"}, True),
        ({"host": "elsewhere", "state": "stopped"}, False),
        ({"host": socket.gethostname()}, False),  # no process of this machine is it
        (None, False),
    ],
)
@pytest.mark.parametrize(("takeover", "limit"), [("me", SILENCE_SECONDS), ("", LOST_AFTER_SECONDS)])
def test_a_machine_that_locks_do_not_reach_has_to_fall_silent_first(
    folder: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    beat: dict[str, Any] | None,
    waits: bool,
    takeover: str,
    limit: float,
) -> None:
    clock = Clock()
    monkeypatch.setattr(run_lock, "time", clock)
    if beat is not None:
        folder.write("progress", {**BEAT, **beat})
    await_silence(folder, takeover)
    assert clock.now == pytest.approx(limit if waits else 0, abs=1)
    # A process that was only suspended has to see that the run is another's.
    assert bool(folder.taken_over_by()) == (waits and not takeover)


def test_a_process_that_was_lost_long_ago_is_not_waited_for(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(run_lock, "time", clock)
    beat_elsewhere(folder, seconds_ago=LOST_AFTER_SECONDS + 1)
    await_silence(folder)
    assert clock.now == 0
    assert not is_being_run(folder)


@pytest.mark.parametrize("last_word", [None, "stopped"])
def test_a_heart_that_beats_elsewhere_is_waited_for_by_a_takeover(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, last_word: str | None
) -> None:
    beats = 30

    def beat(now: float) -> None:
        if now <= beats:
            folder.write("progress", {**BEAT, "time": now})
        elif last_word:
            folder.write("progress", {**BEAT, "state": last_word, "time": now})

    clock = Clock(beat)
    monkeypatch.setattr(run_lock, "time", clock)
    beat(0)
    await_silence(folder, "me")
    assert clock.now == beats + (1 if last_word else SILENCE_SECONDS)


def test_a_process_whose_heart_beats_elsewhere_is_left_alone(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beat(now: float) -> None:
        folder.write("progress", {**BEAT, "time": now})

    monkeypatch.setattr(run_lock, "time", Clock(beat))
    beat(0)
    assert is_being_run(folder)
    with pytest.raises(RunIsTaken, match="by process 1 on elsewhere"):
        await_silence(folder)
    assert folder.taken_over_by() == ""


def test_a_living_process_of_this_machine_is_seen_without_its_lock(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = psutil.Process()
    here = {"host": socket.gethostname(), "pid": ours.pid, "process_started": ours.create_time()}
    folder.write("progress", {**BEAT, **here})
    await_silence(folder)  # it is this process
    assert not is_being_run(folder)
    parent = psutil.Process(os.getppid())
    folder.write(
        "progress", {**BEAT, **here, "pid": parent.pid, "process_started": parent.create_time()}
    )
    then = time.time() - LOST_AFTER_SECONDS - 1
    for _ in ("it beats", "it has been suspended for long"):
        assert is_being_run(folder)
        with pytest.raises(RunIsTaken, match=f"by process {parent.pid} on "):
            await_silence(folder)
        os.utime(folder.path / "progress.json", (then, then))

    def ends(now: float) -> None:
        if now > 30:
            folder.write("progress", {**BEAT, **here, "pid": 2**22 + 1})

    clock = Clock(ends)
    monkeypatch.setattr(run_lock, "time", clock)
    await_silence(folder, "me")  # however long it takes
    assert clock.now == 31


def test_a_process_of_this_machine_that_died_long_ago_leaves_nothing_to_see(
    folder: RunFolder,
) -> None:
    folder.write("progress", {**BEAT, "host": socket.gethostname(), "pid": 2**22 + 1})
    then = time.time() - LOST_AFTER_SECONDS - 1
    os.utime(folder.path / "progress.json", (then, then))
    await_silence(folder)
    assert folder.taken_over_by() == ""


def test_a_damaged_heartbeat_is_of_nobody_unless_it_is_written_again(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.path / "progress.json").write_text("half a hea")
    clock = Clock()
    monkeypatch.setattr(run_lock, "time", clock)
    await_silence(folder)
    monkeypatch.setattr(
        run_lock, "time", Clock(lambda now: folder.write("progress", {**BEAT, "time": now}))
    )
    with pytest.raises(RunIsTaken):
        await_silence(folder)


def test_a_suspended_process_that_continues_after_a_takeover_writes_nothing(
    folder: RunFolder,
) -> None:
    with lock(folder), Heartbeat(folder, 100) as suspended:
        assert not suspended.is_displaced()
        folder.write("takeover", {"by": "another"})
        wait_until(lambda: suspended.superseded, "the takeover")
        assert not suspended.displaced  # the other waits for it

        def other_beats() -> bool:  # again and again: this process may overwrite one with its own
            folder.write("progress", {**BEAT, "step": 7})
            return suspended.displaced

        wait_until(other_beats, "a heartbeat of the other to be seen")
        theirs = (folder.path / "progress.json").read_text()
    assert (folder.path / "progress.json").read_text() == theirs


def test_a_process_that_was_silent_looks_before_it_writes(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspended = Heartbeat(folder, 100)  # whose thread has not yet continued
    folder.write("takeover", {"by": "another"})
    folder.write("progress", BEAT)
    assert not suspended.is_displaced()  # it has just looked
    now = time.monotonic()
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now + SILENCE_SECONDS + 1)
    assert suspended.is_displaced()


def test_without_locks_a_file_stands_for_one(folder: RunFolder, no_locks: None) -> None:
    with lock(folder):
        assert is_being_run(folder)
        with pytest.raises(RunIsTaken), lock(folder):
            pass
    assert not is_being_run(folder)


@pytest.mark.parametrize("beat", ["never", "then", "now"])
@pytest.mark.parametrize("old", [True, False])
def test_without_locks_that_of_a_lost_process_of_another_host_is_removed(
    folder: RunFolder, no_locks: None, beat: str, old: bool
) -> None:
    path = folder.path / "lock"
    path.write_text("1\nelsewhere?9\n77\n")
    then = time.time() - LOST_AFTER_SECONDS - 1
    if old:
        os.utime(path, (then, then))
    if beat != "never":
        beat_elsewhere(folder, seconds_ago=0 if beat == "now" else LOST_AFTER_SECONDS + 1)
    if beat == "then" or (beat == "never" and old):
        assert not is_being_run(folder)
        with lock(folder):
            assert is_being_run(folder)
    else:
        assert is_being_run(folder)
        with pytest.raises(RunIsTaken), lock(folder):
            pass
        assert path.read_text() == "1\nelsewhere?9\n77\n"


def beat_elsewhere(folder: RunFolder, seconds_ago: float) -> None:
    folder.write("progress", BEAT)
    then = time.time() - seconds_ago
    os.utime(folder.path / "progress.json", (then, then))


class Clock:
    """Time that passes only in `sleep`, and what happens meanwhile."""

    def __init__(self, happens: Callable[[float], None] = lambda now: None) -> None:
        self.now = 0.0
        self.happens = happens

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.happens(self.now)


def test_a_lock_that_cannot_be_opened_is_an_error_of_one_line(folder: RunFolder) -> None:
    (folder.path / "lock").mkdir()
    with pytest.raises(Unwritable, match="lock cannot be written: Is a directory"):
        is_being_run(folder)
