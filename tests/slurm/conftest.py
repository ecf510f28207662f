"""A real SLURM for these tests, its logs where a test fails, and a grid to run on it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.runs.heartbeat import Progress
from bench.runs.run_folder import RunFolder
from slurm.job_status import statuses
from slurm.scheduler import Scheduler
from slurm.submission_record import Note, Submission
from tests.slurm.lab import Lab, missing_packages
from tests.waiting import wait_until

LONGEST = ("test_survival", "test_submission_record", "test_silence")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "slurm_installed" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slurm)
    # They take longest: where several tests run at a time, short ones shall be left for the end.
    items.sort(
        key=lambda item: (
            "slurm_installed" not in getattr(item, "fixturenames", ()),
            item.path.stem not in LONGEST,
        )
    )


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    """Skips where SLURM's daemons are not installed; fails where they ought to be."""
    if missing := missing_packages():
        told = f"SLURM's daemons are not installed: apt-get install {' '.join(missing)}"
        if os.environ.get("BENCH_SLURM_TESTS") == "required":
            pytest.fail(told)
        pytest.skip(told)


@pytest.fixture(scope="session")
def running_lab(slurm_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Four nodes. Tests that run at the same time, in another process, have another lab."""
    with Lab(tmp_path_factory.mktemp("lab"), nodes=4, max_array_size=4) as lab:
        yield lab


@pytest.fixture
def lab(running_lab: Lab) -> Iterator[Lab]:
    """The lab, with all its nodes up and its queue empty, whatever the test before did to it.
    SLURM's commands, of the test and of what it starts, find it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH"))]:
            patch.delenv(name)
        for name, value in running_lab.environment.items():
            patch.setenv(name, value)
        yield running_lab
        running_lab.start()
        running_lab.clear()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a test can have a lab of its own: `tmp_path`, with the test's name in it, is too long
    for SLURM's sockets."""
    return tmp_path_factory.mktemp("own") / "lab"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab):
        report.sections.append(("SLURM", lab.tails()))
    return report


Command = Callable[..., subprocess.CompletedProcess[str]]

# Slow takes 0.3 s per outer step, after some steps far longer, until the file `hurry` is in the
# folder of the sweep: so there is time to do something to it on a slow machine too. Its result does
# not depend on that. The other methods are for runs to which different things happen.
METHODS = """
import os, time
from pathlib import Path
from methods import StatelessMethod, Window

class Slow(StatelessMethod):
    def next_window(self, step, rng):
        until = time.monotonic() + (0.3 if step < 50 else 10)
        while not Path("hurry").exists() and time.monotonic() < until:
            time.sleep(0.1)
        start = rng.randint(0, self.unroll_length - self.window_size)
        return Window(start, start + self.window_size)

class Low(Slow):
    pass

class Huge(Slow):
    def next_window(self, step, rng):
        if step == 3 and not Path("small").exists():
            ballast = bytearray(3 << 29)
            ballast[::4096] = bytes([1]) * len(ballast[::4096])
            time.sleep(3600)  # until it is killed for it
        return super().next_window(step, rng)

class Raises(Slow):
    def next_window(self, step, rng):
        if step == 3 and not Path("mended").exists():
            raise RuntimeError("three is too much")
        return super().next_window(step, rng)
"""

OF_A_RUN = [
    "scale=quick",
    "width=4",
    "depth=1",
    "unroll_length=4",
    "window_size=2",
    "target_batch=32",
    "outer_steps=100",
    "variance_every=0",
    "accuracy_every=50",
    "accuracy_networks=1",
    "accuracy_steps=3",
    "evaluation_networks=2",
    "evaluation_steps=[2,4]",
    "checkpoint_seconds=0.5",
]


class LabGrid:
    """A grid in `folder`, swept there by `command`.

    Args:
        methods: of its runs, by the names above; one run each, times `seeds`.
    """

    def __init__(self, folder: Path, command: Command, *methods: str, seeds: int = 1) -> None:
        self.folder = folder
        self.command = command
        self.arguments = ["grid=mine.yaml", f"seeds={seeds}", *OF_A_RUN]
        (folder / "own.py").write_text(METHODS)
        entries = ", ".join(f"{{method: 'own:{name}'}}" for name in methods)
        (folder / "mine.yaml").write_text(f"about: for tests\nruns: [{entries}]\n")

    def sweep(self, *more: str) -> subprocess.CompletedProcess[str]:
        """`python -m bench.sweep` of it on the lab."""
        return self.command("bench.sweep", *self.arguments, "profile=lab", *more)

    def undisturbed(self) -> Path:
        """The results of the same runs, made here."""
        self.hurry()
        for run in self.runs:
            config = run.config()
            settings = [f"method={config.method}", f"seed={config.seed}", *OF_A_RUN, "threads=1"]
            done = self.command("bench.run", *settings, "results_root=undisturbed")
            assert done.returncode == 0, done.stderr
        return self.folder / "undisturbed"

    def hurry(self) -> None:
        """Let all runs go at full speed."""
        (self.folder / "hurry").touch()

    @property
    def runs(self) -> list[RunFolder]:
        """Those that have a configuration: a folder is there a moment before it."""
        configs = sorted((self.folder / "results/runs").glob("*/config.json"))
        return [RunFolder(path.parent) for path in configs]

    def run(self, method: str, seed: int = 0) -> RunFolder:
        """The run of a method and seed."""
        for run in self.runs:
            config = run.read("config") or {}
            if (config["method"], config["seed"]) == (f"own:{method}", seed):
                return run
        raise KeyError(f"{method} {seed}")

    def status(self, run: RunFolder) -> Progress:
        """The status of a run, read now."""
        return statuses([run], Scheduler())[0][1]

    def states(self) -> list[str]:
        """The states of all runs at this moment."""
        return [progress.state for _, progress in statuses(self.runs, Scheduler())]

    def wait(self, run: RunFolder, state: str, step: int = 0) -> Progress:
        """Wait until a run is in a state, and at an outer step or beyond."""

        def reached() -> bool:
            nonlocal progress
            progress = self.status(run)
            return progress.state == state and progress.step >= step

        progress = Progress("waiting")
        try:
            wait_until(reached, f"{run.name} to be {state}")
        except Exception as error:
            raise AssertionError(f"{run.name}: wanted {state}, is {progress}") from error
        return progress

    def job(self, run: RunFolder) -> str:
        """The id of a run's job."""
        return self.status(run).job

    def submission(self, run: RunFolder) -> Submission:
        """The latest submission of a run."""
        return Submission.of(run, Note.read(run.read("job") or {}))


@pytest.fixture
def lab_grid(lab: Lab, tmp_path: Path, command: Command) -> Callable[..., LabGrid]:
    """`lab_grid("Slow", seeds=2)`: a grid that is swept on the lab."""
    return lambda *methods, seeds=1: LabGrid(tmp_path, command, *methods, seeds=seeds)
