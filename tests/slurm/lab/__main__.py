"""The command `python -m tests.slurm.lab`."""

import shlex
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.config.command_line import command, only, parse, setting, typed
from bench.system.errors import UserError
from bench.system.text import count
from tests.slurm.lab.configuration import Shape
from tests.slurm.lab.lab import Lab, LabFailed
from tests.waiting import NotReached

USAGE = """
python -m tests.slurm.lab start [nodes=4] [key=value ...]  a real SLURM on this host, for tests
python -m tests.slurm.lab env                              lines for a shell: eval "$(...)"
python -m tests.slurm.lab status                           daemons and nodes; status 1 if not up
python -m tests.slurm.lab stop                             kills its daemons and jobs, nothing else
"""


@dataclass(frozen=True)
class LabPlace:
    """Where the lab is."""

    folder: str = setting("~/.cache/window-bench/lab", "its files; two labs need two folders")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    # However the command is ended, what it has started ends with it; and what it starts must be
    # able to receive Ctrl-C even where the command itself was put into the background.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    actions = {"start": start, "stop": stop, "status": status, "env": env}
    if not argv or argv[0] not in actions:
        raise UserError(f"say one of {', '.join(actions)} (--help tells more)")
    action, given = actions[argv[0]], parse(argv[1:], LabPlace, Shape)
    return action(Path(typed(LabPlace, only(given, LabPlace)).folder), only(given, Shape))


def start(folder: Path, shape: dict[str, int]) -> int:
    """Bring the lab up, or do nothing where it is."""
    began = time.perf_counter()
    lab = Lab(folder, **shape)
    lab.start()
    print(
        f"{count(len(lab.nodes), 'node')} up after {time.perf_counter() - began:.1f} s in"
        f" {lab.folder.path};"
        f' eval "$(python -m tests.slurm.lab env folder={lab.folder.path})"'
    )
    return 0


def stop(folder: Path, _: dict[str, int]) -> int:
    """Kill the lab."""
    lab = Lab.found(folder)
    if lab is not None:
        lab.stop()
    print("stopped" if lab is not None else f"no lab runs in {folder}")
    return 0


def status(folder: Path, _: dict[str, int]) -> int:
    """Tell which daemons run and what the nodes' states are."""
    lab = Lab.found(folder)
    if lab is None:
        print(f"no lab runs in {folder}")
        return 1
    print(" ".join(f"{key}={value}" for key, value in asdict(lab.shape).items()))
    pids = {name: lab.daemons.pid(name) for name in ["munged", "slurmctld", *lab.nodes]}
    try:
        states = lab.node_states() if pids["slurmctld"] else {}
    except (LabFailed, NotReached) as error:
        states = dict.fromkeys(lab.nodes, str(error))
    for name, pid in pids.items():
        print(f"{name:<10} {f'pid {pid}' if pid else 'not running':<12} {states.get(name, '')}")
    return 0 if all(pids.values()) else 1


def env(folder: Path, _: dict[str, int]) -> int:
    """Print what a shell must export."""
    lab = Lab.found(folder)
    if lab is None:
        raise UserError(f"no lab runs in {folder}; python -m tests.slurm.lab start starts one")
    for key, value in lab.environment.items():
        print(f"export {key}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    command(main, USAGE, LabPlace, Shape)
