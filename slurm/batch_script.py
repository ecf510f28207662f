"""The batch script of a job array: submitit writes it from the settings of a profile."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import submitit

from bench.system.errors import UserError
from bench.system.git import SOURCE
from slurm.job_arrays import JobArray
from slurm.profile import Profile


class ScriptWriter(submitit.SlurmExecutor):
    """submitit's executor, used only for the text of its batch scripts; it writes them on any
    machine, also where there is no srun."""

    @classmethod
    def affinity(cls) -> int:
        return 1


def script_text(array: JobArray, name: str, folder: Path) -> str:
    """The text of the batch script.

    Args:
        name: of the job, by which the launcher finds it.
        folder: of the submission, an absolute path.

    Raises:
        UserError: SLURM cannot write to a folder with this name.
    """
    executor = ScriptWriter(
        folder=in_file_names(folder), max_num_timeout=array.profile.max_requeues
    )
    executor.update_parameters(**parameters(array, name))
    if len(array.runs) > 1:
        # submitit sets this itself where it writes a pickle for each task. Our tasks need none
        # before they start, so that a submitter killed right after sbatch loses no job.
        executor.parameters["map_count"] = len(array.runs)
    command = shlex.join([sys.executable, "-u", "-m", "slurm.job", str(folder)])
    return executor._make_submission_file_text(command, uid="")


def in_file_names(folder: Path) -> Path:
    """A folder as it is written in the names of output files, where SLURM replaces %j and others.

    Raises:
        UserError: SLURM cannot write to a folder with this name.
    """
    for path, what in ((folder, "results_root"), (Path.cwd(), "the current folder")):
        if match := re.search(r"[\\\x00-\x1f\x7f]", str(path)):
            raise UserError(
                f"{what} {str(path)!r}: SLURM cannot write to a folder with {match.group()!r} in"
                " its name; choose another"
            )
    if match := re.search("%[jtAa]", str(folder)):
        raise UserError(
            f"results_root {folder}: SLURM replaces {match.group()} in file names by a number of"
            " the job; choose another folder"
        )
    return Path(str(folder).replace("%", "%%"))


def parameters(array: JobArray, name: str) -> dict[str, Any]:
    """The parameters of submitit's executor."""
    profile = array.profile
    options: dict[str, Any] = {
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
        **{key: value for key, value in options.items() if value},
        "wckey": None,  # submitit gives its own name, which some sites refuse
        "stderr_to_stdout": True,
        "setup": setup_lines(profile),
        # One process that dies must not leave the others of its run waiting for it.
        "srun_args": ["--kill-on-bad-exit=1", *profile.srun],
        "additional_parameters": {"requeue": True, "chdir": os.getcwd(), **flags(profile)},
    }


def flags(profile: Profile) -> dict[str, Any]:
    """Further options of sbatch: true stands for an option without a value, false for none."""
    switch = {"true": True, "false": False}
    options = {key: switch.get(str(value).lower(), value) for key, value in profile.sbatch.items()}
    return {key: value for key, value in options.items() if value is not False}


def setup_lines(profile: Profile) -> list[str]:
    """Shell lines before the run: the site's own, then what the run needs to find its code."""
    # The source tree may not be installed, and a user's own method may lie in the folder that the
    # sweep was started from. After the site's lines: modules set PYTHONPATH too.
    folders = shlex.quote(os.pathsep.join(dict.fromkeys([str(SOURCE), os.getcwd()])))
    return [
        *profile.setup,
        f"export PYTHONPATH={folders}${{PYTHONPATH:+:$PYTHONPATH}}",
        # Since SLURM 22.05 srun does not inherit it from sbatch.
        'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
    ]
