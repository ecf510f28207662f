"""What is sent and what is put back, where the scheduler accepts some and refuses others: its
answers are faked."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.config.resolve import resolve
from bench.config.run_config import Environment
from bench.runs.heartbeat import progress_of
from bench.runs.run_folder import RunFolder, Store
from bench.sweeps.launcher import PlannedRun
from bench.system.errors import UserError
from slurm import scheduler
from slurm.profile import Profile
from slurm.scheduler import SchedulerSilent
from slurm.submit import submit as submit_runs

Runs = list[PlannedRun]
Answers = Callable[..., list[str]]

ASKED = Profile(gpus=0, methods={"bptt": {"mem_gb": 64}})


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Two finished runs that go into two arrays; there is no SLURM."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(scheduler, "largest_array", lambda: 1000)
    made = []
    for method in ("rat_bptt", "bptt"):
        config = resolve({"scale": "quick", "method": method})
        folder = Store(tmp_path).run(config)
        folder.create(config)
        evaluation = {"test_accuracy_mean": 0.5, "selection": "validation", "n": 2}
        data = {"source": "made up", "fingerprint": "0"}
        folder.write("result", {"of": "old", "evaluation": evaluation, "data": data})
        folder.write("job", {"name": "g-0", "task": 3, "time": 1.0, "by_hand": False})
        made.append(PlannedRun(config, folder))
    return made


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """`answers("7", UserError("no"), of_a_test=lambda script: "")`: what sbatch says, in turn; the
    list that is returned fills with the scripts that were sent."""

    def make(
        *said: str | BaseException, of_a_test: Callable[[str], str] = lambda _: ""
    ) -> list[str]:
        left, sent = list(said), []

        def send(script: str, open_files: list[int]) -> str:
            sent.append(Path(script).read_text())
            answer = left.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        monkeypatch.setattr(scheduler, "send", send)
        monkeypatch.setattr(scheduler, "rejection", of_a_test)
        return sent

    return make


def submit(runs: Runs, rerun: bool = True) -> list[str]:
    root = runs[0].folder.path.parent.parent
    environment = Environment(results_root=str(root))
    return submit_runs(runs, lambda _: True, "g", ASKED, environment, rerun=rerun)


def files(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


def test_a_refusal_puts_back_what_was_not_sent_and_leaves_what_was(
    runs: Runs, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (run.folder for run in runs)
    second.write("error", {"kind": "diverged", "message": "an earlier start"})
    before = files(second)
    answers("7", UserError("sbatch: too many jobs"))
    with pytest.raises(UserError, match="too many jobs"):
        submit(runs)
    assert files(second) == before
    assert second.is_done()
    assert first.is_rerun_requested()
    assert first.has_result()
    assert "job 7: 1 run, " in capsys.readouterr().out
    assert len(list((first.path.parent.parent / "slurm").glob("g-*"))) == 1


@pytest.mark.parametrize("end", [SchedulerSilent("sbatch: timed out"), KeyboardInterrupt()])
def test_where_it_is_not_known_what_has_arrived_all_runs_stay_asked_for(
    runs: Runs, answers: Answers, end: BaseException
) -> None:
    answers("7", end)
    with pytest.raises(type(end)):
        submit(runs)
    for folder in (run.folder for run in runs):
        assert folder.is_rerun_requested()
        assert folder.has_result()
        assert progress_of(folder).state == "waiting"


def test_an_array_that_is_sure_to_be_refused_keeps_all_from_being_sent(
    runs: Runs, answers: Answers
) -> None:
    before = [files(folder) for folder in (run.folder for run in runs)]
    sent = answers(of_a_test=lambda script: "sbatch: invalid" if "mem=65536MB" in script else "")
    with pytest.raises(
        UserError, match=r"nothing was submitted: sbatch: invalid \(for bptt: .*64 GB"
    ):
        submit(runs)
    assert sent == []
    assert [files(folder) for folder in (run.folder for run in runs)] == before


def test_an_array_that_no_node_can_take_now_is_sent_first(runs: Runs, answers: Answers) -> None:
    busy = "sbatch: Requested node configuration is not available"
    sent = answers("7", "8", of_a_test=lambda script: busy if "mem=65536MB" in script else "")
    assert len(submit(runs)) == 2
    assert ["mem=65536MB" in script for script in sent] == [True, False]
