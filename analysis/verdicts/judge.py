"""A claim of the paper, from its entry in `claims*.yaml`, or a finding of ours, from its entry in
`findings.yaml`, to the verdict of finished runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from analysis.arguments import Request
from analysis.grid_entries import Entry, GridRuns, grid_runs, seeds_text
from analysis.load import FinishedRun, StoredRun
from analysis.own_yaml import entries
from analysis.verdicts.conditions import CONDITIONS, fulfilling
from analysis.verdicts.costs import machine_problem
from analysis.verdicts.effects import decision, pair_effects
from analysis.verdicts.inference import Decision
from analysis.verdicts.quantities import QUANTITIES, Values
from analysis.verdicts.region import Region
from analysis.verdicts.sides import Pair, Side, pairs_of, quotes_paper
from bench.system.errors import UserError
from bench.system.text import count

FINDINGS = Path(__file__).parent / "findings.yaml"
FILES = [*sorted(FINDINGS.parent.glob("claims*.yaml")), FINDINGS]

Direction = Literal["above", "below", "equal", "between"]
OPPOSITE = {"above": "below", "below": "above", "equal": "outside", "between": "outside"}
NOT_COMPARABLE = (
    "not compared: the paper's numbers belong to scale=paper, with no setting changed but what"
    " selects"
)


@dataclass(frozen=True)
class Claim:
    """One claim; claims.yaml describes the format.

    Attributes:
        on_the_whole: judged on the mean of steps and against each, not at each step.
        kind: a finding is a question of ours, as all in findings.yaml are.
        group: claims of one group are shown in one row.
    """

    id: str
    claim: str
    place: str
    grid: str
    quantity: str
    pairs: list[Pair]
    direction: Direction
    threshold: float | None = None
    center: float | None = None
    margin: float | None = None
    bounds: list[float] | None = None
    kind: Literal["paper", "literal", "finding"] = "paper"
    less: dict[str, Any] | None = None
    machine: str = ""
    on_the_whole: bool = False
    group: str = ""
    requires: str = ""

    @property
    def factor(self) -> bool:
        return QUANTITIES[self.quantity].factor

    def region(self) -> Region:
        """Where the mean effect lies if the claim is true; of factors, their logarithm."""
        neutral = 1.0 if self.factor else 0.0
        scale = math.log if self.factor else float
        if self.direction == "between":
            assert self.bounds is not None
            low, high = map(scale, self.bounds)
            return Region(low, high)
        if self.direction == "equal":
            center = scale(neutral if self.center is None else self.center)
            assert self.margin is not None
            return Region(center - scale(self.margin), center + scale(self.margin))
        threshold = scale(neutral if self.threshold is None else self.threshold)
        if self.direction == "above":
            return Region(threshold, math.inf)
        return Region(-math.inf, threshold)

    def sides(self) -> dict[str, Side]:
        """All of its sides, by their text."""
        sides = [side for pair in self.pairs for side in pair]
        if self.less:
            sides += [self.less["first"], self.less["than"]]
        return {str(side): side for side in sides}


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


def load_claims(*paths: Path) -> list[Claim]:
    """The claims in the files, by default in all of this folder: those of the paper, then findings
    of ours. A claim about each measured step is two: on the whole and, if the paper says so,
    literally.

    Raises:
        UserError: a claim is invalid.
    """
    claims: list[Claim] = []
    for path in paths or FILES:
        for entry in entries(path):
            literal = entry.pop("literal", True)
            kind = {"kind": "finding"} if path == FINDINGS else {}
            claim = _claim({**entry, **kind}, path.name)
            if QUANTITIES[claim.quantity].each_step:
                whole, literally = _readings(claim)
                claims += [whole, literally] if literal else [whole]
            else:
                claims.append(claim)
    return claims


def _readings(claim: Claim) -> tuple[Claim, Claim]:
    """The two readings of a claim about each measured step."""
    opposite = OPPOSITE[claim.direction]
    steps = QUANTITIES[claim.quantity].steps
    whole = f"{claim.claim}: on the mean of {steps}, and at none significantly {opposite}"
    each = f"{claim.claim}: at each of the {steps}"
    return (
        replace(claim, claim=whole, on_the_whole=True),
        replace(claim, id=f"{claim.id}_literally", claim=each, kind="literal"),
    )


def _claim(entry: dict[str, Any], file: str) -> Claim:
    settings = dict(entry)
    name = settings.get("id", "a claim")
    try:
        pairs = pairs_of(settings)
        claim = Claim(pairs=pairs, direction=settings.pop("is"), **settings)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: {name}: {error}") from error
    if claim.quantity not in QUANTITIES:
        raise UserError(f"{file}: {name}: there is no quantity {claim.quantity}")
    if claim.requires and claim.requires not in CONDITIONS:
        raise UserError(f"{file}: {name}: there is no condition {claim.requires}")
    if claim.direction not in OPPOSITE:
        raise UserError(f"{file}: {name}: is must be one of {', '.join(OPPOSITE)}")
    for key, direction in (("margin", "equal"), ("bounds", "between")):
        if (claim.direction == direction) != (getattr(claim, key) is not None):
            raise UserError(
                f"{file}: {name}: {key} is required with is: {direction}, and only there"
            )
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
    sides = claim.sides()
    if any(map(quotes_paper, sides.values())) and not request.has_paper_settings():
        outcome.missing.append(NOT_COMPARABLE)
        return outcome
    if same := _same_run(claim, grid):
        outcome.decision = Decision("not tested", 0, [])
        outcome.missing.append(f"with these settings {same} is the same run on both sides")
        return outcome
    values = {
        key: _values(side, grid, request, outcome)
        for key, side in sides.items()
        if "number" not in side
    }
    common = sorted(set.intersection(*(set(by_seed) for by_seed in values.values())))
    if QUANTITIES[claim.quantity].shared_steps:
        _average_shared_steps(values, common)
    if _survivors_only(outcome, grid, values) or _not_finite(outcome, grid, values, common):
        outcome.decision = Decision("not tested", 0, [])
        return outcome
    outcome.seeds, outcome.conditions = fulfilling(claim.requires, outcome.runs, common)
    _check_values(outcome, values)
    if QUANTITIES[claim.quantity].of_machine:
        _check_machines(outcome)
    if common and not outcome.seeds:
        outcome.decision = Decision("not tested", 0, [])
    scale = math.log if claim.factor else float
    for key, side in sides.items():
        if "number" in side:
            values[key] = {seed: {0: scale(side["number"])} for seed in outcome.seeds}
    effects = list(pair_effects(claim.pairs, claim.less, values, outcome.seeds))
    if outcome.seeds and len(effects) == len(claim.pairs):  # or a part would decide the whole
        quantity = QUANTITIES[claim.quantity]
        outcome.decision = decision(effects, quantity, claim.region(), claim.on_the_whole)
    elif outcome.seeds:
        outcome.decision = Decision("not tested", 0, [])
        outcome.missing.append("no step that all runs measured")
    return outcome


def _average_shared_steps(values: dict[str, dict[int, Values]], seeds: Sequence[int]) -> None:
    """Put the mean over the steps that all sides have in the place of a seed's values."""
    for seed in seeds:
        sides = [by_seed[seed] for by_seed in values.values()]
        steps = sorted(set.intersection(*map(set, sides)))
        for by_seed in values.values():
            by_seed[seed] = {0: fmean(by_seed[seed][step] for step in steps)} if steps else {}


