"""What leader and followers do together, seen from one of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import Environment, RunConfig
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation
from bench.distillation.process_group import SingleProcess
from bench.runs import lockstep
from bench.runs.lockstep import Setup, outer_steps, set_up, threads
from bench.runs.run_folder import RunFolder
from bench.system.errors import UserError
from tests.bench.runs.both_sides import Follower, Leader


@pytest.fixture(autouse=True)
def one_thread_afterwards() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    return single_run("quick", parse(tiny, RunConfig))


def set_up_both(
    config: RunConfig, cache_root: Path, tmp_path: Path, change: dict[int, Any]
) -> tuple[Setup, Setup]:
    """A leader with a manifest, and a follower that receives what it sent, with some changes."""
    environment = Environment(cache_root=str(cache_root), compile="never")
    folder, leader = RunFolder(tmp_path), Leader()
    manifest = {"data": {"fingerprint": ""}, "starts": [], "threads": 2, "compiled": False}
    folder.write("manifest", manifest)

    def resume(distillation: Distillation) -> dict[str, Any]:
        distillation.outer_step()
        return distillation.state()

    one = set_up(folder, config, environment, leader, resume)
    follower = Follower([change.get(k, value) for k, value in enumerate(leader.sent)])
    torch.set_num_threads(1)
    # A follower reads nothing of the run.
    other = set_up(RunFolder(tmp_path / "nowhere"), config, environment, follower)
    assert follower.received == []
    return one, other


def test_a_follower_takes_over_threads_and_state_of_the_leader(
    config: RunConfig, cache_root: Path, tmp_path: Path
) -> None:
    leader, follower = set_up_both(config, cache_root, tmp_path, {})
    assert torch.get_num_threads() == 2
    assert follower.distillation.step == leader.distillation.step == 1
    assert torch.equal(follower.distillation.images, leader.distillation.images)


def test_a_follower_with_other_data_fails(
    config: RunConfig, cache_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"differ from those of the leader.*, leader another"):
        set_up_both(config, cache_root, tmp_path, {2: "another"})


def test_outer_steps_end_after_the_one_in_which_a_stop_is_requested(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation, group = Distillation(config, digits), SingleProcess()
    steps = outer_steps(distillation, group, lambda: distillation.step == 2)
    assert [(record.step, stopping) for record, stopping in steps] == [(0, False), (1, True)]
    rest = list(outer_steps(distillation, group, lambda: False))
    assert [record.step for record, _ in rest] == list(range(2, config.outer_steps))


def test_processes_on_the_same_cores_divide_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep, "cpu_cores", lambda: 6)
    monkeypatch.setattr(lockstep, "default_threads", lambda: 4)
    here, there = {"host": "a", "cores": [0, 1]}, {"host": "b", "cores": [0, 1]}
    assert threads([here]) == 4
    assert threads([here, here, here, there]) == 2
    assert threads([here] * 7) == 1
