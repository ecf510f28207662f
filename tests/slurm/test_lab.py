"""The lab is a SLURM: jobs, arrays, preemption, crashes; and it leaves nothing behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bench.system.errors import UserError
from tests.slurm.lab import Lab, LabFailed, missing_packages
from tests.slurm.lab.configuration import SLURM_CONF
from tests.slurm.lab.processes import Daemons, identity
from tests.waiting import wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

# Says that it was signalled, and lives on as a job that writes a checkpoint would.
NOTES_THE_SIGNAL = "trap 'echo signalled >> {marks}' USR2; echo started >> {marks}; {then}"
SLEEPS = "for i in $(seq 36000); do sleep 0.1; done"  # an hour: for ever


def submit(lab: Lab, script: str, *options: str) -> str:
    """The id of a batch job."""
    return lab.run(
        "sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}"
    ).strip()


def job(lab: Lab, number: str) -> dict[str, str]:
    """The fields of `scontrol show job`."""
    return pairs(lab.scontrol("show", "job", number, "--oneliner").split())


def pairs(texts: list[str]) -> dict[str, str]:
    """`["a=1"]` -> `{"a": "1"}`."""
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def wait_for(lab: Lab, number: str, **fields: str) -> dict[str, str]:
    """Wait until the job's fields have these values."""

    def reached() -> bool:
        found = job(lab, number)
        return all(found.get(key) == value for key, value in fields.items())

    wait_until(reached, f"job {number} to have {fields}")
    return job(lab, number)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def of_lab(folder: Path) -> list[str]:
    """The processes, by command line or environment, that have to do with a lab in this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            if str(folder) in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


def test_its_nodes_take_jobs_which_see_where_slurm_is(lab: Lab, tmp_path: Path) -> None:
    assert lab.node_states() == dict.fromkeys(["node1", "node2", "node3", "node4"], "idle")
    number = submit(lab, f"env > {tmp_path}/seen")
    wait_for(lab, number, JobState="COMPLETED")
    seen = pairs(lines(tmp_path / "seen"))
    assert seen["SLURM_CONF"] == os.environ["SLURM_CONF"] == str(lab.folder.slurm_conf)
    assert seen["SLURMD_NODENAME"] in lab.nodes


def test_no_port_of_it_can_be_reached_from_elsewhere(lab: Lab) -> None:
    listening = [
        connection.laddr
        for name in lab.daemons.names()
        for connection in psutil.Process(lab.daemons.pid(name)).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) == 1 + len(lab.nodes)
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_the_tasks_of_an_array_run_on_several_nodes_at_once(lab: Lab, tmp_path: Path) -> None:
    # Each ends only once all have started.
    meet = f"touch {tmp_path}/$SLURM_ARRAY_TASK_ID.$SLURMD_NODENAME; " + (
        f"until [ $(ls {tmp_path} | wc -l) = 4 ]; do sleep 0.1; done"
    )
    number = submit(lab, meet, "--array=0-3", "--cpus-per-task=2")
    wait_until(lambda: lab.squeue("-h", "-j", number) == "", "the array to end")
    met = sorted(path.name.split(".") for path in tmp_path.iterdir())
    assert [task for task, _ in met] == list("0123")
    assert {node for _, node in met} == set(lab.nodes)


def test_an_array_larger_than_its_limit_is_refused(lab: Lab) -> None:
    submit(lab, "true", "--array=3")
    with pytest.raises(LabFailed, match="Invalid job array specification"):
        submit(lab, "true", "--array=4")


def test_a_job_of_high_priority_has_one_of_low_signalled_and_requeued(
    lab: Lab, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    script = NOTES_THE_SIGNAL.format(marks=marks, then=SLEEPS)
    low = submit(lab, script, "-p", "low", "-w", "node1", "-c", "2", "--signal=B:USR2@60")
    wait_until(lambda: lines(marks) == ["started"], "the job to start")
    high = submit(lab, "sleep 1", "-p", "high", "-w", "node1", "-c", "2")
    wait_until(lambda: "signalled" in lines(marks), "the job to be signalled")
    wait_for(lab, high, JobState="COMPLETED")
    again = wait_for(lab, low, JobState="RUNNING", Restarts="1")
    assert again["NodeList"] == "node1"
    wait_until(lambda: lines(marks) == ["started", "signalled", "started"], "a second start")


def test_jobs_of_a_crashed_node_run_again_elsewhere_unless_they_refuse_to(
    lab: Lab, tmp_path: Path
) -> None:
    # A task that left its session and lost its environment still dies with its node.
    stray = f"setsid env -i sh -c 'echo $$ > {tmp_path}/stray; exec sleep 3600' &"
    number = submit(lab, f"echo $$ > {tmp_path}/script; {stray} {SLEEPS}")
    node = wait_for(lab, number, JobState="RUNNING")["NodeList"]
    lost = submit(lab, SLEEPS, "-w", node, "--no-requeue")
    wait_for(lab, lost, JobState="RUNNING")
    wait_until(lambda: len(lines(tmp_path / "stray")) == 1, "the stray to start")
    pids = [int(lines(tmp_path / name)[0]) for name in ("script", "stray")]
    assert set(pids) <= {process.pid for process in lab.processes(node)}

    lab.kill_node(node)
    assert lab.daemons.pid(node) is None
    assert [pid for pid in pids if runs(pid)] == []
    wait_for(lab, lost, JobState="NODE_FAIL")
    again = wait_for(lab, number, JobState="RUNNING", Restarts="1")
    assert again["NodeList"] != node
    assert lab.node_states()[node] == "down*"

    lab.start_node(node)
    lab.wait_until_up(node)


def test_a_job_outlives_the_slurmd_of_its_node(lab: Lab, tmp_path: Path) -> None:
    number = submit(lab, f"echo $$ > {tmp_path}/pid; {SLEEPS}", "-w", "node3")
    wait_until(lambda: len(lines(tmp_path / "pid")) == 1, "the job to start")
    lab.kill_daemon("node3")
    assert lab.daemons.pid("node3") is None
    task = psutil.Process(int(lines(tmp_path / "pid")[0]))
    assert task in lab.processes("node3")
    lab.start_node("node3")
    lab.wait_until_up("node3")
    assert task.is_running()
    assert job(lab, number)["JobState"] == "RUNNING"


def test_a_job_of_a_node_that_is_set_down_starts_elsewhere(lab: Lab) -> None:
    number = submit(lab, SLEEPS)
    node = wait_for(lab, number, JobState="RUNNING")["NodeList"]
    lab.set_down(node)
    again = wait_for(lab, number, JobState="RUNNING", Restarts="1")
    assert again["NodeList"] != node
    assert lab.node_states()[node] == "down"
    lab.resume(node)
    lab.wait_until_up(node)


def test_settings_of_a_job_around_the_tests_do_not_reach_the_lab(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "low")
    assert job(lab, submit(lab, "true"))["Partition"] == "normal"


def test_a_running_job_outlives_a_restart_of_the_controller(lab: Lab, tmp_path: Path) -> None:
    number = submit(lab, f"until [ -e {tmp_path}/enough ]; do sleep 0.1; done")
    wait_for(lab, number, JobState="RUNNING")
    before = lab.daemons.pid("slurmctld")
    lab.restart_controller()
    assert lab.daemons.pid("slurmctld") not in (before, None)
    assert job(lab, number)["JobState"] == "RUNNING"
    (tmp_path / "enough").touch()
    assert wait_for(lab, number, JobState="COMPLETED")["Restarts"] == "0"


def test_a_second_lab_beside_it_has_its_own_jobs_and_stops_alone(lab: Lab, folder: Path) -> None:
    number = submit(lab, SLEEPS)
    wait_for(lab, number, JobState="RUNNING")
    ours = {name: lab.daemons.pid(name) for name in lab.daemons.names()}
    with Lab(folder, nodes=2) as second:
        theirs = submit(second, SLEEPS)
        wait_for(second, theirs, JobState="RUNNING")
        assert second.squeue("-h", "-o", "%i").split() == [theirs]
        assert lab.squeue("-h", "-o", "%i").split() == [number]
        daemons = [psutil.Process(second.daemons.pid(name)) for name in second.daemons.names()]
        assert len(daemons) == 4
        pids = [process.pid for one in daemons for process in (one, *one.children(recursive=True))]
        pids += [process.pid for process in second.processes(*second.nodes)]
        assert len(pids) >= 4 + 2  # a step and its script
    # The controller's helper ends by itself once the controller is gone.
    wait_until(lambda: not any(map(runs, pids)), f"{pids} to be gone")
    assert of_lab(folder) == []
    assert {name: lab.daemons.pid(name) for name in lab.daemons.names()} == ours
    assert job(lab, number)["JobState"] == "RUNNING"
    assert set(lab.node_states().values()) <= {"idle", "mixed"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make device files")
def test_pretended_gpus_are_handed_out_one_by_one(
    slurm_installed: None, folder: Path, tmp_path: Path
) -> None:
    with Lab(folder, nodes=1, gpus=2) as lab:
        script = f"echo $CUDA_VISIBLE_DEVICES >> {tmp_path}/seen; {SLEEPS}"
        numbers = [submit(lab, script, "--gres=gpu:1", "--mem=1") for _ in range(2)]
        for number in numbers:
            wait_for(lab, number, JobState="RUNNING")
        with pytest.raises(LabFailed, match="not available"):
            submit(lab, "true", "--gres=gpu:3")
        wait_until(lambda: sorted(lines(tmp_path / "seen")) == ["0", "1"], "a GPU for each")


def test_the_command_starts_once_tells_how_it_stands_and_stops_all(
    slurm_installed: None, command: Command, folder: Path
) -> None:
    place = f"folder={folder}"
    assert command("tests.slurm.lab", "status", place).returncode == 1
    refused = command("tests.slurm.lab", "env", place)
    assert (refused.returncode, refused.stdout) == (2, "")
    try:
        first = command("tests.slurm.lab", "start", place, "nodes=1")
        assert first.returncode == 0, first.stderr
        status = command("tests.slurm.lab", "status", place)
        assert status.returncode == 0, status.stdout
        assert command("tests.slurm.lab", "start", place, "nodes=1").returncode == 0
        assert command("tests.slurm.lab", "status", place).stdout == status.stdout  # the same pids
        other = command("tests.slurm.lab", "start", place, "nodes=2")
        assert other.returncode == 2
        assert "stop it first" in other.stderr

        export = command("tests.slurm.lab", "env", place).stdout
        ran = subprocess.run(
            ["sh", "-c", f"{export}\nsrun hostname"],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
    finally:
        stopped = command("tests.slurm.lab", "stop", place)
    assert stopped.returncode == 0, stopped.stderr
    assert of_lab(folder) == []
    assert command("tests.slurm.lab", "stop", place).returncode == 0


@pytest.mark.parametrize("after", ["munged", "slurmctld", "node1"])
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_interrupted_leaves_no_process(
    slurm_installed: None, start: Start, folder: Path, after: str, by: signal.Signals
) -> None:
    starting = start("tests.slurm.lab", "start", f"folder={folder}", "nodes=9")
    wait_until(lambda: (folder / "records" / after).exists(), f"{after} to start")
    starting.send_signal(by)
    _, errors = starting.communicate()
    assert (starting.returncode, errors) == (130, "interrupted\n")
    # A question to the controller that was on its way ends by itself.
    wait_until(lambda: of_lab(folder) == [], "all processes to end")


def test_what_a_killed_start_left_is_found_and_stopped(
    slurm_installed: None, start: Start, command: Command, folder: Path
) -> None:
    starting = start("tests.slurm.lab", "start", f"folder={folder}", "nodes=9")
    wait_until((folder / "records/node1").exists, "node1 to start")
    starting.kill()
    starting.wait()
    assert of_lab(folder) != []
    assert command("tests.slurm.lab", "stop", f"folder={folder}").returncode == 0
    assert of_lab(folder) == []


def test_a_controller_that_cannot_start_is_named_with_its_reason(
    slurm_installed: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.slurm.lab.configuration.SLURM_CONF", SLURM_CONF + "Mistake=1\n")
    with pytest.raises(LabFailed, match=r"slurmctld ended while starting: .*fatal"):
        Lab(folder).__enter__()
    assert of_lab(folder) == []


def test_missing_daemons_are_refused_in_one_line_that_names_the_packages(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.slurm.lab.packages.SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_packages() == ["munge", "slurm-client", "slurmctld", "slurmd"]
    (tmp_path / "sbatch").touch(mode=0o755)
    with pytest.raises(UserError, match=r"missing: munge slurmctld slurmd\).*apt-get install"):
        Lab(folder).start()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "why"), [("a b", "files allow letters"), ("x" * 90, "too long"), ("", "is no lab's")]
)
def test_folders_that_slurm_could_not_use_are_refused(
    slurm_installed: None, folder: Path, name: str, why: str
) -> None:
    folder.mkdir()
    (folder / "mine").write_text("precious")
    with pytest.raises(UserError, match=why):
        Lab(folder / name).start()
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_a_recycled_pid_is_not_taken_for_the_daemon(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "3600"])
    try:
        stat = Path(f"/proc/{other.pid}/stat").read_text()
        found = identity(stat)
        assert found is not None
        daemons = Daemons(tmp_path)
        (tmp_path / "same").write_text(stat)
        assert daemons.pid("same") == other.pid
        (tmp_path / "recycled").write_text(stat.replace(f" {found[1]} ", f" {found[1] - 1} "))
        assert daemons.pid("recycled") is None
        daemons.kill("recycled")
        time.sleep(0.1)
        assert other.poll() is None
        daemons.kill("same")
        assert other.wait() == -signal.SIGKILL
    finally:
        other.kill()
        other.wait()


def test_no_daemon_comes_to_life_once_its_records_are_closed(tmp_path: Path) -> None:
    daemons = Daemons(tmp_path / "records")
    daemons.folder.mkdir()
    daemons.launch("first", ["sleep", "3600"], {"PATH": os.environ["PATH"]}, tmp_path / "log")
    first = daemons.pid("first")
    assert first is not None
    daemons.close()
    assert not daemons.folder.exists()
    with pytest.raises(LabFailed, match="second to start"):
        daemons.launch("second", ["touch", str(tmp_path / "lives")], {}, tmp_path / "log")
    daemons.close()
    assert not (tmp_path / "lives").exists()