def _same_run(claim: Claim, grid: GridRuns) -> str:
    """The label of a run that some comparison would compare with itself, because the given settings
    have removed the difference between its sides; empty if there is none. No spread and no
    distance would look like a certain equality."""
    pairs = [*claim.pairs, *([(claim.less["first"], claim.less["than"])] if claim.less else [])]
    for pair in pairs:
        if any("number" in side for side in pair):
            continue
        runs = [(_entry(side, grid).experiment, side.get("tested_on")) for side in pair]
        if runs[0] == runs[1]:
            return runs[0][0].label
    return ""


def _survivors_only(outcome: Outcome, grid: GridRuns, values: dict[str, dict[int, Values]]) -> bool:
    """Whether some side lacks a seed because its run diverged, though another side has it: the
    seeds that are left are those in which the side did well. Notes it in `outcome`."""
    sides = outcome.claim.sides()
    diverged = {key: set(grid.diverged(_entry(sides[key], grid))) for key in values}
    # Also those that have no such number yet: making it must not change what is a result.
    ended_at = {key: {*grid.runs(_entry(sides[key], grid)), *diverged[key]} for key in values}
    found = False
    for key, own in diverged.items():
        others = [ended_at[other] for other in values if other != key]
        if len(values) < len(sides):  # a number stands beside every seed
            others.append(own)
        if own & set().union(*others):
            entry = _entry(sides[key], grid)
            ended = count(len(own) + len(grid.runs(entry)), "seed")
            label = entry.experiment.label
            reason = f"{label} diverged in {len(own)} of {ended}: the others decide nothing"
            _add(outcome.missing, reason)
            found = True
    return found


