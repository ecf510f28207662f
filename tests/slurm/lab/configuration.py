"""What a lab has, and the files that SLURM and munge read to be it."""

import os
import pwd
import random
import socket
import stat
import time
from dataclasses import dataclass

from bench.config.command_line import setting
from bench.system.errors import UserError
from tests.slurm.lab.folder import LabFolder
from tests.slurm.lab.packages import path_of

LOOPBACK = "127.0.0.1"
CPUS_PER_NODE = 2
MEMORY_MIB_PER_NODE = 8192
# Below the ports that the kernel gives to outgoing connections, which could take one of ours.
PORTS = range(20000, 32000)
MOST_JOB_IDS = 60_000_000

SLURM_CONF = """\
ClusterName=lab
MailProg=/bin/true
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
# Without these two the daemons listen on every address of the host.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny

AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it may start: 120 s if not set.
AuthInfo=socket={folder}/munge/socket,cred_expire=8

StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/state/slurmctld.pid
SlurmdPidFile={folder}/spool/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
# Not 1 again at each start: a job's id names files in folders that outlive the lab.
FirstJobId={first_job_id}

SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Memory limits without cgroups.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill

SlurmctldTimeout=10
# A crashed node is noticed this late; a node of a busy host must not be taken for one.
SlurmdTimeout=15
KillWait=2
InactiveLimit=0
MinJobAge=3600
BatchStartTimeout=60
MaxArraySize={max_array_size}
# 1, not 2: a healthy node that was set DOWN must not take its own requeued job at once, while the
# old copy still ends; the job would be held for ever.
ReturnToService=1

SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# Without it one job takes all of a node's memory.
DefMemPerCPU=1024
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# A preempted job gets the signal of its --signal first, as before its time limit.
SlurmctldParameters=preempt_send_user_signal
# Nodes may claim what the host does not have.
SlurmdParameters=config_overrides
{gpu_types}
{nodes}

# Of one tier, so that they do not preempt each other.
PartitionName=normal Nodes=ALL Default=YES PriorityTier=1 PreemptMode=OFF DefaultTime=30 {limit}
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=10 DefaultTime=30 {limit}
PartitionName=high Nodes=ALL PriorityTier=100 PreemptMode=OFF DefaultTime=30 {limit}
"""


@dataclass(frozen=True)
class Shape:
    """What the lab has."""

    nodes: int = setting(
        4, "nodes, of two CPUs and 8 GiB each, all on this host", minimum=1, maximum=1000
    )
    gpus: int = setting(0, "pretended GPUs of each node (needs root)", minimum=0, maximum=64)
    max_array_size: int = setting(1001, "SLURM's MaxArraySize: tasks of an array", minimum=2)

    @property
    def names(self) -> list[str]:
        """The nodes' names."""
        return [f"node{number}" for number in range(1, self.nodes + 1)]


def write_configuration(folder: LabFolder, shape: Shape) -> None:
    """Choose ports and write slurm.conf, what belongs to it, and munge's key."""
    host = socket.gethostname().partition(".")[0]
    require_loopback(socket.gethostname())
    ports = free_ports(shape.nodes + 1)
    node_lines = [
        f"NodeName={name} NodeHostname={host} NodeAddr={LOOPBACK} Port={port}"
        f" CPUs={CPUS_PER_NODE} RealMemory={MEMORY_MIB_PER_NODE}"
        + (f" Gres=gpu:{shape.gpus}" if shape.gpus else "")
        for name, port in zip(shape.names, ports[1:], strict=True)
    ]
    folder.slurm_conf.write_text(
        SLURM_CONF.format(
            folder=folder.path,
            host=host,
            controller_port=ports[0],
            user=_user(),
            first_job_id=1 + int(time.time()) % MOST_JOB_IDS,
            max_array_size=shape.max_array_size,
            gpu_types="GresTypes=gpu" if shape.gpus else "",
            nodes="\n".join(node_lines),
            limit="MaxTime=7-00:00:00",
        )
    )
    if shape.gpus:
        _pretend_gpus(folder, shape)
    for name in shape.names:
        (folder.spool / name).mkdir()
    key = folder.munge / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    folder.munge.chmod(0o711)  # what munged asks of the folder of its socket


def _user() -> str:
    # Not from the environment, which sudo and the like may leave as it was.
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError as error:
        raise UserError(f"SLURM needs a user with a name; uid {os.geteuid()} has none") from error


def munged_arguments(folder: LabFolder) -> list[str]:
    """The command line of a munge daemon of the lab's own."""
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
    options = [f"--{option}={folder.munge / name}" for option, name in files.items()]
    # --force: root may run it, and a folder above, as /tmp, may be writable by all.
    log = f"--log-file={folder.log / 'munged.log'}"
    return [path_of("munged"), "--foreground", "--force", *options, log]


def require_loopback(host: str) -> None:
    """SLURM listens where this host's own name points to, and so does srun, which is called back
    at 127.0.0.1 (seen to fail with Debian's 127.0.1.1).

    Raises:
        UserError: the name points elsewhere or nowhere.
    """
    try:
        address = socket.gethostbyname(host)
    except OSError:
        address = "no address"
    if address != LOOPBACK:
        raise UserError(
            f"this host's name, {host}, stands for {address}, and a lab needs {LOOPBACK}: put the"
            f" line '{LOOPBACK} {host}' at the top of /etc/hosts"
        )


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens at the loopback address now."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise UserError("no free port is left on this host")


def _pretend_gpus(folder: LabFolder, shape: Shape) -> None:
    """SLURM hands out device files only, so the GPUs are further names of /dev/null."""
    null = os.stat("/dev/null").st_rdev
    try:
        for number in range(shape.gpus):
            os.mknod(folder.path / "dev" / f"nvidia{number}", 0o666 | stat.S_IFCHR, null)
    except PermissionError as error:
        raise UserError("gpus= makes device files, which only root may do") from error
    files = f"{folder.path}/dev/nvidia[0-{shape.gpus - 1}]"
    (folder.slurm_conf.parent / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={files}\n")
