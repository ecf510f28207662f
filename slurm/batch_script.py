"""The batch script of a job array: submitit writes it, from what a profile asks for."""

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from bench.system.errors import UserError
from bench.system.git import SOURCE
from slurm.profile import Profile


@dataclass(frozen=True)
class Array:
    """Runs that ask for the same and are submitted together.

    Attributes:
        profile: what each of them asks for.
        nodes, tasks: over how many nodes a run's processes are spread, and how many are on each.
        runs: the names of the runs' folders; task k of the array makes the k-th.
        parallel: how many of them at a time; 0: no bound.
        after: the job that has to end first; empty: none.
    """

    profile: Profile
    nodes: int
    tasks: int
    runs: tuple[str, ...]
    parallel: int = 0
    after: str = ""

    @property
    def kind(self) -> tuple[Profile, int, int]:
        """What it shares with all arrays that ask for the same."""
        return self.profile, self.nodes, self.tasks

    @property
    def processes(self) -> int:
        """Processes of each run."""
        return self.nodes * self.tasks


class ScriptWriter(submitit.SlurmExecutor):
    """submitit's executor, for the text of its batch scripts alone: it writes them on any machine,
    not only where srun is."""

    @classmethod
    def affinity(cls) -> int:
        return 1


def script_text(array: Array, name: str, folder: Path) -> str:
    """The text of the batch script.

    Args:
        name: of the job; the launcher finds its jobs by it.
        folder: of the submission, absolute.

    Raises:
        UserError: a folder's name that SLURM cannot write to.
    """
    executor = ScriptWriter(
        folder=in_file_names(folder), max_num_timeout=array.profile.max_requeues
    )
    executor.update_parameters(**parameters(array, name))
    if len(array.runs) > 1:
        # submitit sets this one itself where it writes a pickle for each task. Ours need none
        # before they start: a submitter that is killed right after sbatch loses no job.
        executor.parameters["map_count"] = len(array.runs)
    command = shlex.join([sys.executable, "-u", "-m", "slurm.job", str(folder)])
    return executor._make_submission_file_text(command, uid="")


def in_file_names(folder: Path) -> Path:
    """A folder as it stands in the names of output files, where SLURM replaces %j and the like.

    Raises:
        UserError: its name has what cannot be there.
    """
    for path, what in ((folder, "results_root"), (Path.cwd(), "the current folder")):
        if found := re.search(r"[\\\x00-\x1f\x7f]", str(path)):
            raise UserError(
                f"{what} {str(path)!r}: SLURM cannot write to a folder with {found.group()!r} in"
                " its name; choose another"
            )
    if found := re.search("%[jtAa]", str(folder)):
        raise UserError(
            f"results_root {folder}: {found.group()} stands for a number of the job in the names of"
            " its files; choose another folder"
        )
    return Path(str(folder).replace("%", "%%"))


def parameters(array: Array, name: str) -> dict[str, Any]:
    """What submitit is told, in its words."""
    profile = array.profile
    asked: dict[str, Any] = {
        "job_name": name,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "dependency": f"afterany:{array.after}" if array.after else "",
        # Whole minutes: with a text like 1:00:00 submitit's handler of the signal fails.
        "time": profile.time_min,
        "nodes": array.nodes,
        "ntasks_per_node": array.tasks,
        "cpus_per_task": profile.cpus,
        "gpus_per_node": profile.gpus * array.tasks,
        "mem": f"{round(profile.mem_gb * array.tasks * 1024)}MB" if profile.mem_gb else "",
        "signal_delay_s": profile.signal_s,
        "array_parallelism": array.parallel or len(array.runs),
    }
    return {
        **{key: value for key, value in asked.items() if value},
        "wckey": None,  # submitit gives its own name, which some sites refuse
        "stderr_to_stdout": True,
        "setup": setup_lines(profile),
        # One process that dies must not leave the others of its run waiting for it.
        "srun_args": ["--kill-on-bad-exit=1", *profile.srun],
        "additional_parameters": {"requeue": True, "chdir": os.getcwd(), **flags(profile)},
    }


def flags(profile: Profile) -> dict[str, Any]:
    """The further options of sbatch: true is an option without a value, false one left out."""
    switch = {"true": True, "false": False}
    said = {key: switch.get(str(value).lower(), value) for key, value in profile.sbatch.items()}
    return {key: value for key, value in said.items() if value is not False}


def setup_lines(profile: Profile) -> list[str]:
    """Shell before the run: the site's own lines, then what the run needs to find its code."""
    # The source tree may not be installed, and a user's own method may lie in the folder that the
    # sweep was started from. After the site's lines: modules set PYTHONPATH too.
    folders = shlex.quote(os.pathsep.join(dict.fromkeys([str(SOURCE), os.getcwd()])))
    return [
        *profile.setup,
        f"export PYTHONPATH={folders}${{PYTHONPATH:+:$PYTHONPATH}}",
        # Since SLURM 22.05 srun does not take it over from sbatch.
        'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
    ]
