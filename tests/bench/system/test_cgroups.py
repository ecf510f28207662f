"""Limits of control groups, in files as kernels and containers write them."""

from pathlib import Path
from typing import Any

import pytest

from bench.system import cgroups

Files = dict[str, str]
NO_LIMIT = "9223372036854771712"  # what version 1 writes where none is set

# Each: what /proc/self/cgroup says, and the files below /sys/fs/cgroup. The limit is 1000 bytes,
# of which 700 are in use, 100 of them page cache; and one and a half processors.
V2 = {
    "memory.max": "1000\n",
    "memory.current": "700\n",
    "memory.stat": "anon 600\ninactive_file 60\nactive_file 40\n",
    "memory.events": "low 0\noom 3\noom_kill 2\n",
    "cpu.max": "150000 100000\n",
}
V1_MEMORY = {
    "memory.limit_in_bytes": "1000\n",
    "memory.usage_in_bytes": "700\n",
    "memory.stat": "cache 5\ninactive_file 1\ntotal_inactive_file 60\ntotal_active_file 40\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
}
V1_CPU = {"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "100000\n"}
V1_LINES = "5:cpu,cpuacct:{0}\n4:memory:{0}\n1:name=systemd:{0}\n"


def below(folder: str, files: Files) -> Files:
    return {f"{folder}/{name}": text for name, text in files.items()}


V1 = {**below("memory/job", V1_MEMORY), **below("cpu/job", V1_CPU)}

LIMITED: dict[str, tuple[str | None, Files]] = {
    "version 2, its own group": ("0::/job\n", below("job", V2)),
    "version 2, a group above": ("0::/job/step\n", {**below("job", V2), "job/step/x": ""}),
    "version 2, in a container": ("0::/\n", V2),
    "version 2, in a container that sees the path outside": ("0::/docker/4f\n", V2),
    "version 2, a path out of the container": ("0::/../../job\n", V2),
    "version 2, no /proc": (None, V2),
    "version 1, its own group": (V1_LINES.format("/job"), V1),
    "version 1, a group above": (V1_LINES.format("/job/step/task"), V1),
    "version 1, in a container that sees the path outside": (
        V1_LINES.format("/docker/4f"),
        {**below("memory", V1_MEMORY), **below("cpu", V1_CPU)},
    ),
    "both, limits of version 1": (
        V1_LINES.format("/job") + "0::/user\n",
        {**V1, "unified/user/cgroup.procs": ""},
    ),
    "both, limits of version 2": (
        "1:name=systemd:/\n0::/job\n",
        {**below("unified/job", V2), "memory/memory.limit_in_bytes": NO_LIMIT},
    ),
}
UNLIMITED: dict[str, tuple[str | None, Files]] = {
    "none": (None, {}),
    "version 2": (
        "0::/job\n",
        below("job", {**V2, "memory.max": "max\n", "cpu.max": "max 100000\n", "memory.events": ""}),
    ),
    "version 1": (
        V1_LINES.format("/"),
        {
            "memory/memory.usage_in_bytes": "700",
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
        },
    ),
    "lines of no known form": ("\n0\n0::\nnonsense\n", {"memory.max": "lots", "cpu.max": ""}),
    "counts that are missing": ("0::/\n", {"memory.max": "1000"}),
}


def put(tmp_path: Path, case: tuple[str | None, Files]) -> tuple[Path, Path]:
    """(/proc/self/cgroup, /sys/fs/cgroup) of a case."""
    membership, files = case
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if membership is not None:
        (tmp_path / "cgroup").write_text(membership)
    return tmp_path / "cgroup", tmp_path / "fs"


def limits(membership: Path, root: Path) -> dict[str, Any]:
    return {
        "limit": cgroups.memory_limit(membership, root),
        "left": cgroups.memory_left(membership, root),
        "processors": cgroups.cpu_quota(membership, root),
    }


@pytest.mark.parametrize("case", LIMITED.values(), ids=LIMITED)
def test_limits_are_found_wherever_they_stand(tmp_path: Path, case: tuple[str, Files]) -> None:
    assert limits(*put(tmp_path, case)) == {"limit": 1000, "left": 400, "processors": 1.5}


@pytest.mark.parametrize("case", UNLIMITED.values(), ids=UNLIMITED)
def test_where_nothing_is_limited_there_is_no_limit(
    tmp_path: Path, case: tuple[str, Files]
) -> None:
    membership, root = put(tmp_path, case)
    assert limits(membership, root) == {"limit": None, "left": None, "processors": None}
    assert cgroups.out_of_memory_kills(membership, root) == 0


def test_the_tightest_of_several_limits_holds(tmp_path: Path) -> None:
    roomy = {**V2, "memory.max": "5000\n", "memory.current": "4800\n", "cpu.max": "400000 100000"}
    files = {**below("job", roomy), **below("job/step", V2)}
    assert limits(*put(tmp_path, ("0::/job/step\n", files))) == {
        "limit": 1000,
        "left": 300,  # the job's other steps have taken the rest
        "processors": 1.5,
    }


def test_a_limit_at_which_all_comes_to_a_halt_is_one(tmp_path: Path) -> None:
    files = {**V2, "memory.high": "900\n"}
    assert limits(*put(tmp_path, ("0::/\n", files)))["limit"] == 900


def test_what_is_used_beyond_a_limit_leaves_nothing(tmp_path: Path) -> None:
    files = {**V2, "memory.current": "1200\n"}
    assert limits(*put(tmp_path, ("0::/\n", files)))["left"] == 0


@pytest.mark.parametrize("case", [case for name, case in LIMITED.items() if "above" not in name])
def test_processes_killed_for_their_memory_are_counted(
    tmp_path: Path, case: tuple[str, Files]
) -> None:
    assert cgroups.out_of_memory_kills(*put(tmp_path, case)) == 2


def test_those_of_a_group_above_may_be_another_job_s(tmp_path: Path) -> None:
    files = {**below("job", V2), **below("job/step", {"memory.events": "oom_kill 0\n"})}
    assert cgroups.out_of_memory_kills(*put(tmp_path, ("0::/job/step\n", files))) == 0


def test_folders_that_cannot_be_read_set_no_limit(tmp_path: Path) -> None:
    membership, root = put(tmp_path, ("0::/\n", {}))
    for name in ("memory.max", "cpu.max", "memory.events"):
        (root / name).mkdir(parents=True)  # reading it is an error, for root too
    assert limits(membership, root) == {"limit": None, "left": None, "processors": None}
    assert cgroups.out_of_memory_kills(membership, root) == 0
