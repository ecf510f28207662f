"""What SLURM's controller says of jobs, in one query for all of them; and the few orders given to
it. No accounting is asked: many sites keep none, and asking for each job brings a controller down.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.errors import UserError

# A controller that is away is given up by SLURM's own commands after some 20 s.
SECONDS_FOR_A_COMMAND = 90.0
SECONDS_BETWEEN_QUERIES = 30.0
USUAL_LARGEST_ARRAY = 1001  # MaxArraySize where a site sets none
FIELDS = "%j|%F|%K|%T|%r"  # name, (array) job, task in the array, state, reason

# States in which a job has not ended; all others are final.
WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
WORKING = ("CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING")
WORKING += ("STAGE_OUT",)

# Reasons that waiting does not mend, by the names of SLURM's job reason codes.
NEVER = re.compile(
    r"PartitionTimeLimit|PartitionNodeLimit|PartitionConfig|BadConstraints|NeverSatisfied"
    r"|InvalidAccount|InvalidQOS|NotAllowed|NotSatisfied|PerJob|PerNode|MaxWallDuration"
    r"|held|Held|HoldMaxRequeue|ReservationDeleted",
)


class SchedulerSilent(UserError):
    """The scheduler does not answer now."""


@dataclass(frozen=True)
class Job:
    """A job as the controller knows it.

    Attributes:
        id: as squeue writes it: `12`, or `12_3` for task 3 of an array.
        state, reason: SLURM's words.
    """

    id: str
    state: str
    reason: str

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def works(self) -> bool:
        return self.state in WORKING

    @property
    def blocked(self) -> bool:
        """Whether it will never start unless somebody changes something."""
        return self.waits and (NEVER.search(self.reason) is not None or self.state != "PENDING")

    @property
    def ended(self) -> bool:
        return not (self.waits or self.works)


@dataclass
class Scheduler:
    """The controller, asked at most twice a minute.

    Attributes:
        silent: what kept it from answering the last query; empty where it did.
    """

    silent: str = ""
    _jobs: dict[tuple[str, int], Job] = field(default_factory=dict)
    _asked: frozenset[str] = frozenset()
    _asked_at: float = -float("inf")

    def jobs(self, names: Iterable[str]) -> dict[tuple[str, int], Job]:
        """The jobs that have one of these names, by name and task; the last answer where it is
        young, or where there is none now (`silent` says why)."""
        wanted = frozenset(names)
        recent = time.monotonic() - self._asked_at < SECONDS_BETWEEN_QUERIES
        if wanted and not (recent and wanted <= self._asked):
            try:
                self._jobs, self.silent = query(wanted), ""
            except SchedulerSilent as error:
                self.silent = str(error)
            self._asked, self._asked_at = wanted, time.monotonic()
        return self._jobs


def query(names: Iterable[str]) -> dict[tuple[str, int], Job]:
    """The jobs that have one of these names and are known to the controller: all that have not
    ended, and those that ended in the last minutes (the site's MinJobAge).

    Raises:
        SchedulerSilent: it does not answer, or its commands are not here.
    """
    listed = ",".join(sorted(names))
    answer = call(
        "squeue", "--noheader", "--array", "--states=all", f"--name={listed}", f"--format={FIELDS}"
    )
    found: dict[tuple[str, int], Job] = {}
    for line in answer.splitlines():
        name, job, task, state, reason = line.split("|", 4)
        index = int(task) if task.isdigit() else 0  # N/A outside an array
        found[name, index] = Job(f"{job}_{task}" if task.isdigit() else job, state, reason)
    return found


def send(script: str) -> str:
    """Submit a batch script; the id of its job.

    Raises:
        UserError: it was refused, or the scheduler does not answer.
    """
    return call("sbatch", "--parsable", script).strip().partition(";")[0]


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs, by their ids."""
    for first in range(0, len(jobs), 500):  # a command line has an end
        call("scancel", *jobs[first : first + 500])


def answers() -> bool:
    """Whether the controller can be reached now."""
    try:
        return "UP" in call("scontrol", "ping")
    except UserError:
        return False


def largest_array() -> int:
    """How many tasks an array may have here: their numbers begin at 0 and stay below the cluster's
    MaxArraySize."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"), re.M)
    return max(1, int(found.group(1))) if found else USUAL_LARGEST_ARRAY


def call(program: str, *arguments: str) -> str:
    """What a SLURM command prints.

    Raises:
        SchedulerSilent: it is not here, or gets no answer.
        UserError: it was refused.
    """
    if shutil.which(program) is None:
        raise SchedulerSilent(f"SLURM's command {program} is not installed here")
    # Inside a job its own variables would become options of the new one.
    environment = {
        key: value
        for key, value in os.environ.items()
        if key == "SLURM_CONF" or not key.startswith(("SLURM_", "SBATCH_"))
    }
    try:
        done = subprocess.run(
            [program, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_FOR_A_COMMAND,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SchedulerSilent(
            f"{program} got no answer in {SECONDS_FOR_A_COMMAND:.0f} s"
        ) from error
    if done.returncode == 0:
        return done.stdout
    told = " ".join(done.stderr.split()) or f"{program} ended with status {done.returncode}"
    if SILENT.search(told):
        raise SchedulerSilent(f"SLURM does not answer: {told}")
    raise UserError(told if told.startswith(f"{program}:") else f"{program}: {told}")


SILENT = re.compile(
    r"Unable to contact|onnection refused|timed out|Socket timed|resolve_ctls|DNS SRV"
    r"|Zero Bytes|configuration source|nodename nor servname|not known"
)
