"""How runs are shown while they are running."""

from pathlib import Path

import pytest

from bench.runs.heartbeat import Progress
from bench.runs.run_folder import RunFolder
from bench.sweeps.live_table import watch


@pytest.mark.parametrize("redrawn", [True, False])
def test_a_terminal_that_cannot_be_drawn_over_gets_lines(
    redrawn: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    monkeypatch.setenv("TERM", "xterm" if redrawn else "dumb")
    rows = [(RunFolder(tmp_path / "run-7"), Progress("running", 1, 2))]
    looks = iter([True, False])
    watch(lambda: rows, lambda: next(looks), 0.0)
    shown = capsys.readouterr().out
    assert ("\x1b[" in shown) == redrawn
    assert ("run-7  running  outer step 1/2\n" in shown) != redrawn
