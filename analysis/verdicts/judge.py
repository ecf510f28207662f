"""A claim of the paper, from its entry in `claims.yaml` to the verdict of finished runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from analysis.arguments import Request
from analysis.grid_entries import GridRuns, grid_runs, seeds_text
from analysis.load import FinishedRun, StoredRun
from analysis.verdicts.conditions import CONDITIONS, fulfilling
from analysis.verdicts.inference import Decision, Region, decide
from analysis.verdicts.quantities import QUANTITIES, Values
from bench.system.errors import UserError

FILE = Path(__file__).parent / "claims.yaml"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times as fast

# The settings that find an entry, and "tested_on": another network for its distilled set.
Side = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """One claim; claims.yaml describes the format."""

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
    requires: str = ""

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
    """The verdict on a claim.

    Attributes:
        seeds: those that all sides of the claim have, and that fulfill its condition.
        runs: the finished runs behind them.
        conditions: whether each of these runs fulfills the condition of the claim, in words.
        missing: what is missing, in words.
        commands: the commands that make it.
    """

    claim: Claim
    decision: Decision = field(default_factory=lambda: Decision("not run", 0, []))
    seeds: list[int] = field(default_factory=list)
    runs: list[FinishedRun] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def load_claims(path: Path = FILE) -> list[Claim]:
    """The claims in the file.

    Raises:
        UserError: a claim is invalid.
    """
    claims = yaml.load(path.read_text(), Loader=LOADER)
    assert isinstance(claims, list)
    return [_claim(entry) for entry in claims]


def _claim(entry: dict[str, Any]) -> Claim:
    settings = dict(entry)
    name = settings.get("id", "a claim")
    try:
        if "pairs" in settings:
            pairs = [(first, than) for first, than in settings.pop("pairs")]
        else:
            first = settings.pop("first")
            pairs = [(first, than) for than in settings.pop("than")]
        claim = Claim(pairs=pairs, direction=settings.pop("is"), **settings)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{FILE.name}: {name}: {error}") from error
    if claim.quantity not in QUANTITIES:
        raise UserError(f"{FILE.name}: {name}: there is no quantity {claim.quantity}")
    if claim.requires and claim.requires not in CONDITIONS:
        raise UserError(f"{FILE.name}: {name}: there is no condition {claim.requires}")
    if claim.direction not in ("above", "below", "equal"):
        raise UserError(f"{FILE.name}: {name}: is must be above, below or equal")
    if (claim.direction == "equal") != (claim.margin is not None):
        raise UserError(f"{FILE.name}: {name}: margin is required with is: equal, and only there")
    return claim


def outcomes(
    claims: Sequence[Claim], request: Request, stored: Sequence[StoredRun], root: Path
) -> list[Outcome]:
    """The verdict on each claim from the runs under `root`.

    Raises:
        UserError: a claim names an entry that its grid does not have, or a setting is unknown.
    """
    names = dict.fromkeys(claim.grid for claim in claims)
    grids = {name: grid_runs(name, request, stored, root) for name in names}
    return [outcome_of(claim, grids[claim.grid], request) for claim in claims]


def outcome_of(claim: Claim, grid: GridRuns, request: Request) -> Outcome:
    """The verdict on one claim."""
    outcome = Outcome(claim)
    sides = {str(side): side for pair in claim.pairs for side in pair}
    values = {key: _values(side, grid, request, outcome) for key, side in sides.items()}
    common = sorted(set.intersection(*(set(by_seed) for by_seed in values.values())))
    outcome.seeds, outcome.conditions = fulfilling(claim.requires, outcome.runs, common)
    if common and not outcome.seeds:
        outcome.decision = Decision("not tested", 0, [])
    rows = list(_rows(claim, values, outcome.seeds))
    if outcome.seeds and rows:
        import numpy as np

        names, effects = zip(*rows, strict=True)
        outcome.decision = decide(np.array(effects), names, claim.region())
    elif outcome.seeds:
        outcome.missing.append("no step that all runs measured")
    return outcome


def _values(side: Side, grid: GridRuns, request: Request, outcome: Outcome) -> dict[int, Values]:
    """The measured values of one side by seed; notes in `outcome` what is missing."""
    quantity = QUANTITIES[outcome.claim.quantity]
    settings = {key: value for key, value in side.items() if key != "tested_on"}
    network = side.get("tested_on", "")
    entry = grid.entry(settings)
    label = entry.experiment.label
    for missing_runs in grid.missing(entry):
        _add(outcome.missing, f"{label} {missing_runs}")
        _add(outcome.commands, request.sweep(grid.grid.name))
    values, untested, unrecorded = {}, {}, []
    for seed, run in grid.runs(entry).items():
        evaluation = grid.evaluation(run, network)
        if evaluation is None:
            untested[seed] = str(run.folder.path)
        elif measured := quantity.of(run, evaluation):
            values[seed] = measured
            outcome.runs.append(run)
        else:
            unrecorded.append(seed)
    if untested:
        outcome.missing.append(f"{label} {seeds_text([*untested])} not tested on {network}")
        _add(outcome.commands, request.evaluate([*untested.values()], network))
    if unrecorded:
        outcome.missing.append(f"{label} {seeds_text(unrecorded)} recorded no {quantity.about}")
    return values


def _add(texts: list[str], text: str) -> None:
    if text not in texts:
        texts.append(text)


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
    """The settings of a side that differ from the other's."""
    settings = {key: value for key, value in side.items() if other.get(key) != value} or side
    return " ".join(f"{key}={value}" for key, value in settings.items())
