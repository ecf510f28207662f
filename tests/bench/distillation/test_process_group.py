"""Several replicas in several processes: one result, together or not."""

import json
import signal
import socket
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from bench.distillation import process_group
from bench.distillation.process_group import SingleProcess, TorchProcessGroup
from bench.distillation.rank import Rank
from bench.runs.lockstep import gather_hosts
from bench.system.errors import UserError
from tests.waiting import Gate


@pytest.fixture
def settings(tiny: list[str]) -> list[str]:
    return [*tiny, "unroll_length=6", "window_size=3", "outer_steps=4", "replicas=2"]


Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def gated(settings: list[str]) -> list[str]:
    """Can be made to wait on the way; nothing is measured before the end."""
    own = ["method=gated:Random", "threads=1", "variance_every=0", "accuracy_every=0"]
    measured = ("variance_", "accuracy_")
    unmeasured = [text for text in settings if not text.startswith(measured)]
    return [*unmeasured, *own, "outer_steps=20"]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def from_torchrun(rank: int, size: int, port: str) -> dict[str, str]:
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {"RANK": str(rank), "WORLD_SIZE": str(size), **rendezvous}


def from_srun(rank: int, size: int, port: str) -> dict[str, str]:
    return {
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_STEP_NUM_TASKS": str(size),
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "MASTER_PORT": port,
    }


@pytest.fixture
def start_group(
    start: Start, environment: dict[str, str], tmp_path: Path
) -> Callable[..., list[subprocess.Popen[str]]]:
    """`start_group([settings of process 0], [of process 1])`: one command each, in the folders
    `rank0` and `rank1`, so that it shows who wrote what. `variables` says who started them."""

    def begin(
        *arguments: list[str], variables: Callable[[int, int, str], dict[str, str]] = from_torchrun
    ) -> list[subprocess.Popen[str]]:
        port = free_port()
        processes = []
        for rank, own in enumerate(arguments):
            folder = tmp_path / f"rank{rank}"
            folder.mkdir(exist_ok=True)
            place = variables(rank, len(arguments), port)
            processes.append(start("bench.run", *own, cwd=folder, env={**environment, **place}))
        return processes

    return begin


def only_run(results: Path) -> Path:
    (run,) = (results / "runs").iterdir()
    return run


def steps_of(run: Path) -> int:
    """The outer steps that the run in a folder has recorded."""
    return (run / "metrics.jsonl").read_bytes().count(b"\n")


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status and what was printed."""
    out, errors = process.communicate()
    return process.returncode, out, errors


def outcome(run: Path) -> dict[str, Any]:
    """Everything a run computed, without times."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {
        "metrics": [{**json.loads(line), "seconds": 0, "probe_seconds": 0} for line in lines],
        "measurements": (run / "measurements.jsonl").read_text(),
        "evaluation": json.loads((run / "result.json").read_text())["evaluation"],
        "distilled": {
            name: tensor.tolist()
            for name, tensor in safetensors.torch.load_file(run / "distilled.safetensors").items()
        },
    }


# A window that shifts by what the leader alone measures.
SHIFTING = [
    *("method=backward_window", "method_options.rule=evaluation_loss"),
    *("method_options.patience=1", "accuracy_every=1", "unroll_length=9", "outer_steps=8"),
]
# Windows that follow what the leader alone probes, before outer steps and measurements.
PROBING = ["method=at_bptt_plus", "method_options.kl=0.2", "unroll_length=9", "outer_steps=8"]


