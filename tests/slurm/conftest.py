"""A real SLURM for the tests of this room, and its logs where one of them fails."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.lab import Lab, missing_packages

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    """Skips where SLURM's daemons are not installed; fails where they ought to be."""
    if missing := missing_packages():
        told = f"SLURM's daemons are not installed: apt-get install {' '.join(missing)}"
        if os.environ.get("BENCH_SLURM_TESTS") == "required":
            pytest.fail(told)
        pytest.skip(told)


@pytest.fixture(scope="session")
def lab(slurm_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Four nodes. SLURM's commands, of the tests and of what they start, find them."""
    folder = tmp_path_factory.mktemp("lab")
    with (
        Lab(folder, nodes=4, max_array_size=9) as lab,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH"))]:
            patch.delenv(name)
        for name, value in lab.environment.items():
            patch.setenv(name, value)
        yield lab


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a test can have a lab of its own: `tmp_path`, with the test's name in it, is too long
    for SLURM's sockets."""
    return tmp_path_factory.mktemp("own") / "lab"


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test finds the lab's nodes up and its queue empty, whatever the one before it did."""
    yield
    if "lab" in request.fixturenames:
        lab: Lab = request.getfixturevalue("lab")
        lab.start()
        lab.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab):
        report.sections.append(("SLURM", lab.tails()))
    return report
