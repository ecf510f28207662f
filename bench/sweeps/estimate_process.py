"""Asks `bench.estimate`, in a process of its own, what runs will take, and shows what it does."""

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict

from bench.config.run_config import Environment, RunConfig
from bench.sweeps.child_process import child_environment, environment_arguments
from bench.sweeps.cost_model import Estimate, Failure
from bench.sweeps.cost_text import costs
from bench.sweeps.overview import settings_of
from bench.system.errors import UserError

QUIET_SECONDS = 8.0  # after which each estimate is printed as soon as it is known
SHOWN_AFTER_SECONDS = 3.0  # a measurement that takes longer is named
SECONDS_TO_EXIT = 60.0  # for a measuring process that has printed its last answer: torch unloads
SECONDS_TO_STOP = 3.0  # for one that is stopped early


def estimates(
    configs: list[RunConfig], environment: Environment, load: bool
) -> Iterator[Estimate | Failure]:
    """The estimate of each configuration, as `bench.estimate` finds them. If that takes long, what
    it does and finds is printed. Ends early where the process does.

    Args:
        load: whether to load the data first.

    Raises:
        UserError: bad data or settings: no run could succeed.
    """
    command = [
        sys.executable,
        "-m",
        "bench.estimate",
        f"load={load}",
        *environment_arguments(environment),
    ]
    started = time.monotonic()
    with (
        tempfile.TemporaryFile("w+") as request,
        tempfile.TemporaryFile("w+") as errors,
    ):
        json.dump([asdict(config) for config in configs], request)
        request.seek(0)
        process = subprocess.Popen(
            command,
            stdin=request,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment(),
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends that one
        )
        try:
            remaining = zip(configs, settings_of(configs)[1], strict=True)
            for content in answers(process, started):
                config, varying = next(remaining)
                answer = Failure(**content) if "cause" in content else Estimate(**content)
                yield answer
                if time.monotonic() - started > QUIET_SECONDS and isinstance(answer, Estimate):
                    what = f"{config.method} {varying}".rstrip()
                    print(f"  {what}: {costs([answer])}", flush=True)
            # Interrupted now, it would lose its exit status, which says that the data are missing.
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_EXIT)
        finally:
            stop(process)
        if process.returncode != 0:
            errors.seek(0)
            lines = errors.read().strip().splitlines()
            last = lines[-1] if lines else f"bench.estimate ended with {process.returncode}"
            if process.returncode == 2:
                raise UserError(last.removeprefix("error: "))
            print(f"no estimate: {last}")


def answers(process: "subprocess.Popen[str]", started: float) -> Iterator[dict]:
    """The answers that the process prints, a JSON object per line. Lines that say what it is doing
    are shown instead, if one thing takes some seconds."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout:
            for text in process.stdout:
                lines.put(text)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    doing = ""
    while True:
        try:
            text = lines.get(timeout=SHOWN_AFTER_SECONDS)
        except queue.Empty:
            if doing:
                print(f"  {time.monotonic() - started:.0f} s: {doing}", flush=True)
            doing = ""
            continue
        if text is None:
            return
        try:
            content = json.loads(text)
        except ValueError:
            continue  # printed when Python started, by a site hook of a cluster, for example
        if not isinstance(content, dict):
            continue
        if "doing" in content:
            doing = content["doing"]
        elif "missing" in content:
            print(f"the runs will need data: {content['missing']}", flush=True)
        else:
            yield content


def stop(process: "subprocess.Popen[str]") -> None:
    """Interrupt a process that is still there, then kill it."""
    for signal_number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_STOP)
