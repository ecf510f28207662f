"""Sends runs to a cluster, once each; waits for them where asked to; cancels them."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.config.run_config import Environment, RunConfig
from bench.runs.heartbeat import Progress
from bench.runs.run_folder import RunFolder
from bench.system.errors import UserError
from bench.system.machine import slurm_is_set_up
from bench.system.text import count
from slurm import scheduler
from slurm.batch_script import Array, in_file_names, script_text
from slurm.job_status import BEING_SUBMITTED, SECONDS_TO_SUBMIT, standings
from slurm.profile import Profile
from slurm.scheduler import Scheduler, SchedulerSilent
from slurm.submission_record import Submission, arrays, in_turn, kept, put_back, submitting, write

SECONDS_TO_LOOK_AGAIN = 2.0
FIND_OUT = "the same command finds out what has arrived, and sends the rest"


class OnCluster:
    """A `Launcher` of runs that were submitted: it has but to wait for them."""

    def __init__(self, runs: Sequence[RunFolder], scheduler: Scheduler) -> None:
        self.runs = runs
        self.scheduler = scheduler

    def poll(self) -> bool:
        return any(goes_on(progress) for _, progress in standings(self.runs, self.scheduler))

    def stop(self) -> None:
        """The jobs go on: to end them is `cancel`'s."""


def goes_on(progress: Progress) -> bool:
    """Whether a run is at work or will be without anybody's doing."""
    stuck = progress.state in ("blocked", "damaged")
    return progress.state == "running" or (bool(progress.job) and not stuck)


def submit(
    runs: Sequence[tuple[RunConfig, RunFolder]],
    wanted: Callable[[Progress], bool],
    grid: str,
    profile: Profile,
    environment: Environment,
    command_again: str = "",
    *,
    anew: bool = False,
    script_only: bool = False,
) -> list[str]:
    """Send those of the runs that have no job and are wanted; the lines that tell what was done.

    Whoever does the same at the same moment waits until this has ended, and then finds that
    nothing is left. What an interrupted submission has sent is found in the scheduler's answer.

    Before any is sent, each kind of job array is tried: where one would be refused, none is sent.

    Args:
        wanted: whether a run that stands so, and has no job, is to be sent.
        command_again: goes on with what is submitted.
        anew: let the runs be made anew; what they have stays until they begin.
        script_only: write the batch scripts, for somebody else to submit.

    Raises:
        UserError: SLURM does not answer, or refuses a job. What was sent before stays sent.
    """
    root = Path(environment.results_root)
    in_file_names(root.resolve())
    with submitting(root):
        standing = settled([folder for _, folder in runs], asks=not script_only)
        chosen = [
            (config, folder)
            for (config, folder), (_, progress) in zip(runs, standing, strict=True)
            if not progress.job and wanted(progress)
        ]
        pieces = arrays(chosen, profile, largest_array(asks=not script_only))
        if not script_only and len(pieces) > 1:
            pieces = tried(pieces)
        before = {folder.name: (folder, kept(folder)) for _, folder in chosen}
        for config, folder in chosen:
            folder.create(config, command_again)
            if anew:
                folder.ask_anew()
        waits = in_turn(pieces)
        if script_only:
            written = [write(piece, grid, environment, root, by_hand=True) for piece in pieces]
            return [by_hand(each, waits, first=each is written[0]) for each in written]
        told, previous = [], ""
        try:
            for piece in pieces:
                job = send(replace(piece, after=previous), grid, environment, root)
                told.append(f"job {job}: {len(piece.runs)} of the runs, {described(piece.profile)}")
                previous = job if waits else ""
        except UserError as error:
            for line in told:
                print(line)
            if not isinstance(error, SchedulerSilent):
                for name in [name for unsent in pieces[len(told) :] for name in unsent.runs]:
                    put_back(*before[name])
            raise
    return told


