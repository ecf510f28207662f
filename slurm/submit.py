"""Submits runs to a cluster, each of them once."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.config.run_config import Environment
from bench.runs.heartbeat import Progress
from bench.runs.run_folder import RunFolder
from bench.sweeps.launcher import PlannedRun
from bench.sweeps.status_table import RunStatus
from bench.system.errors import UserError
from bench.system.machine import slurm_is_set_up
from bench.system.text import count
from slurm import scheduler
from slurm.batch_script import in_file_names, script_text
from slurm.job_arrays import JobArray, job_arrays, one_after_another
from slurm.job_status import BEING_SUBMITTED, SECONDS_TO_SUBMIT, statuses
from slurm.profile import Profile
from slurm.scheduler import Scheduler, SchedulerSilent
from slurm.submission_record import Submission, changed_files, restore_files, submitting, write

SECONDS_TO_LOOK_AGAIN = 2.0
SAME_COMMAND = "the same command finds out what has been submitted, and submits the rest"


def submit(
    runs: Sequence[PlannedRun],
    wanted: Callable[[Progress], bool],
    grid: str,
    profile: Profile,
    environment: Environment,
    resume_command: str = "",
    *,
    rerun: bool = False,
    script_only: bool = False,
) -> list[str]:
    """Submit those of the runs that have no job and are wanted; the lines to print about it.

    Another process that does the same at the same moment waits until this has ended, and then finds
    that nothing is left. Jobs of an interrupted submission are found in the scheduler's answer.
    Before any job array is submitted, each kind of them is tested: if one would be rejected, none
    is submitted.

    Args:
        wanted: whether a run with this status and without a job is to be submitted.
        resume_command: resumes what is submitted.
        rerun: let the runs start from the beginning; what they have stays until they do.
        script_only: write the batch scripts, for the user to submit.

    Raises:
        UserError: SLURM does not answer, or rejects a job. What was submitted before stays so.
    """
    root = Path(environment.results_root)
    in_file_names(root.resolve())
    with submitting(root):
        status = settled([run.folder for run in runs], must_answer=not script_only)
        chosen = [
            run
            for run, (_, progress) in zip(runs, status, strict=True)
            if not progress.job and wanted(progress)
        ]
        arrays = job_arrays(chosen, profile, largest_array(from_cluster=not script_only))
        if not script_only and len(arrays) > 1:
            arrays = tested(arrays)
        before = {run.folder.name: (run.folder, changed_files(run.folder)) for run in chosen}
        for run in chosen:
            run.folder.create(run.config, resume_command)
            if rerun:
                run.folder.request_rerun()
        waits = one_after_another(arrays)
        if script_only:
            written = [write(array, grid, environment, root, by_hand=True) for array in arrays]
            return [sbatch_line(each, waits, first=each is written[0]) for each in written]
        lines, previous = [], ""
        try:
            for array in arrays:
                job = send(replace(array, after=previous), grid, environment, root)
                lines.append(f"job {job}: {count(len(array.runs), 'run')}, {described(array)}")
                previous = job if waits else ""
        except UserError as error:
            for line in lines:
                print(line)
            if not isinstance(error, SchedulerSilent):
                for name in [name for array in arrays[len(lines) :] for name in array.runs]:
                    restore_files(*before[name])
            raise
    return lines


def send(array: JobArray, grid: str, environment: Environment, root: Path) -> str:
    """Submit a job array; the id of its job.

    Raises:
        UserError: it was rejected; its record is removed.
        SchedulerSilent: it is not known whether it was accepted.
    """
    submission = write(array, grid, environment, root)
    try:
        with submission.being_sent() as open_files:
            job = scheduler.send(str(submission.script), open_files)
    except SchedulerSilent as error:
        raise SchedulerSilent(f"{error}; {SAME_COMMAND}") from error
    except UserError:
        submission.withdraw()
        raise
    except KeyboardInterrupt:
        print(f"sbatch had not answered; {SAME_COMMAND}")
        raise
    submission.accept(job)
    return job


def tested(arrays: Sequence[JobArray]) -> list[JobArray]:
    """The job arrays, those first that may be rejected: then nothing has been submitted yet.

    Raises:
        UserError: one would be rejected.
        SchedulerSilent: the scheduler does not answer.
    """
    doubtful, certain = [], []
    for array in arrays:
        if array.kind in doubtful or array.kind in certain:
            continue
        rejection = scheduler.rejection(script_text(array, "tested", Path("tested").resolve()))
        if rejection and scheduler.is_certain(rejection):
            methods = ", ".join(sorted({name.rpartition("-")[0] for name in array.runs}))
            raise UserError(
                f"nothing was submitted: {rejection} (for {methods}: {described(array)})"
            )
        (doubtful if rejection else certain).append(array.kind)
    return sorted(arrays, key=lambda array: array.kind in certain)


def sbatch_line(submission: Submission, waits: bool, first: bool) -> str:
    """The command that submits a script. If there may be fewer runs at a time than scripts, each
    waits for the one before."""
    script = shlex.quote(str(submission.script))
    if not waits:
        return f"sbatch {script}"
    after = "" if first else " --dependency=afterany:$job"
    return f"job=$(sbatch --parsable{after} {script})"


def settled(runs: Sequence[RunFolder], must_answer: bool) -> list[RunStatus]:
    """The status of runs, once it is known whether an interrupted submission was accepted.

    Raises:
        SchedulerSilent: the scheduler does not answer, but must.
    """
    announced = False
    while True:
        fresh = Scheduler()
        current = statuses(runs, fresh)
        if fresh.silent and must_answer:
            raise SchedulerSilent(fresh.silent)
        if not any(progress.cause == BEING_SUBMITTED for _, progress in current):
            return current
        if not announced:
            print(
                "waiting until it is known whether an interrupted submission was accepted (about"
                f" {SECONDS_TO_SUBMIT:.0f} s after it began)",
                flush=True,
            )
            announced = True
        time.sleep(SECONDS_TO_LOOK_AGAIN)


def largest_array(from_cluster: bool) -> int:
    """How many tasks an array may have: by the cluster's settings, or what is usual."""
    return scheduler.largest_array() if from_cluster else scheduler.USUAL_LARGEST_ARRAY


def described(array: JobArray) -> str:
    """The resources of each run of an array, in a few words."""
    profile = array.profile
    parts = [
        profile.partition and f"partition {profile.partition}",
        f"{profile.time_min} min",
        f"{profile.gpus} GPU" if profile.gpus else "no GPU",
        count(profile.cpus, "core"),
        f"{profile.mem_gb:g} GB" if profile.mem_gb else "",
    ]
    return ", ".join(part for part in parts if part)


def preview(runs: Sequence[PlannedRun], profile: Profile) -> str:
    """The batch scripts that `submit` would submit, with a made-up name."""
    arrays = job_arrays(runs, profile, largest_array(from_cluster=slurm_is_set_up()))
    for run in runs[:1]:
        in_file_names(run.folder.path.resolve())
    lines = [count(len(arrays), "job array")]
    for array in arrays:
        lines += [f"--- {count(len(array.runs), 'run')}, {described(array)}"]
        lines += [script_text(array, "GRID-TOKEN", Path("GRID-TOKEN"))]
    return "\n".join(lines)
