"""A claim of the paper, from its entry in `claims.yaml` to the verdict of finished runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from analysis.arguments import Request
from analysis.grid_entries import GridRuns, grid_exists, grid_runs, seeds_text
from analysis.load import FinishedRun, StoredRun
from analysis.verdicts.inference import Decision, Region, decide
from analysis.verdicts.quantities import QUANTITIES, Values
from bench.system.errors import UserError

FILE = Path(__file__).parent / "claims.yaml"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times as fast

# The settings that find an entry, and "tested_on": another network for its set.
Side = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """One claim; how it is written is said in the file."""

    id: str
    claim: str
    place: str
    grid: str
    quantity: str
    pairs: list[tuple[Side, Side]]
    direction: Literal["above", "below", "equal"]
    threshold: float | None = None
    center: float | None = None
    margin: float | None = None

    @property
    def factor(self) -> bool:
        return QUANTITIES[self.quantity].factor

    def region(self) -> Region:
        """Where the mean effect lies if the claim is true; of factors, their logarithm."""
        neutral = 1.0 if self.factor else 0.0
        scale = math.log if self.factor else float
        if self.direction == "equal":
            center = scale(neutral if self.center is None else self.center)
            assert self.margin is not None
            return Region(center - scale(self.margin), center + scale(self.margin))
        threshold = scale(neutral if self.threshold is None else self.threshold)
        if self.direction == "above":
            return Region(threshold, math.inf)
        return Region(-math.inf, threshold)


@dataclass
class Outcome:
    """What the runs say of a claim.

    Attributes:
        seeds: those that all sides of the claim have.
        runs: the finished runs behind them.
        missing: what is not there yet.
        commands: how to make it.
    """

    claim: Claim
    decision: Decision
    seeds: list[int] = field(default_factory=list)
    runs: list[FinishedRun] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def load_claims(path: Path = FILE) -> list[Claim]:
    """The claims as the file states them.

    Raises:
        UserError: one is not as described there.
    """
    found = yaml.load(path.read_text(), Loader=LOADER)
    assert isinstance(found, list)
    return [_claim(entry) for entry in found]


def _claim(entry: dict[str, Any]) -> Claim:
    own = dict(entry)
    name = own.get("id", "a claim")
    try:
        if "pairs" in own:
            pairs = [(first, than) for first, than in own.pop("pairs")]
        else:
            first = own.pop("first")
            pairs = [(first, than) for than in own.pop("than")]
        claim = Claim(pairs=pairs, direction=own.pop("is"), **own)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{FILE.name}: {name}: {error}") from error
    if claim.quantity not in QUANTITIES:
        raise UserError(f"{FILE.name}: {name}: there is no quantity {claim.quantity}")
    if claim.direction not in ("above", "below", "equal"):
        raise UserError(f"{FILE.name}: {name}: is must be above, below or equal")
    if (claim.direction == "equal") != (claim.margin is not None):
        raise UserError(f"{FILE.name}: {name}: a margin is for what is equal, and needed there")
    return claim


def outcomes(
    claims: Sequence[Claim], request: Request, stored: Sequence[StoredRun], root: Path
) -> list[Outcome]:
    """The verdict on each claim from the runs under `root`.

    Raises:
        UserError: a claim names an entry that its grid has not, or a setting no run has.
    """
    grids = {
        name: grid_runs(name, request, stored, root)
        for name in dict.fromkeys(claim.grid for claim in claims)
        if grid_exists(name)
    }
    return [outcome_of(claim, grids.get(claim.grid), request, root) for claim in claims]


def outcome_of(claim: Claim, grid: GridRuns | None, request: Request, root: Path) -> Outcome:
    """The verdict on one claim; `grid` is None where this version has no such grid."""
    if grid is None:
        not_run = Decision("not run", 0, [])
        return Outcome(claim, not_run, missing=[f"no grid {claim.grid} in this version"])
    found = Outcome(claim, Decision("not run", 0, []))
    values: dict[str, dict[int, Values]] = {}
    for side in _sides(claim):
        values[str(side)] = _values(claim, side, grid, request, root, found)
    found.seeds = sorted(set.intersection(*(set(own) for own in values.values())))
    rows = list(_rows(claim, values, found.seeds))
    if found.seeds and rows:
        import numpy as np

        names, effects = zip(*rows, strict=True)
        found.decision = decide(np.array(effects), names, claim.region())
    elif found.seeds:
        found.missing.append("no step that all runs measured")
    return found


def _sides(claim: Claim) -> list[Side]:
    return list({str(side): side for pair in claim.pairs for side in pair}.values())


def _values(
    claim: Claim, side: Side, grid: GridRuns, request: Request, root: Path, outcome: Outcome
) -> dict[int, Values]:
    """The quantity by seed; what is missing is added to `outcome`."""
    settings = {key: value for key, value in side.items() if key != "tested_on"}
    network = side.get("tested_on", "")
    entry = grid.entry(settings)
    if lacking := grid.missing(entry):
        told = [f"{entry.label} {text}" for text in lacking]
        outcome.missing += [text for text in told if text not in outcome.missing]
        _add(outcome.commands, request.sweep(grid.grid.name))
    found, untested, unrecorded = {}, {}, []
    for seed, run in grid.runs(entry).items():
        evaluation = grid.evaluation(run, network)
        if evaluation is None:
            untested[seed] = str(root / "runs" / run.folder.name)
            continue
        measured = QUANTITIES[claim.quantity].of(run, evaluation)
        if measured:
            found[seed] = measured
            outcome.runs.append(run)
        else:
            unrecorded.append(seed)
    if untested:
        told = f"{entry.label} {seeds_text([*untested])} not tested on {network}"
        outcome.missing.append(told)
        _add(outcome.commands, request.evaluate([*untested.values()], network))
    if unrecorded:
        what = QUANTITIES[claim.quantity].about
        outcome.missing.append(f"{entry.label} {seeds_text(unrecorded)} recorded no {what}")
    return found


def _add(commands: list[str], command: str) -> None:
    if command not in commands:
        commands.append(command)


def _rows(
    claim: Claim, values: Mapping[str, dict[int, Values]], seeds: Sequence[int]
) -> Iterator[tuple[str, list[float]]]:
    """Name and effect of each seed, for each pair and each step that all of them measured."""
    for first, than in claim.pairs:
        one, other = values[str(first)], values[str(than)]
        measured = [set(side[seed]) for side in (one, other) for seed in seeds]
        steps = sorted(set.intersection(*measured)) if measured else []
        for step in steps:
            at = f", outer step {step}" if QUANTITIES[claim.quantity].each_step else ""
            name = f"{_side_text(first, than)} / {_side_text(than, first)}{at}"
            yield name, [one[seed][step] - other[seed][step] for seed in seeds]


def _side_text(side: Side, other: Side) -> str:
    """A side by what sets it apart from the other."""
    own = {key: value for key, value in side.items() if other.get(key) != value} or side
    return " ".join(f"{key}={value}" for key, value in own.items())
