"""The paper's own effects, from `paper_effects.yaml`, and the power to decide its claims."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from analysis.paper import Number, paper_figure, paper_table
from analysis.verdicts.judge import Claim, load_claims
from analysis.verdicts.power import Effect, detectable, power, seeds_for
from analysis.verdicts.quantities import QUANTITIES
from bench.config.grid import load_grid
from bench.system.errors import UserError

FILE = Path(__file__).parent / "paper_effects.yaml"
USUAL = ("table1", "RaT-BPTT", "cifar10", 10)  # the spread where a claim has no numbers

Place = Sequence[str | int]


@dataclass(frozen=True)
class ClaimPower:
    """The power of a claim.

    Attributes:
        effects: the paper's, of each pair, or those assumed; empty if there are neither.
        assumed: the paper has no number.
        power: None without effects and their spreads.
        needed: the seeds that decide with a probability of `POWER`; None without effects and their
            spreads.
        decides: in points, from `detectable`; None if the claim is not about an accuracy.
    """

    claim: Claim
    seeds: int
    effects: list[Effect]
    assumed: bool
    power: float | None
    needed: int | None
    decides: float | None


def paper_number(place: Place) -> Number:
    """A number of paper.yaml.

    Args:
        place: table, row and column; or "figure", its number, and keys of its entry.

    Raises:
        UserError: there is none.
    """
    table, row, *column = place
    if table == "figure":
        entry: Any = paper_figure(int(row))
        for key in column:
            entry = entry.get(key, {})
        if isinstance(entry, float):
            return Number(entry)
    else:
        for one in paper_table(str(table)).rows:
            if one.method == row and tuple(column) in one.numbers:
                return one.numbers[tuple(column)]
    raise UserError(f"{FILE.name}: the paper has no number {', '.join(map(str, place))}")


def _effect(entry: dict[str, Any], factor: bool) -> Effect:
    """The difference of two numbers, or of their logarithms; its spread is NaN if the paper reports
    none."""
    first, than = paper_number(entry["first"]), paper_number(entry["than"])
    if first.mean is None or than.mean is None:
        raise UserError(f"{FILE.name}: {entry}: the paper does not report the mean")
    if factor:
        return Effect(math.log(first.mean / than.mean), math.nan)
    spreads = [math.nan if one.std is None else one.std for one in (first, than)]
    difference = round(first.mean - than.mean, 10)  # 69.0 - 69.4 is -0.4
    return Effect(entry.get("effect", difference), math.hypot(*spreads))


@cache
def paper_effects() -> dict[str, list[Effect]]:
    """The paper's effects on each claim that it has numbers for, pair by pair.

    Raises:
        UserError: the file names a claim that there is not, a number that the paper does not have,
            or not as many effects as the claim has pairs.
    """
    claims = {claim.id: claim for claim in load_claims()}
    effects = {}
    for name, entries in yaml.safe_load(FILE.read_text(encoding="utf-8")).items():
        if name not in claims or len(entries) != len(claims[name].pairs):
            raise UserError(f"{FILE.name}: {name} is no claim of {len(entries)} pairs")
        effects[name] = [_effect(entry, claims[name].factor) for entry in entries]
    return effects


def claim_power(claim: Claim, seeds: int = 0) -> ClaimPower:
    """The power of a claim with this number of seeds; 0: that of its grid at the paper's scale.

    A claim of equal accuracies without a number in the paper is given the center of its region and
    the spread of `USUAL` on both sides.
    """
    n = seeds or load_grid(claim.grid).seeds.get("paper", 1)
    effects, region = paper_effects().get(claim.id, []), claim.region()
    assumed = not effects
    decides = None
    if "accuracy" in claim.quantity:
        usual = paper_number(USUAL).std or math.nan
        spread = max((one.spread for one in effects), default=math.hypot(usual, usual))
        decides = detectable(spread, n)
        if assumed and claim.direction == "equal" and not QUANTITIES[claim.quantity].each_step:
            effects = [Effect((region.low + region.high) / 2, spread)] * len(claim.pairs)
    if not effects or any(math.isnan(effect.spread) for effect in effects):
        return ClaimPower(claim, n, effects, assumed, None, None, decides)
    chance, needed = power(effects, region, n), seeds_for(effects, region)
    return ClaimPower(claim, n, effects, assumed, chance, needed, decides)
