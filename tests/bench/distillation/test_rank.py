"""Which process of a run this is, by what torchrun or srun says."""

import os
from pathlib import Path

import pytest

from bench.distillation.rank import Rank, find_rank
from bench.system.errors import UserError

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a"} | {
    "MASTER_PORT": "1234"
}


BATCH_SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
STEP = {
    **BATCH_SCRIPT,
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "node7,node9",
}


def test_torchrun_s_variables_name_the_rank() -> None:
    assert find_rank(TORCHRUN, replicas=8) == Rank(3, 4, 1, "env://")
    assert find_rank({**STEP, **TORCHRUN}, replicas=8) == Rank(3, 4, 1, "env://")
    assert find_rank({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}, replicas=8) == Rank()
    with pytest.raises(UserError, match="RANK is not"):
        find_rank({"WORLD_SIZE": "4"}, replicas=4)


def test_a_slurm_step_of_several_tasks_is_a_process_group() -> None:
    rank = find_rank(STEP, replicas=4)
    assert (rank.global_rank, rank.world_size, rank.local_rank) == (3, 4, 1)
    assert rank.init_method.startswith("tcp://node7:")
    assert find_rank({**STEP, "SLURM_PROCID": "0"}, 4).init_method == rank.init_method
    assert find_rank({**STEP, "SLURM_STEP_ID": "1"}, 4).init_method != rank.init_method
    own = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    assert find_rank({**STEP, **own}, 4).init_method == "tcp://10.0.0.1:29500"


def test_a_list_of_nodes_in_brackets_is_read_by_scontrol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = {"SLURM_STEP_NODELIST": "gpu[03-04]"}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="MASTER_ADDR"):
        find_rank({**STEP, **nodes}, replicas=4)
    (tmp_path / "scontrol").write_text('#!/bin/sh\n[ "$3" = "gpu[03-04]" ] && echo gpu03\n')
    os.chmod(tmp_path / "scontrol", 0o755)
    assert find_rank({**STEP, **nodes}, replicas=4).init_method.startswith("tcp://gpu03:")


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"WORLD_SIZE": ""}, "WORLD_SIZE="),
        ({**TORCHRUN, "RANK": "x"}, "RANK=x"),
        ({**TORCHRUN, "LOCAL_RANK": "1.5"}, r"LOCAL_RANK=1\.5"),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "4(x2)"}, "SLURM_STEP_NUM_TASKS=4"),
        ({**STEP, "SLURM_PROCID": ""}, "SLURM_PROCID="),
    ],
)
def test_a_variable_that_is_no_number_is_named(environment: dict[str, str], name: str) -> None:
    with pytest.raises(UserError, match=f"^{name}.* is not a whole number"):
        find_rank(environment, replicas=4)


@pytest.mark.parametrize(
    ("environment", "count"),
    [({}, 4), (BATCH_SCRIPT, 4), (STEP, 1), ({**STEP, "WORLD_SIZE": "1"}, 4)],
    ids=["nothing set", "batch script", "one replica in a step", "asked to be alone"],
)
def test_a_process_is_alone_otherwise(environment: dict[str, str], count: int) -> None:
    assert find_rank(environment, count) == Rank()


@pytest.mark.parametrize(("count", "environment"), [(6, TORCHRUN), (1, TORCHRUN), (6, STEP)])
def test_a_number_of_processes_that_does_not_divide_replicas_is_refused(
    count: int, environment: dict[str, str]
) -> None:
    with pytest.raises(UserError, match=f"replicas={count} cannot be shared by 4 processes"):
        find_rank(environment, count)
