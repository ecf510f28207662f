"""Shared by all tests: settings small enough for a second, and commands run as a user runs them."""

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

from bench.config.command_line import keys_of
from bench.config.read_settings import EvaluationSettings
from tests.waiting import Gate

# Before torch is imported: the tests' tensors are too small for a second thread to help.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests read no records but their own, whatever the repository has published.
os.environ["BENCH_PUBLISHED"] = ""

# A shell that starts the tests in the background makes them ignore Ctrl-C, and every command that
# they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example that takes long is no failure: the machine may be slow, or busy.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# Until all tests are imported: among a million objects that stay, each search for garbage is long.
gc.disable()

REPOSITORY = Path(__file__).resolve().parent.parent

# Every part of a run takes place, on the bundled digits, within about a second.
TINY = [
    "scale=quick",
    "width=4",
    "depth=1",
    "unroll_length=4",
    "window_size=2",
    "target_batch=32",
    "outer_steps=6",
    "variance_every=3",
    "variance_samples=4",
    "accuracy_every=2",
    "accuracy_networks=2",
    "accuracy_steps=3",
    "evaluation_networks=2",
    "evaluation_steps=[2,4]",
]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.enable()


Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Outcomes = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="session")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of whitened digits for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny() -> list[str]:
    """Settings of a run of about a second."""
    return list(TINY)


@pytest.fixture
def tiny_evaluation() -> list[str]:
    """Those of them that an evaluation reads."""
    return read_by(EvaluationSettings, TINY)


def read_by(schema: type, settings: list[str]) -> list[str]:
    """The settings that belong to a schema."""
    return [text for text in settings if text.partition("=")[0] in keys_of(schema)]


@pytest.fixture
def environment(cache_root: Path) -> dict[str, str]:
    """The environment of a command: this source tree, one thread, the tests' own cache."""
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "BENCH_CACHE_ROOT": str(cache_root),
    }


@pytest.fixture
def gate(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Gate:
    """Where runs of two methods can be made to wait; it is open."""
    return Gate(tmp_path_factory.mktemp("gate"), environment)


@pytest.fixture(scope="session")
def command_server() -> Iterator[subprocess.Popen[str]]:
    """What runs the commands (`command_server.py`)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(REPOSITORY / "tests" / "command_server.py")]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(script, env=environment, **pipes) as server:
        yield server
        for child in psutil.Process(server.pid).children(recursive=True):
            child.kill()


@pytest.fixture
def command(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    environment: dict[str, str],
    command_server: subprocess.Popen[str],
) -> Command:
    """`command("bench.run", "seed=1", ...)` runs `python -m bench.run seed=1 ...` in an empty
    folder, without a terminal."""
    output = [tmp_path_factory.mktemp("output") / name for name in ("stdout", "stderr")]

    def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        for path in output:
            path.write_text("")
        request = {
            "module": module,
            "arguments": arguments,
            "environment": environment,
            "folder": str(tmp_path),
            **{path.name: str(path) for path in output},
        }
        assert command_server.stdin is not None
        assert command_server.stdout is not None
        print(json.dumps(request), file=command_server.stdin, flush=True)
        status = int(command_server.stdout.readline())
        printed, errors = (path.read_text() for path in output)
        return subprocess.CompletedProcess([module, *arguments], status, printed, errors)

    return run


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Start]:
    """`start("bench.sweep", "grid=...", ...)` does not wait; what still runs when the test ends,
    however it ends, is killed with all that it started."""
    processes: list[subprocess.Popen[str]] = []

    def run(module: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            **{
                "cwd": tmp_path,
                "env": environment,
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **options,
            },
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        with suppress(ValueError):  # a test has read the output to its end
            process.communicate()
        process.wait()


@pytest.fixture
def outcomes() -> Outcomes:
    """`outcomes(folder)`: what every run under a results folder computed, without times."""
    untimed = {"seconds": 0, "probe_seconds": 0}
    of_a_start = ("finished", "seconds", "peak_memory_bytes", "checksums", "checksum")

    def read(folder: Path) -> dict[str, Any]:
        computed = {}
        for run in sorted((folder / "runs").iterdir()):
            lines = (run / "metrics.jsonl").read_text().splitlines()
            result = json.loads((run / "result.json").read_text())
            computed[run.name] = (
                [{**json.loads(line), **untimed} for line in lines],
                (run / "measurements.jsonl").read_text(),
                {key: value for key, value in result.items() if key not in of_a_start},
                (run / "distilled.safetensors").read_bytes(),
                (run / "distilled.png").read_bytes(),
            )
        return computed

    return read
