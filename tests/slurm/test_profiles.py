"""What a profile may say, and what is made of it: job arrays and their batch scripts."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.config.run_config import RunConfig
from bench.runs.run_folder import RunFolder
from bench.sweeps.launcher import PlannedRun
from bench.system.errors import UserError
from bench.system.git import SOURCE
from slurm.batch_script import script_text
from slurm.job_arrays import JobArray, job_arrays, one_after_another, share
from slurm.profile import PROFILES, Profile, for_method, load_profile, processes

GOLDEN = """\
#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --array=0-2%2
#SBATCH --chdir={here}
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=6
#SBATCH --exclude='node[7,9]'
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --job-name=window_ablation-0123abcd
#SBATCH --mem=98304MB
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/results/slurm/window_ablation-0123abcd/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=long
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=240

# setup
module load cuda
export PYTHONPATH={source}:{here}${{PYTHONPATH:+:$PYTHONPATH}}
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /results/slurm/window_ablation-0123abcd/%A_%a_%t_log.out \
--kill-on-bad-exit=1 --cpu-bind=none {python} -u -m slurm.job \
/results/slurm/window_ablation-0123abcd
"""

GOLDEN_OF_ONE = """\
#!/bin/bash

# Parameters
#SBATCH --chdir={here}
#SBATCH --cpus-per-task=8
#SBATCH --dependency=afterany:17
#SBATCH --gpus-per-node=1
#SBATCH --job-name=g-1
#SBATCH --mem=32768MB
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/r/g-1/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
export PYTHONPATH={source}:{here}${{PYTHONPATH:+:$PYTHONPATH}}
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /r/g-1/%j_%t_log.out --kill-on-bad-exit=1 {python} -u -m slurm.job \
/r/g-1
"""


@pytest.fixture(autouse=True)
def away_from_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts can be written where no SLURM is installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def filled(text: str, here: Path) -> str:
    return text.format(here=here, source=SOURCE, python=sys.executable)


def test_the_script_of_an_array_says_all_that_the_profile_says(tmp_path: Path) -> None:
    profile = Profile(
        partition="gpu",
        account="vision",
        qos="long",
        constraint="a100|h100",
        time_min=240,
        cpus=6,
        mem_gb=24,
        signal_s=300,
        setup=["module load cuda"],
        sbatch={"exclude": "node[7,9]", "exclusive": True},
        srun=["--cpu-bind=none"],
    )
    array = JobArray(profile, 2, 4, ("a", "b", "c"), parallel=2)
    name = "window_ablation-0123abcd"
    found = script_text(array, name, Path("/results/slurm") / name)
    assert found == filled(GOLDEN, tmp_path)


def test_the_script_of_a_single_run_is_no_array(tmp_path: Path) -> None:
    array = JobArray(Profile(), 1, 1, ("a",), after="17")
    assert script_text(array, "g-1", Path("/r/g-1")) == filled(GOLDEN_OF_ONE, tmp_path)


def test_the_profiles_of_the_project_can_be_loaded_and_the_template_is_the_default() -> None:
    assert {path.stem for path in PROFILES.glob("*.yaml")} == {"lab", "single_gpu", "template"}
    for path in PROFILES.glob("*.yaml"):
        load_profile(path.stem, {})
    assert load_profile("template", {}) == Profile()


def test_a_folder_of_any_name_is_written_so_that_shell_and_slurm_leave_it_as_it_is() -> None:
    folder = Path('/r/50% of "it\'s" $HOME; #1/g-1')
    text = script_text(JobArray(Profile(), 1, 1, ("a", "b")), "g-1", folder)
    (output,) = [line for line in text.splitlines() if line.startswith("#SBATCH --output=")]
    escaped = str(folder).replace("%", "%%")
    assert shlex.split(output[len("#SBATCH ") :], comments=True) == [
        f"--output={escaped}/%A_%a_0_log.out"
    ]
    command = shlex.split(text.splitlines()[-1])
    assert command[command.index("--output") + 1] == f"{escaped}/%A_%a_%t_log.out"
    assert command[-1] == str(folder)


@pytest.mark.parametrize("name", ["100%accurate", "x%j", "back\\slash", "two\nlines", "tab\t"])
def test_a_folder_that_slurm_cannot_write_to_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UserError, match=r"results_root .*choose another"):
        script_text(JobArray(Profile(), 1, 1, ("a",)), "g-1", Path("/r") / name)


def test_what_is_given_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("partition: gpu\ntime_min: 60\n")
    profile = load_profile("site.yaml", {"time_min": 90})
    assert (profile.partition, profile.time_min) == ("gpu", 90)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("partitoin: gpu", "unknown key 'partitoin'; did you mean partition?"),
        ("time_min: '01:00:00'", "a time limit is a whole number of minutes"),
        ("time_min: 01:00:00", "a time limit is a whole number of minutes"),
        ("time_min: 1:00:00", "a time limit is a whole number of minutes"),
        ("methods: {bptt: {time_min: 1:30}}", "a time limit is a whole number of minutes"),
        ("time_min: 1.5", "a time limit is a whole number of minutes"),
        ("time_min: 0", "at least 1"),
        ("time_min: 3", "leaves no time to work"),
        ("cpus: many", "cpus=many"),
        ("sbatch: {time: 60}", "sbatch.time is set by time_min"),
        ("sbatch: {job_name: mine}", "sbatch.job_name is set by the launcher"),
        ("methods: {bptt: {mem: 80}}", "methods.bptt: unknown key 'mem'; did you mean mem_gb?"),
        ("methods: {bptt: 80}", "methods.bptt=80: give its settings, as bptt: {time_min: 60}"),
        ("methods: {bptt: {time_min: soon}}", "time_min=soon"),
        ("methods: {rat_btpt: {mem_gb: 64}}", "unknown method 'rat_btpt'; did you mean rat_bptt?"),
        ("methods: {'no_such_methods:Mine': {mem_gb: 64}}", "No module named 'no_such_methods'"),
        ("- gpu", "is not a mapping"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_mistake_in_a_profile_is_refused_in_a_line_that_names_it(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "site.yaml").write_text(text + "\n")
    with pytest.raises(UserError) as refused:
        load_profile("site.yaml", {})
    assert told in str(refused.value)
    assert "site" in str(refused.value)


def test_shell_given_as_text_is_a_list_of_its_lines_or_arguments(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(
        "setup: module load cuda\nsrun: --cpu-bind=none --export='A=b c'\n"
    )
    profile = load_profile("site.yaml", {})
    assert profile.setup == ["module load cuda"]
    assert profile.srun == ["--cpu-bind=none", "--export=A=b c"]
    (tmp_path / "site.yaml").write_text("setup: |\n  module load cuda\n  export A=b\n")
    assert load_profile("site.yaml", {}).setup == ["module load cuda", "export A=b"]
    assert load_profile("", {"setup": "module load gcc"}).setup == ["module load gcc"]


def test_an_unknown_profile_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(UserError, match="known: lab, single_gpu, template, or a path"):
        load_profile("nowhere", {})


def test_a_method_gets_what_the_profile_says_of_it_and_all_else_as_the_others() -> None:
    profile = Profile(partition="gpu", cpus=4, methods={"bptt": {"time_min": 600, "mem_gb": 80}})
    assert for_method(profile, "bptt") == replace(profile, time_min=600, mem_gb=80.0, methods={})
    assert for_method(profile, "t_bptt") == replace(profile, methods={})
    rivals = load_profile("", {"methods": {"dm": {"mem_gb": 80}}})  # objectives count as methods
    assert for_method(rivals, "dm").mem_gb == 80


@pytest.mark.parametrize(
    ("replicas", "nodes", "per_node", "expected"),
    [
        (1, 4, 8, (1, 1)),
        (8, 1, 1, (1, 1)),
        (8, 1, 4, (1, 4)),
        (8, 2, 4, (2, 4)),
        (8, 8, 8, (1, 8)),
        (6, 1, 4, (1, 3)),
        (6, 4, 4, (2, 3)),
        (7, 2, 4, (1, 1)),
    ],
)
def test_processes_are_as_many_as_allowed_that_divide_the_replicas_on_few_nodes(
    replicas: int, nodes: int, per_node: int, expected: tuple[int, int]
) -> None:
    profile = Profile(nodes=nodes, tasks_per_node=per_node)
    assert processes(profile, RunConfig(replicas=replicas)) == expected


def runs(*methods: str) -> list[PlannedRun]:
    return [
        PlannedRun(RunConfig(method=method, seed=seed), RunFolder(Path(f"{method}-{seed}")))
        for seed, method in enumerate(methods)
    ]


def test_what_a_method_asks_for_is_read_once_however_many_runs_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []

    def counted(profile: Profile, method: str) -> Profile:
        read.append(method)
        return for_method(profile, method)

    monkeypatch.setattr("slurm.job_arrays.for_method", counted)
    job_arrays(runs(*["rat_bptt", "bptt"] * 1500), Profile(), 10_000)
    assert sorted(read) == ["bptt", "rat_bptt"]


def test_runs_that_ask_for_the_same_share_arrays_no_larger_than_the_limit() -> None:
    profile = Profile(methods={"bptt": {"mem_gb": 80}, "t_bptt": {"mem_gb": 32.0}})
    found = job_arrays(runs("rat_bptt", "bptt", "t_bptt", "bptt", "r_bptt"), profile, 2)
    assert [array.runs for array in found] == [
        ("rat_bptt-0", "t_bptt-2"),
        ("r_bptt-4",),
        ("bptt-1", "bptt-3"),
    ]
    assert [array.profile.mem_gb for array in found] == [32, 32, 80]
    assert [
        len(array.runs) for array in job_arrays(runs(*["bptt"] * 5), Profile(max_array=3), 9)
    ] == [
        3,
        2,
    ]


@pytest.mark.parametrize(
    ("parallel", "sizes", "expected"),
    [
        (0, [5, 5], [0, 0]),
        (4, [9], [4]),
        (4, [6, 2], [3, 1]),
        (9, [6, 2], [6, 2]),
        (2, [1, 1, 1], [1, 1, 1]),
        (5, [1, 9], [1, 4]),
    ],
)
def test_arrays_share_the_number_of_runs_allowed_at_a_time(
    parallel: int, sizes: list[int], expected: list[int]
) -> None:
    assert share(parallel, sizes) == expected


def test_more_arrays_than_runs_allowed_at_a_time_wait_for_each_other() -> None:
    def waits(parallel: int) -> bool:
        return one_after_another(
            job_arrays(runs(*["bptt"] * 3), Profile(parallel=parallel, max_array=1), 9)
        )

    assert [waits(parallel) for parallel in (0, 1, 2, 3)] == [False, True, True, False]