def send(array: Array, grid: str, environment: Environment, root: Path) -> str:
    """Submit a job array; the id of its job.

    Raises:
        UserError: it was refused, and its submission is no more.
        SchedulerSilent: it may have arrived or not.
    """
    submission = write(array, grid, environment, root)
    try:
        with submission.being_sent() as held:
            job = scheduler.send(str(submission.script), held)
    except SchedulerSilent as error:
        raise SchedulerSilent(f"{error}; {FIND_OUT}") from error
    except UserError:
        submission.withdraw()
        raise
    except KeyboardInterrupt:
        print(f"sbatch had not answered; {FIND_OUT}")
        raise
    submission.accept(job)
    return job


def tried(pieces: Sequence[Array]) -> list[Array]:
    """The job arrays, those first that may be refused: then nothing is sent yet.

    Raises:
        UserError: one would be refused.
        SchedulerSilent: the scheduler does not answer.
    """
    doubted, certain = [], []
    for piece in pieces:
        if piece.kind in doubted or piece.kind in certain:
            continue
        told = scheduler.refusal(script_text(piece, "tried", Path("tried").resolve()))
        if told and scheduler.is_certain(told):
            methods = ", ".join(sorted({name.rpartition("-")[0] for name in piece.runs}))
            raise UserError(
                f"nothing is sent, because {told} (for {methods}: {described(piece.profile)})"
            )
        (doubted if told else certain).append(piece.kind)
    return sorted(pieces, key=lambda piece: piece.kind in certain)


def by_hand(submission: Submission, waits: bool, first: bool) -> str:
    """The command that submits a script; each waits for the one before where there may be fewer
    runs at a time than scripts."""
    script = shlex.quote(str(submission.script))
    if not waits:
        return f"sbatch {script}"
    after = "" if first else " --dependency=afterany:$job"
    return f"job=$(sbatch --parsable{after} {script})"


def settled(runs: Sequence[RunFolder], asks: bool) -> list[tuple[RunFolder, Progress]]:
    """How runs stand once it is known whether what somebody was submitting has arrived.

    Raises:
        SchedulerSilent: the scheduler does not answer.
    """
    told = False
    while True:
        asked = Scheduler()
        standing = standings(runs, asked)
        if asked.silent and asks:
            raise SchedulerSilent(asked.silent)
        if not any(progress.cause == BEING_SUBMITTED for _, progress in standing):
            return standing
        if not told:
            print(
                "waiting until it is known whether what was being submitted has arrived"
                f" (about {SECONDS_TO_SUBMIT:.0f} s after that began)",
                flush=True,
            )
            told = True
        time.sleep(SECONDS_TO_LOOK_AGAIN)


def largest_array(asks: bool) -> int:
    """How many tasks the cluster allows an array; without asking, what is usual."""
    return scheduler.largest_array() if asks else scheduler.USUAL_LARGEST_ARRAY


def described(profile: Profile) -> str:
    """What each run asks for, in a few words."""
    parts = [
        profile.partition and f"partition {profile.partition}",
        f"{profile.time_min} min",
        f"{profile.gpus} GPU" if profile.gpus else "no GPU",
        count(profile.cpus, "core"),
        f"{profile.mem_gb:g} GB" if profile.mem_gb else "",
    ]
    return ", ".join(part for part in parts if part)


def preview(runs: Sequence[tuple[RunConfig, RunFolder]], profile: Profile) -> str:
    """The batch scripts that `submit` would send, with a made-up name."""
    pieces = arrays(runs, profile, largest_array(asks=slurm_is_set_up()))
    for _, folder in runs[:1]:
        in_file_names(folder.path.resolve())
    told = [count(len(pieces), "job array")]
    for piece in pieces:
        told += [f"--- {len(piece.runs)} of the runs, {described(piece.profile)}"]
        told += [script_text(piece, "GRID-TOKEN", Path("GRID-TOKEN"))]
    return "\n".join(told)


def cancel_jobs(runs: Sequence[RunFolder], agreed: Callable[[Sequence[str]], bool]) -> list[str]:
    """Cancel the jobs of these runs that have not ended; their ids.

    Args:
        agreed: asked once, with the ids, where there are any.

    Raises:
        UserError: SLURM does not answer, or refuses.
    """
    standing = settled(runs, asks=True)
    jobs = [progress.job for _, progress in standing if progress.job]
    if not jobs or not agreed(jobs):
        return []
    scheduler.cancel(jobs)
    return jobs
