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

from bench.system.errors import UserError

# A controller that is away is given up by SLURM's own commands after some 20 s.
SECONDS_FOR_A_COMMAND = 90.0
SECONDS_BETWEEN_QUERIES = 30.0
USUAL_LARGEST_ARRAY = 1001  # MaxArraySize where a site sets none
FIELDS = "%j|%F|%K|%T|%r"  # name, (array) job, task in the array, state, reason

WHOLE = -1  # stands for a job's only task, or for all that have no line of their own

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
    """The controller, asked at most twice a minute.

    Attributes:
        silent: what kept it from answering the last query; empty where it did.
    """

    silent: str = ""
    _jobs: dict[tuple[str, int], Job] = field(default_factory=dict)
    _asked: frozenset[str] = frozenset()
    _asked_at: float = -float("inf")
    _nodes: dict[str, tuple[float, str]] = field(default_factory=dict)

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

    def node_state(self, node: str) -> str:
        """The state of a node, in SLURM's words (`idle`, `down*`, the star where it does not
        respond); empty where it is not known. Asked as seldom as for the jobs."""
        asked_at, state = self._nodes.get(node, (-float("inf"), ""))
        if time.monotonic() - asked_at >= SECONDS_BETWEEN_QUERIES:
            try:
                told = call("sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%T")
            except UserError:
                told = ""
            state = next(iter(told.split()), "")
            self._nodes[node] = (time.monotonic(), state)
        return state


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
        if line.count("|") < 4:
            continue  # what some site's squeue says besides
        name, job, tasks, state, reason = line.split("|", 4)
        if tasks == "N/A":
            found[name, WHOLE] = Job(job, state, reason)
        for task in listed_tasks(tasks):
            found[name, task] = Job(f"{job}_{task}", state, reason)
    return found


def listed_tasks(text: str) -> list[int]:
    """The tasks that squeue means where it writes several as one: `0-2,5,7-8%4`."""
    ranges = re.findall(r"(?:^|,)(\d+)(?:-(\d+))?(?::(\d+))?", text.partition("%")[0])
    return [
        task
        for first, last, step in ranges
        for task in range(int(first), int(last or first) + 1, int(step or 1))
    ]


def send(script: str, held: Sequence[int] = ()) -> str:
    """Submit a batch script; the id of its job.

    Args:
        held: file descriptors that sbatch keeps open for as long as it lives.

    Raises:
        UserError: it was refused, or the scheduler does not answer.
    """
    return call("sbatch", "--parsable", script, held=held).strip().partition(";")[0]


def refusal(script_text: str) -> str:
    """Why the scheduler would refuse a batch script; empty where it would not. Nothing is sent.

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


def is_certain(refusal: str) -> bool:
    """Whether a job that gets this `refusal` of a test is refused. What no node can give now, where
    some are down or the site lets such jobs wait, is accepted all the same."""
    return NOT_NOW.search(refusal) is None


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


def call(program: str, *arguments: str, script: str = "", held: Sequence[int] = ()) -> str:
    """What a SLURM command prints.

    Args:
        script: what it reads from its standard input.
        held: file descriptors that it keeps open.

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
            input=script,
            pass_fds=held,
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
    told = complaint(program, done.stderr) or f"ended with status {done.returncode}"
    if SILENT.search(done.stderr):
        raise SchedulerSilent(f"SLURM does not answer: {program}: {told}")
    raise UserError(f"{program}: {told}")


def complaint(program: str, stderr: str) -> str:
    """What a SLURM command says is wrong. It often says it twice: what it is, and then, after
    `Batch job submission failed`, what kind of thing it is."""
    lines = [line.strip().removeprefix(f"{program}: ") for line in stderr.splitlines()]
    of_errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    others = [line for line in lines if line and not line.startswith(("error: ", "Try "))]
    specific = [line for line in of_errors if not KIND_OF_ERROR.match(line)]
    told = specific or [KIND_OF_ERROR.sub("", line) for line in (*others, *of_errors)]
    return " ".join(" ".join(dict.fromkeys(told)).split())


KIND_OF_ERROR = re.compile(r"Batch job submission failed: |allocation failure: ")
NOT_NOW = re.compile(r"not available|unavailable|busy")
SILENT = re.compile(
    r"Unable to contact|onnection refused|timed out|Socket timed|resolve_ctls|DNS SRV"
    r"|Zero Bytes|configuration source|nodename nor servname|not known"
)
