"""A run that is killed anywhere ends, once it is started again, as if it had not been."""

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.runs.execute import BY_OTHERS
from bench.system.files import TEMPORARY_NAME
from tests.reliability.mortal import MORTAL, VARIES
from tests.reliability.whole import check_whole
from tests.small_objectives import completed

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]
Cases = Callable[[int, int], int]
Figure = Callable[[str, object], None]
Outcomes = Callable[[Path], dict[str, Any]]

KINDS = {
    "adaptive, labels, transfers, scores": [
        *("method=at_bptt", "method_options.probe_every=2", "learn_labels=true"),
        *("transfer_to=[wide_convnet]", "scores=true", "full_train_steps=[3]"),
    ],
    "shifting, boosting": [
        *("method=backward_window", "method_options.rule=evaluation_loss"),
        *("method_options.patience=1", "unroll_length=8", "ipc=2", "boost_block=1"),
    ],
    "linear": ["parameterization=linear", "ipc=2", "decoded_ipc=4", "learn_labels=true"],
    "parts of images": ["parameterization=idc", "learn_labels=true", "init=real"],
    "hallucinators": ["parameterization=haba", "ipc=2", "init=real"],
    "trajectories": ["objective=mtt"],
    "pool of networks": ["objective=frepo", "learn_labels=true"],
    "implicit gradients": ["objective=rcig", "parameterization=idc", "init=real"],
    "signal to noise": ["method=snr_bptt", "unroll_length=8", "not_finite=restore"],
    "growing": ["method=growing_bptt", "method_options.grow_steps=6"],
    "shifting forward": [
        *("method=forward_window", "method_options.rule=outer_loss"),
        *("method_options.patience=1", "unroll_length=8"),
    ],
    "replicas in one process": ["replicas=2", "method=at_bptt_plus", "method_options.kl=0.2"],
    "replicas in two processes": ["replicas=2", "method=snr_bptt", "unroll_length=8"],
}
IN_THE_SUITE = list(KINDS)[:3]
# A checkpoint, the renaming of the one before it, the final write and the tidying after it.
CHECKPOINT_AND_RESULT = (
    *("write .checkpoint.pt 8", "rename checkpoint.previous.pt 3", "rename checkpoint.pt 4"),
    *("write .result.json 1", "rename result.json 1", "remove checkpoint.previous.pt 1"),
)
STARTS = 6  # of a run that is killed, at most: on a machine that gets slower it might never end


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest, cases: Cases) -> str:
    if request.param not in IN_THE_SUITE and cases(0, 1) == 0:
        pytest.skip("make reliability kills this kind of run too")
    return request.param


class Killed:
    """A run that is started and killed again and again.

    Attributes:
        kills: how often it was.
    """

    def __init__(
        self, kind: str, settings: list[str], command: Command, environment: dict[str, str]
    ) -> None:
        self.settings = completed([*settings, *KINDS[kind], "threads=1", "checkpoint_seconds=0"])
        self.shared = "two processes" in kind
        self.command, self.environment = command, environment
        self.kills = 0

    def start(self, results: str, **how: str) -> int:
        """Start it and wait for its end; its exit status, negative if it was killed.

        Args:
            how: it dies, as `mortal.py` takes it.
        """
        self.environment.update(how)
        run = [MORTAL, "bench.run", *self.settings, f"results_root={results}"]
        if self.shared:
            torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
            done = self.command(*torchrun, *run)
            signs = ("(SIGKILL)", "another process of the run ended")
            killed = done.returncode != 0 and any(sign in done.stderr for sign in signs)
        else:
            done = self.command(*run)
            killed = done.returncode == -signal.SIGKILL
        for name in how:
            del self.environment[name]
        assert killed or done.returncode == 0, done.stdout + done.stderr
        self.kills += killed
        return -signal.SIGKILL if killed else 0


@pytest.fixture
def run(kind: str, tiny: list[str], command: Command, environment: dict[str, str]) -> Killed:
    return Killed(kind, tiny, command, environment)


def operations_of(run: Killed, folder: Path) -> list[str]:
    """What an undisturbed run always does to files."""
    log = folder / "operations"
    assert run.start("undisturbed_results", OPERATIONS=str(log)) == 0
    lines = log.read_text().splitlines()
    return [line for line in dict.fromkeys(lines) if not VARIES.search(line)]


def lasting(folder: Path) -> set[str]:
    """The names of a run's files, without temporary ones of what another process may be writing:
    those are removed some minutes later."""
    temporary = {path.name: TEMPORARY_NAME.fullmatch(path.name) for path in folder.iterdir()}
    return {
        name
        for name, match in temporary.items()
        if name != "uncommitted.diff" and not (match and match["name"] in BY_OTHERS)
    }


def check_ended(run: Killed, results: Path, undisturbed: Path, outcomes: Outcomes) -> None:
    """It is the undisturbed run, nothing is left over, and it is not made again."""
    assert outcomes(results) == outcomes(undisturbed)
    (folder,) = (results / "runs").iterdir()
    check_whole(folder)
    (other,) = (undisturbed / "runs").iterdir()
    assert lasting(folder) == lasting(other)
    before = (folder / "manifest.json").read_text()
    assert run.start(results.name) == 0
    assert (folder / "manifest.json").read_text() == before


def test_a_run_killed_at_any_change_of_a_file_ends_as_if_it_had_not_been(
    run: Killed,
    kind: str,
    tmp_path: Path,
    outcomes: Outcomes,
    cases: Cases,
    figure: Figure,
) -> None:
    operations = operations_of(run, tmp_path)
    assert {"rename checkpoint.pt 6", "rename result.json 1"} <= set(operations)
    drawn = random.Random(kind)
    chosen = drawn.sample(operations, cases(1, 4))
    chosen += drawn.sample(CHECKPOINT_AND_RESULT, cases(1, len(CHECKPOINT_AND_RESULT)))
    for number, operation in enumerate(chosen):
        results = f"results{number}"
        assert run.start(results, DIE_AT=operation) < 0
        for folder in (tmp_path / results).glob("runs/*"):
            check_whole(folder)
        assert run.start(results) == 0
        check_ended(run, tmp_path / results, tmp_path / "undisturbed_results", outcomes)
    figure(f"kills before a change of a file, {kind}; results that differ", f"{run.kills}; 0")


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(
    run: Killed,
    kind: str,
    tmp_path: Path,
    outcomes: Outcomes,
    cases: Cases,
    figure: Figure,
) -> None:
    if cases(0, 1) == 0 and kind != IN_THE_SUITE[0]:
        pytest.skip("make reliability does it for every kind of run")
    run.command("bench.status")  # the first command starts what runs them all
    begun = time.monotonic()
    assert run.start("undisturbed_results") == 0
    seconds = time.monotonic() - begun
    drawn, runs = random.Random(kind), 0
    while run.kills < cases(2, 6):
        results = f"results{runs}"
        for _ in range(STARTS):
            rank = str(drawn.randrange(2) * run.shared)
            if run.start(results, DIE_AFTER=str(drawn.uniform(0, seconds)), DIE_AS=rank) == 0:
                break
            for folder in (tmp_path / results).glob("runs/*"):
                check_whole(folder)
        assert run.start(results) == 0
        check_ended(run, tmp_path / results, tmp_path / "undisturbed_results", outcomes)
        runs += 1
    figure(f"kills at random moments, {kind}; results that differ", f"{run.kills}; 0")