@pytest.mark.parametrize("method", [[], SHIFTING, PROBING], ids=["random", "shifting", "probing"])
@pytest.mark.slow
def test_torchrun_gives_the_bits_of_one_process(
    command: Command,
    environment: dict[str, str],
    settings: list[str],
    tmp_path: Path,
    method: list[str],
) -> None:
    # Four replicas: the sum of two is the same in either order.
    settings = [*settings, "threads=1", "replicas=4", *method]
    one = command("bench.run", *settings, "results_root=one")
    assert one.returncode == 0, one.stderr
    torchrun = ["torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    two = command(*torchrun, "-m", "bench.run", *settings, "results_root=two")
    assert two.returncode == 0, two.stderr
    assert outcome(only_run(tmp_path / "two")) == outcome(only_run(tmp_path / "one"))
    metrics = outcome(only_run(tmp_path / "two"))["metrics"]
    assert len({line["window_start"] for line in metrics}) > 1
    lines = [line for line in one.stdout.splitlines() if not line.startswith("evaluating")]
    for line in lines:  # once: process 1 prints nothing
        assert two.stdout.count(line.replace("one/", "two/")) == one.stdout.count(line)
    (begun,) = json.loads((only_run(tmp_path / "two") / "manifest.json").read_text())["starts"]
    assert begun["world_size"] == 2
    assert begun["processes"] == 2 * [{"host": socket.gethostname(), "device": "cpu"}]


@pytest.mark.slow
def test_a_process_group_stopped_through_any_process_goes_on_with_any_number_of_them(
    command: Command,
    start: Start,
    start_group: Callable[..., list[subprocess.Popen[str]]],
    gate: Gate,
    gated: list[str],
    tmp_path: Path,
) -> None:
    undisturbed = command("bench.run", *gated, "results_root=undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    results = tmp_path / "rank0" / "results"

    gate.open(5)
    alone = start("bench.run", *gated, f"results_root={results}")
    gate.await_at(1, alone)
    alone.send_signal(signal.SIGTERM)  # it ends with the outer step that it is at
    gate.open(10)
    assert ended(alone)[0] == 130
    assert steps_of(only_run(results)) == 6

    leader, other = start_group(gated, gated)
    gate.await_at(2, leader)
    other.send_signal(signal.SIGTERM)
    gate.open()
    status, _, errors = ended(leader)
    assert status == 130
    assert "the same command resumes the run" in errors
    assert ended(other) == (0, "", "")
    assert not list((tmp_path / "rank1").iterdir())
    run = only_run(results)
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    assert checkpoint["distillation"]["step"] == steps_of(run) == 11
    assert json.loads((run / "progress.json").read_text())["state"] == "stopped"

    last = command("bench.run", *gated, f"results_root={results}")
    assert last.returncode == 0, last.stderr
    assert outcome(run) == outcome(only_run(tmp_path / "undisturbed"))
    starts = json.loads((run / "manifest.json").read_text())["starts"]
    assert [(begun["world_size"], begun["step"]) for begun in starts] == [
        (1, 0),
        (2, 6),
        (1, 11),
    ]


@pytest.mark.slow
def test_a_process_that_fails_or_is_killed_ends_the_run_with_a_message(
    start_group: Callable[..., list[subprocess.Popen[str]]],
    gate: Gate,
    gated: list[str],
    tmp_path: Path,
) -> None:
    leader, other = start_group(gated, [*gated, "activation_memory=much"])
    assert ended(other)[0] == 2
    status, _, errors = ended(leader)
    assert status == 1
    assert errors.startswith("error: process 1 on ")
    assert "activation_memory=much" in errors
    assert errors.count("\n") == 1
    run = only_run(tmp_path / "rank0" / "results")
    assert "process 1 on" in json.loads((run / "error.json").read_text())["message"]

    gate.open(1)
    leader, other = start_group(gated, gated)
    gate.await_at(2, leader)
    other.kill()
    gate.open()
    status, _, errors = ended(leader)
    assert status == 1
    assert "another process of the run ended without an error message" in errors
    assert errors.count("\n") == 1
    assert "without an error message" in json.loads((run / "error.json").read_text())["message"]


def test_the_others_end_quietly_when_the_leader_cannot_go_on(
    start_group: Callable[..., list[subprocess.Popen[str]]], settings: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    unwritable = [*settings, f"results_root={tmp_path}/file/x"]
    leader, other = start_group(unwritable, settings, variables=from_srun)
    status, _, errors = ended(leader)
    assert status == 2
    assert "cannot be written" in errors
    assert ended(other) == (0, "", "")


def test_a_process_whose_others_never_come_says_how_to_do_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_group, "RENDEZVOUS_TIMEOUT", timedelta(seconds=1))
    rank = Rank(0, 2, 0, f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match="WORLD_SIZE=1"), rank.process_group("run"):
        pass


def test_processes_that_were_given_different_runs_refuse(
    start_group: Callable[..., list[subprocess.Popen[str]]], settings: list[str], tmp_path: Path
) -> None:
    different = [[*settings, f"seed={seed}"] for seed in range(2)]
    for process in start_group(*different, variables=from_srun):
        status, _, errors = ended(process)
        assert status == 2
        assert "given different runs" in errors
        assert errors.count("\n") == 1
    assert not (tmp_path / "rank0" / "results").exists()


def test_each_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    group = object.__new__(TorchProcessGroup)  # one without other processes
    group.local_rank = 3
    assert group.device_name("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [group.device_name(name) for name in ("auto", "cuda", "cpu")] == [
        "cuda:3",
        "cuda:3",
        "cpu",
    ]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # SLURM shows each task its own
    assert group.device_name("auto") == "cuda:0"
    with pytest.raises(UserError, match="one GPU for several processes"):
        group.device_name("cuda:1")


def test_processes_on_unlike_devices_refuse() -> None:
    class WithGPU(SingleProcess):
        def gather_objects(self, value: Any) -> list[Any]:
            return [value, {**value, "device": "cuda:1"}]

    with pytest.raises(UserError, match="different devices: cpu, cuda:1"):
        gather_hosts(WithGPU(), torch.device("cpu"))


def test_the_command_refuses_them_in_one_line(
    start_group: Callable[..., list[subprocess.Popen[str]]], settings: list[str]
) -> None:
    for process in start_group(*2 * [[*settings, "replicas=3"]]):
        status, out, errors = ended(process)
        assert (status, out) == (2, "")
        assert errors.startswith("error: replicas=3 cannot be shared by 2 processes")
        assert errors.count("\n") == 1
