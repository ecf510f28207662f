"""Which processes of this host run on which node of a lab."""

from collections.abc import Collection
from contextlib import suppress

import psutil

from tests.slurm.lab.folder import LabFolder


def job_processes(folder: LabFolder, nodes: Collection[str]) -> list[psutil.Process]:
    """The steps (slurmstepd) of these nodes, and then all that they started.

    Found as child of a step or, where it left its parent, by its environment. A task that did away
    with both is not found; SLURM itself would not find it either without cgroups.
    """
    steps: list[psutil.Process] = []
    tasks: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended, or is another user's
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.name() == "slurmstepd":
                if _is_step(folder, process, nodes):
                    steps.append(process)
                    tasks.extend(process.children(recursive=True))
            elif _is_task(folder, process.environ(), nodes):
                tasks.append(process)
    return list(dict.fromkeys(steps + tasks))


def _is_step(folder: LabFolder, process: psutil.Process, nodes: Collection[str]) -> bool:
    # A step listens on a socket in the folder of its node. Its environment does not tell: it is
    # overwritten by its title.
    sockets = tuple(f"{folder.spool / name}/" for name in nodes)
    listening = process.net_connections("unix")
    return any(str(connection.laddr).startswith(sockets) for connection in listening)


def _is_task(folder: LabFolder, environment: dict[str, str], nodes: Collection[str]) -> bool:
    return (
        environment.get("SLURM_CONF") == str(folder.slurm_conf)
        and environment.get("SLURMD_NODENAME") in nodes
    )