def _not_finite(
    outcome: Outcome, grid: GridRuns, values: dict[str, dict[int, Values]], seeds: Sequence[int]
) -> bool:
    """Whether some value of these seeds is not finite: without it, the claim would be judged on the
    steps and seeds in which the side did well. Notes it in `outcome`."""
    found = False
    for key, by_seed in values.items():
        lost = [s for s in seeds if not all(map(math.isfinite, by_seed[s].values()))]
        if lost:
            label = _entry(outcome.claim.sides()[key], grid).experiment.label
            what = QUANTITIES[outcome.claim.quantity].about
            _add(outcome.missing, f"{label} {seeds_text(lost)} not finite at some step: {what}")
            found = True
    return found


def _entry(side: Side, grid: GridRuns) -> Entry:
    return grid.entry({key: value for key, value in side.items() if key != "tested_on"})


def _check_values(outcome: Outcome, values: dict[str, dict[int, Values]]) -> None:
    """Keep the seeds that have a value on each side; note the others as missing."""
    for seed in list(outcome.seeds):
        if not all(by_seed[seed] for by_seed in values.values()):
            outcome.seeds.remove(seed)
            if outcome.claim.requires:  # or it has been noted, by side
                about = QUANTITIES[outcome.claim.quantity].about
                _add(outcome.missing, f"seed {seed} recorded no {about}")


def _check_machines(outcome: Outcome) -> None:
    """Keep the seeds whose runs can be compared in time and memory; note the others as missing."""
    for seed in list(outcome.seeds):
        runs = [run for run in outcome.runs if run.config.seed == seed]
        if problem := machine_problem(runs, outcome.claim.machine):
            outcome.seeds.remove(seed)
            _add(outcome.missing, f"seed {seed} {problem}")


def _values(side: Side, grid: GridRuns, request: Request, outcome: Outcome) -> dict[int, Values]:
    """The measured values of one side by seed; notes in `outcome` what is missing."""
    quantity = QUANTITIES[outcome.claim.quantity]
    network = side.get("tested_on", "")
    entry = _entry(side, grid)
    label = entry.experiment.label
    for missing_runs in grid.missing(entry):
        _add(outcome.missing, f"{label} {missing_runs}")
    if grid.can_be_made(entry):
        _add(outcome.commands, request.sweep(grid.grid.name))
    values, untested, unrecorded = {}, {}, {}
    for seed, run in grid.runs(entry).items():
        evaluation = grid.evaluation(run, network)
        if evaluation is None:
            untested[seed] = run.folder.shown
        elif (measured := quantity.of(run, evaluation)) or outcome.claim.requires:
            values[seed] = measured  # empty where the condition may not have been fulfilled
            outcome.runs.append(run)
        else:
            unrecorded[seed] = run
            if not quantity.command:  # no command adds one to a finished run
                values[seed] = {}
    if untested:
        outcome.missing.append(f"{label} {seeds_text([*untested])} not evaluated on {network}")
        _add(outcome.commands, request.evaluate([*untested.values()], network))
    if unrecorded:
        outcome.missing.append(f"{label} {seeds_text([*unrecorded])} recorded no {quantity.about}")
        if quantity.command:
            _add(outcome.commands, quantity.command(request, [*unrecorded.values()]))
    return values


def _add(texts: list[str], text: str) -> None:
    if text not in texts:
        texts.append(text)
