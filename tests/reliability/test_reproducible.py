"""A run that is made again: what is equal bit for bit, and what only to rounding.

Another processor is imitated by taking the vector instructions away from torch and its libraries.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.config.grid import single_run
from bench.data import augment
from bench.distillation.initialization import initial_images
from bench.networks import ConvNet, initial_parameters
from bench.runs.run_folder import RunFolder
from bench.training.randomness import derive_seed, python_random, torch_generator
from tests.conftest import REPOSITORY
from tests.reliability.conftest import FULL
from tests.reliability.processors import OTHER_PROCESSOR, printed
from tests.reliability.test_golden_trajectories import exact_digits

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]
Outcomes = Callable[[Path], dict[str, Any]]
Figure = Callable[[str, object], None]

MODULE = "tests.reliability.test_reproducible"

OPTIMIZERS = {
    "SGD": ["inner_optimizer=sgd", "inner_lr=0.1"],
    "Adam after the first inner step": ["method_options.first=1", "inner_eps=1e-6"],
    "Adam": [],
}
# float32 has 1.2e-7. The first update of an Adam is nearly a sign function of the gradient, which
# turns rounding into whole updates (`bench/metagrad/README.md`).
ROUNDING = {"SGD": 1e-4, "Adam after the first inner step": 1e-3, "Adam": 0.5}
WIDE = ["width=16", "depth=2", "accuracy_every=0", "variance_every=0", "target_batch=256"]


def only_run(results: Path) -> RunFolder:
    (run,) = (results / "runs").iterdir()
    return RunFolder(run)


def finished(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("threads", [1, 2] if FULL else [2])
def test_the_same_machine_gives_the_same_bits(
    environment: dict[str, str],
    tiny: list[str],
    tmp_path: Path,
    outcomes: Outcomes,
    threads: int,
) -> None:
    results = tmp_path / "results"
    settings = [*tiny, "method=backward_window", f"threads={threads}"]
    printed(environment, tmp_path, "-m", "bench.run", *settings)
    first = only_run(results)
    told = printed(environment, tmp_path, "-m", "bench.run", f"from={first.path}")
    assert "\n  versions, hardware, threads and commit: the same\n" in told
    assert "\n  6 outer steps: equal bit for bit\n" in told
    assert "\n  6 measurements: equal bit for bit\n" in told
    assert "\n  distilled set: equal bit for bit\n" in told
    assert outcomes(results / "repeats") == outcomes(results)
    manifest = only_run(results / "repeats").read("manifest") or {}
    assert manifest["threads"] == threads


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS)[: len(OPTIMIZERS) if FULL else 1])
@pytest.mark.parametrize("other", ["two threads", "another processor"])
def test_another_machine_differs_by_rounding(
    command: Command,
    environment: dict[str, str],
    tiny: list[str],
    tmp_path: Path,
    figure: Figure,
    other: str,
    optimizer: str,
) -> None:
    unmeasured = [text for text in tiny if not text.startswith(("variance_", "accuracy_"))]
    settings = [*unmeasured, *WIDE, *OPTIMIZERS[optimizer], "threads=1"]
    finished(command("bench.run", *settings))
    first = only_run(tmp_path / "results")
    again = ["-m", "bench.run", f"from={first.path}"]
    if other == "two threads":
        told = printed(environment, tmp_path, *again, "threads=2")
        assert "\n  threads: 1, now 2\n" in told
    else:
        told = printed({**environment, **OTHER_PROCESSOR}, tmp_path, *again)
        if (here := torch.backends.cpu.get_cpu_capability()) != "DEFAULT":
            assert f"\n  cpu_capability: {here}, now DEFAULT\n" in told
    repeated = only_run(tmp_path / "results" / "repeats").records("metrics")
    pairs = list(zip(first.records("metrics"), repeated, strict=True))
    for key in ("step", "window_start", "window_stop", "updated"):
        assert [one[key] for one, _ in pairs] == [two[key] for _, two in pairs]
    sizes = [
        max(abs(1 - one[key] / two[key]) for key in ("outer_loss", "gradient_norm"))
        for one, two in pairs
    ]
    assert sizes[0] < ROUNDING[optimizer]
    figure(
        f"{optimizer}, {other}: relative difference of loss or norm in the first and last step",
        f"{sizes[0]:.1e}, {sizes[-1]:.1e}",
    )


def draws() -> dict[str, list[Any]]:
    """Some of each kind of random numbers that a run draws."""
    generator = torch_generator(1, "kind", 2)
    angles = augment.draw("rotate", 40, generator).angles
    assert angles is not None
    network = ConvNet((1, 8, 8), 10, width=8, depth=2)
    parameters = initial_parameters(network, torch_generator(1, "network"))
    config = single_run("quick", {"ipc": 2})
    return {
        "seeds": [derive_seed(1, "target/batch", step) for step in range(9)],
        "windows": [python_random(1, "window", step).randint(0, 10**6) for step in range(9)],
        "batches": torch.randperm(1000, generator=generator).tolist(),
        "angles": angles.tolist(),
        "noise": initial_images(config, exact_digits(), config.ipc).flatten().tolist(),
        "weights": torch.cat([one.flatten() for one in parameters.values()]).tolist(),
    }


ROUNDED_DRAWS = ("noise", "weights")


def test_another_processor_draws_the_same_numbers(
    environment: dict[str, str],
) -> None:
    other = {**environment, **OTHER_PROCESSOR}
    here, there = draws(), json.loads(printed(other, REPOSITORY, "-m", MODULE))
    for what, numbers in here.items():
        if what in ROUNDED_DRAWS:
            assert there[what] == pytest.approx(numbers, rel=1e-4, abs=1e-6)
        else:
            assert there[what] == numbers


if __name__ == "__main__":
    print(json.dumps(draws()))
