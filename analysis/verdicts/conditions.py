"""The conditions of claims: what must have happened in a run for it to test the claim at all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.load import FinishedRun
from analysis.shifts import is_moving, shift_steps


@dataclass(frozen=True)
class Condition:
    """A condition; claims name it in `requires`.

    Attributes:
        concerns: whether a run has to fulfill it.
        found: how the run fulfilled it, in words; empty if it did not.
        otherwise: what a run did that did not fulfill it, in words.
    """

    concerns: Callable[[FinishedRun], bool]
    found: Callable[[FinishedRun], str]
    otherwise: str


def shifts_text(run: FinishedRun) -> str:
    """At which outer steps the window shifted; empty if it never did."""
    steps = ", ".join(f"{step:,}" for step in shift_steps(run))
    return f"shifted at {steps}" if steps else ""


CONDITIONS = {"shifted": Condition(is_moving, shifts_text, "never shifted")}


def fulfilling(
    name: str, runs: Sequence[FinishedRun], seeds: Sequence[int]
) -> tuple[list[int], list[str]]:
    """The seeds of which all runs fulfill a condition, and how each run does or does not, in words.

    Args:
        name: of the condition; empty: none, which all fulfill.
        runs: of all sides of a claim; those of other seeds are ignored.
    """
    if not name:
        return list(seeds), []
    condition, failing = CONDITIONS[name], set[int]()
    texts: dict[str, list[str]] = {}  # by label
    for run in {run.folder.name: run for run in runs}.values():
        if (seed := run.config.seed) in seeds and condition.concerns(run):
            found = condition.found(run)
            failing |= set() if found else {seed}
            text = f"seed {seed} {found or condition.otherwise}"
            texts.setdefault(run.experiment.label, []).append(text)
    fulfilled = [seed for seed in seeds if seed not in failing]
    return fulfilled, [f"{label}: {', '.join(each)}" for label, each in texts.items()]
