"""The table of power: how probably the seeds of `scale=paper` decide each claim at the paper's own
effects. It needs no runs."""

import math
from typing import Any

import pandas as pd

from analysis.rendered_table import RenderedTable
from analysis.verdicts.judge import load_claims
from analysis.verdicts.paper_effects import ClaimPower, claim_power
from analysis.verdicts.power import Effect
from analysis.verdicts.region import MAX_NEEDED, POWER
from analysis.verdicts.texts import claimed_text

TITLE = "Power of the seeds of scale=paper"
NOT_REPORTED = "not reported"
CAPTION = (
    f"{TITLE}: the probability that a claim gets the verdict that the paper's own numbers imply,"
    " with the number of seeds of its grid, by the t test of the verdicts. The paper's ± is over"
    " networks; the spread of a difference is taken as the root of the sum of squares, as if its"
    " two sides were independent. Ours are paired by seed, and a seed's value is a mean over"
    " networks, so their spread may be smaller; or larger, as each seed has a distilled set of its"
    " own, and the paper's ± is over networks on one. Assumed: the center of the region, for claims"
    " of equality without a number in the paper. Decides: the smallest distance of an effect from"
    f" the edge of its region that the seeds decide with a probability of {POWER:.0%}, if there is"
    " one edge and one comparison. Without a number in the paper, spreads are those of its RaT-BPTT"
    " on CIFAR-10 at IPC 10. Several comparisons of a claim: all must hold; they are taken as"
    " independent."
)


def power_table(seeds: int = 0) -> RenderedTable:
    """The power of all claims.

    Args:
        seeds: of every grid; 0: those that each states.

    Raises:
        UserError: an invalid claim or effect.
    """
    found = [claim_power(claim, seeds) for claim in load_claims()]
    return RenderedTable(
        name="power",
        title=TITLE,
        caption=CAPTION,
        frames=[(pd.DataFrame([_as_text(one) for one in found]), "")],
        tidy=pd.DataFrame([_tidy(one) for one in found]),
    )


def _as_text(one: ClaimPower) -> dict[str, str]:
    return {
        "Claim": one.claim.claim,
        "Grid": one.claim.grid,
        "n (seeds)": str(one.seeds),
        "Claimed": claimed_text(one.claim),
        "Paper's effect": _effects_text(one),
        "Spread": ", ".join(_spread_text(effect) for effect in one.effects),
        "Power": "" if one.power is None else f"{one.power:.0%}",
        f"Seeds for {POWER:.0%}": _needed_text(one.needed),
        "Decides (points)": "" if one.decides is None else f"{one.decides:.2f}",
    }


def _effects_text(one: ClaimPower) -> str:
    if one.assumed:
        return "assumed: center" if one.effects else NOT_REPORTED
    if one.claim.factor:
        return ", ".join(f"×{math.exp(effect.mean):.2g}" for effect in one.effects)
    return ", ".join(f"{effect.mean:+.1f}" for effect in one.effects)


def _spread_text(effect: Effect) -> str:
    return NOT_REPORTED if math.isnan(effect.spread) else f"{effect.spread:.2f}"


def _needed_text(needed: int | None) -> str:
    if needed is None:
        return ""
    return str(needed) if needed <= MAX_NEEDED else f"more than {MAX_NEEDED}"


def _tidy(one: ClaimPower) -> dict[str, Any]:
    scale = math.exp if one.claim.factor else float
    return {
        "id": one.claim.id,
        "claim": one.claim.claim,
        "grid": one.claim.grid,
        "n_seeds": one.seeds,
        "unit": "factor" if one.claim.factor else "points",
        "effects": " ".join(f"{scale(effect.mean):.6g}" for effect in one.effects),
        "assumed": one.assumed,
        "spreads": " ".join(f"{effect.spread:.4g}" for effect in one.effects),
        "power": one.power,
        "seeds_needed": one.needed,
        "decides_points": one.decides,
    }
