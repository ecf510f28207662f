"""Methods that observe evaluations or probes: each is observed once, however often a run stops, and
by every process of a run."""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import Environment, RunConfig
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation
from bench.metagrad import SampleVariance
from bench.run import Console
from bench.runs import measurements
from bench.runs.execute import Interrupted, execute
from bench.runs.lockstep import outer_steps
from bench.runs.run_folder import Store
from tests.bench.runs.both_sides import Follower, Leader

# The window's start is the number of evaluations so far: one lost or repeated shows in all records.
COUNTING = """
from methods import StatelessMethod, Window


class Counting(StatelessMethod):
    needs_evaluations = True

    def __init__(self, unroll_length, window_size):
        super().__init__(unroll_length, window_size)
        self.count = 0
        self.loss = None

    def next_window(self, step, rng):
        return Window(self.count, self.count + self.window_size)

    def observe_evaluation(self, step, train_loss):
        self.count, self.loss = self.count + 1, train_loss

    def state(self):
        return {"count": self.count, "loss": self.loss}

    def load_state(self, state):
        self.count, self.loss = state["count"], state["loss"]
"""
SHIFTING = {
    "method": "backward_window",
    "method_options": {"rule": "evaluation_loss", "patience": 2},
}
# It asks for a probe before each outer step; with measurements of the variance before some of them.
PROBING = {"method": "at_bptt_plus", "method_options": {"kl": 0.2}}


@pytest.fixture(params=["counting", "shifting", "probing"])
def config(
    request: pytest.FixtureRequest, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunConfig:
    (tmp_path / "counting.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "counting", raising=False)
    counting = {"method": "counting:Counting"}
    own = {"counting": counting, "shifting": SHIFTING, "probing": PROBING}[request.param]
    sizes = {"unroll_length": 12, "outer_steps": 11, "accuracy_every": 2, "variance_every": 4}
    return single_run("quick", {**parse(tiny, RunConfig), **own, **sizes})


def begin(
    config: RunConfig, root: Path, cache_root: Path, seconds: float
) -> Callable[[], dict[str, Any]]:
    """Executes or resumes the run, with so many seconds between two checkpoints."""
    environment = Environment(
        cache_root=str(cache_root), results_root=str(root), threads=1, checkpoint_seconds=seconds
    )
    folder = Store(root).run(config)
    folder.create(config)
    return lambda: execute(folder, environment, Console(config))


def computed(root: Path) -> tuple[Any, ...]:
    """Everything that the run computed, without times."""
    (run,) = (root / "runs").iterdir()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return (
        [{**json.loads(line), "seconds": 0, "probe_seconds": 0} for line in lines],
        (run / "measurements.jsonl").read_text(),
        json.loads((run / "result.json").read_text())["evaluation"],
        (run / "distilled.safetensors").read_bytes(),
    )


def starts(root: Path) -> list[int]:
    return [line["window_start"] for line in computed(root)[0]]


class Killed(BaseException):
    """Ends a process as SIGKILL does: nothing is saved."""


def test_each_evaluation_moves_the_window_before_the_step_that_it_is_made_for(
    config: RunConfig, cache_root: Path, tmp_path: Path
) -> None:
    begin(config, tmp_path, cache_root, 60)()
    if config.method == "counting:Counting":
        assert starts(tmp_path) == [step // 2 + 1 for step in range(11)]
    else:
        assert len(set(starts(tmp_path))) > 2  # it moves, or the tests below would prove nothing


@pytest.mark.parametrize(
    ("how", "seconds"), [("killed before", 0.0), ("killed after", 0.0), ("stopped", 1000.0)]
)
def test_a_run_ends_as_if_it_had_not_been_stopped_around_its_evaluations(
    config: RunConfig,
    cache_root: Path,
    tmp_path: Path,
    how: str,
    seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin(config, tmp_path / "whole", cache_root, 60)()
    real, steps = measurements.evaluate, set[int]()

    def evaluate(*given: Any, indices: tuple[int, ...], **more: Any) -> Any:
        first = indices[0] not in steps and indices[0] in (2, 4, 11)
        steps.update(indices)
        if first and how == "killed before":
            raise Killed
        if first and how == "stopped":
            os.kill(os.getpid(), signal.SIGTERM)
        evaluation = real(*given, indices=indices, **more)
        if first and how == "killed after":
            raise Killed
        return evaluation

    monkeypatch.setattr(measurements, "evaluate", evaluate)
    ends = 0
    while True:
        try:
            begin(config, tmp_path / "stopped", cache_root, seconds)()
            break
        except (Killed, Interrupted):
            ends += 1
    assert ends == 3
    assert computed(tmp_path / "stopped") == computed(tmp_path / "whole")


def test_an_evaluation_counts_once_for_a_run_that_was_stopped_after_it(
    config: RunConfig,
    cache_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin(config, tmp_path / "whole", cache_root, 60)()
    real, steps = Distillation.sample_variance, set[int]()

    def sample_variance(self: Distillation) -> SampleVariance:
        if self.step not in steps:
            steps.add(self.step)
            raise Interrupted("in the measurement after the accuracy")
        return real(self)

    monkeypatch.setattr(Distillation, "sample_variance", sample_variance)
    ends = 0
    while True:
        try:
            begin(config, tmp_path / "stopped", cache_root, 60)()
            break
        except Interrupted:
            ends += 1
    assert ends == 3
    assert computed(tmp_path / "stopped") == computed(tmp_path / "whole")


# --- followers


def test_a_follower_chooses_the_windows_of_the_leader_without_evaluating(
    config: RunConfig, digits: TargetSet
) -> None:
    group = Leader()
    leader, windows = Distillation(config, digits, group=group), []
    losses = [5.0, 6.0, 4.0, 6.0, 6.0, 6.0]
    leader.observer.evaluation(0, losses[0])
    for record, _ in outer_steps(leader, group, lambda: False):
        windows.append((record.window_start, record.window_stop))
        if leader.step % 2 == 0:
            leader.observer.evaluation(leader.step, losses[leader.step // 2])
    assert len(set(windows)) > 2
    assert len(group.sent) == 11
    other = Follower(group.sent)
    followed = Distillation(config, digits, group=other)
    records = [record for record, _ in outer_steps(followed, other, bool)]
    assert [(record.window_start, record.window_stop) for record in records] == windows
    assert other.received == []


def test_other_methods_neither_send_nor_measure_anything_for_it(
    config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, group = replace(config, method="rat_bptt", method_options={}), Leader()
    list(outer_steps(Distillation(plain, digits, group=group), group, bool))
    assert group.sent == []
    asked: list[bool] = []

    def evaluate(*given: Any, on_train: bool, **more: Any) -> Any:
        asked.append(on_train)
        raise Interrupted

    monkeypatch.setattr(measurements, "evaluate", evaluate)
    for each in (plain, config):
        heartbeat: Any = type("Silent", (), {"update": lambda *given, **more: None})
        due = measurements.Measurements(Distillation(each, digits), heartbeat, lambda: None).due()
        with pytest.raises(Interrupted):
            next(due)
    assert asked == [False, config.method != "at_bptt_plus"]
