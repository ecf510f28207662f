"""Queries to SLURM's controller, one for all jobs, and the few commands given to it. Accounting is
not used: many sites keep none, and a query for each job would overload a controller.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.system.errors import UserError

# SLURM's own commands give up after some 20 s if the controller does not answer.
SECONDS_FOR_A_COMMAND = 90.0
SECONDS_BETWEEN_QUERIES = 30.0
USUAL_LARGEST_ARRAY = 1001  # MaxArraySize where a site sets none
FIELDS = "%j|%F|%K|%T|%r"  # name, (array) job, task in the array, state, reason

WHOLE = -1  # stands for a job's only task, or for all that have no line of their own

# States in which a job has not ended; all others are final.
WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
WORKING = ("CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING")
WORKING += ("STAGE_OUT",)

# Names of SLURM's job reason codes that do not go away by waiting.
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
    def why(self) -> str:
        """Why it waits, in SLURM's words; before SLURM has looked at it, that it waits."""
        return (
            self.reason if self.reason not in ("None", "") else self.state.lower().replace("_", " ")
        )

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
    """The controller, queried at most twice a minute.

    Attributes:
        silent: why it did not answer the last query; empty if it did.
    """

    silent: str = ""
    _jobs: dict[tuple[str, int], Job] = field(default_factory=dict)
    _queried: frozenset[str] = frozenset()
    _queried_at: float = -float("inf")
    _nodes: dict[str, str] = field(default_factory=dict)
    _nodes_queried_at: float = -float("inf")

    def jobs(self, names: Iterable[str]) -> dict[tuple[str, int], Job]:
        """The jobs that have one of these names, by name and task; the last answer if it is recent,
        or if there is none now (`silent` says why)."""
        wanted = frozenset(names)
        recent = time.monotonic() - self._queried_at < SECONDS_BETWEEN_QUERIES
        if wanted and not (recent and wanted <= self._queried):
            try:
                self._jobs, self.silent = query(wanted), ""
            except SchedulerSilent as error:
                self.silent = str(error)
            self._queried, self._queried_at = wanted, time.monotonic()
        return self._jobs

    def node_state(self, node: str) -> str:
        """The state of a node, in SLURM's words (`idle`, `down*`; the star says that it does not
        respond); empty if it is not known. All nodes are queried at once, as rarely as the jobs."""
        if time.monotonic() - self._nodes_queried_at >= SECONDS_BETWEEN_QUERIES:
            try:
                lines = call("sinfo", "--noheader", "--Node", "--format=%N|%T").splitlines()
            except UserError:
                lines = []
            self._nodes = dict(line.split("|", 1) for line in lines if "|" in line)
            self._nodes_queried_at = time.monotonic()
        return self._nodes.get(node, "").strip()


def query(names: Iterable[str]) -> dict[tuple[str, int], Job]:
    """The jobs with one of these names that the controller knows: all that have not ended, and
    those that ended in the last minutes (the site's MinJobAge).

    Raises:
        SchedulerSilent: it does not answer, or its commands are not here.
    """
    listed = ",".join(sorted(names))
    answer = call(
        "squeue", "--noheader", "--array", "--states=all", f"--name={listed}", f"--format={FIELDS}"
    )
    jobs: dict[tuple[str, int], Job] = {}
    for line in answer.splitlines():
        if line.count("|") < 4:
            continue  # something else that this site's squeue prints
        name, number, tasks, state, reason = line.split("|", 4)
        if tasks == "N/A":
            jobs[name, WHOLE] = Job(number, state, reason)
        for task in listed_tasks(tasks):
            jobs[name, task] = Job(f"{number}_{task}", state, reason)
    return jobs


def listed_tasks(text: str) -> list[int]:
    """The tasks in squeue's notation for several tasks: `0-2,5,7-8%4`."""
    ranges = re.findall(r"(?:^|,)(\d+)(?:-(\d+))?(?::(\d+))?", text.partition("%")[0])
    return [
        task
        for first, last, step in ranges
        for task in range(int(first), int(last or first) + 1, int(step or 1))
    ]


def send(script: str, open_files: Sequence[int] = ()) -> str:
    """Submit a batch script; the id of its job.

    Args:
        open_files: file descriptors that sbatch keeps open while it runs.

    Raises:
        UserError: it was rejected, or the scheduler does not answer.
    """
    return call("sbatch", "--parsable", script, open_files=open_files).strip().partition(";")[0]


def rejection(script_text: str) -> str:
    """Why the scheduler would reject a batch script; empty if it would not. Nothing is submitted.

    Raises:
        SchedulerSilent: it does not answer.
    """
    try:
        call("sbatch", "--test-only", script=script_text)
    except SchedulerSilent:
        raise
    except UserError as error:
        return str(error)
    return ""


def is_certain(rejection: str) -> bool:
    """Whether a job whose test ends with this `rejection` is surely rejected. A request that no
    node can serve now may be accepted: some nodes are down, or the site lets such jobs wait."""
    return NOT_NOW.search(rejection) is None


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs, by their ids."""
    for first in range(0, len(jobs), 500):  # a command line has a maximal length
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
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"), re.M)
    return max(1, int(match.group(1))) if match else USUAL_LARGEST_ARRAY


def call(program: str, *arguments: str, script: str = "", open_files: Sequence[int] = ()) -> str:
    """The output of a SLURM command.

    Args:
        script: its standard input.
        open_files: file descriptors that it keeps open.

    Raises:
        SchedulerSilent: it is not installed, or gets no answer.
        UserError: it failed.
    """
    if shutil.which(program) is None:
        raise SchedulerSilent(f"SLURM's command {program} is not installed here")
    # Inside a job, the job's own variables would become options of the new one.
    environment = {
        key: value
        for key, value in os.environ.items()
        if key == "SLURM_CONF" or not key.startswith(("SLURM_", "SBATCH_"))
    }
    try:
        done = subprocess.run(
            [program, *arguments],
            env=environment,
            input=script,
            pass_fds=open_files,
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
    message = error_message(program, done.stderr) or f"ended with status {done.returncode}"
    if SILENT.search(done.stderr):
        raise SchedulerSilent(f"SLURM does not answer: {program}: {message}")
    raise UserError(f"{program}: {message}")


def error_message(program: str, stderr: str) -> str:
    """The error message of a SLURM command. Often there are two: the error itself and, after `Batch
    job submission failed`, the kind of error."""
    lines = [line.strip().removeprefix(f"{program}: ") for line in stderr.splitlines()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    others = [line for line in lines if line and not line.startswith(("error: ", "Try "))]
    specific = [line for line in errors if not KIND_OF_ERROR.match(line)]
    messages = specific or [KIND_OF_ERROR.sub("", line) for line in (*others, *errors)]
    return " ".join(" ".join(dict.fromkeys(messages)).split())


KIND_OF_ERROR = re.compile(r"Batch job submission failed: |allocation failure: ")
NOT_NOW = re.compile(r"not available|unavailable|busy")
SILENT = re.compile(
    r"Unable to contact|onnection refused|timed out|Socket timed|resolve_ctls|DNS SRV"
    r"|Zero Bytes|configuration source|nodename nor servname|not known"
)
