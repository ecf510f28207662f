"""Verdicts in words and numbers: for readers, and for programs."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from analysis.arguments import Request
from analysis.provenance import data_text, selection_text
from analysis.verdicts.inference import MAX_NEEDED, MIN_SEEDS, Comparison
from analysis.verdicts.judge import Claim, Outcome
from bench.system.text import count

RULES = """\
A verdict rests on the seeds that all sides share: the same seed means the same networks and target
batches, and differences are taken seed by seed. Interval: 95 %, the wider of the paired t interval
and the bootstrap over seeds. Holds: the interval of every comparison lies within what is claimed.
Does not hold: that of some comparison lies wholly outside, at 95 % over all of them together.
Undecided: neither, or fewer than 3 seeds; it needs so many seeds to be decided with a probability
of 80 %, were the effects and spreads seen here the true ones. Of several comparisons of a claim,
the one that speaks least for it is shown. A claim at the very edge of being true gets a wrong
verdict of either kind in 1 of 40 cases, and nothing is corrected for the number of claims.
"""


def caption(found: Sequence[Outcome], request: Request) -> str:
    """What the verdicts are about."""
    told = [f"scale={request.scale}", *request.settings()]
    parts = [f"{count(len(found), 'claim')} of the paper; {', '.join(told)}."]
    runs = [run for outcome in found for run in outcome.runs]
    if runs:
        data = " and ".join(dict.fromkeys(data_text(run.result) for run in runs))
        parts.append(f"Data: {data}. {selection_text([run.config for run in runs])}")
    if request.scale == "quick":
        parts.append(
            "The bundled digits stand in for every data set: these verdicts are about them, with a"
            " small network and few steps, and say nothing about the paper's CIFAR-10."
        )
    elif request.scale == "cpu":
        parts.append("A narrow network and few steps: these verdicts are about that setting.")
    if request.scale != "paper":
        parts.append("Claims name the paper's settings; the grids state what stands for them here.")
    return " ".join(parts)


# --- one outcome in words


def effect_text(outcome: Outcome) -> str:
    """The effect that speaks least for the claim, with its interval."""
    if not outcome.decision.comparisons:
        return ""
    return effect_text_of(outcome.claim, outcome.decision.worst)


def effect_text_of(claim: Claim, one: Comparison) -> str:
    """The effect of one comparison of a claim, with its interval."""
    if claim.factor:
        mean, low, high = (f"{math.exp(x):.3g}" for x in (one.effect, one.low, one.high))
        text, unit = f"×{mean}", ""
    else:
        mean, low, high = (f"{x:+.1f}" for x in (one.effect, one.low, one.high))
        text, unit = mean, " points"
    if math.isnan(one.low):
        return f"{text}{unit}, no interval"
    return f"{text}{unit} [{low}, {high}]"


def claimed_text(claim: Claim) -> str:
    """What the effect should be."""
    region = claim.region()
    if claim.factor:
        low, high = (f"×{math.exp(x):.3g}" if x < 700 else "" for x in (region.low, region.high))
    else:
        low, high = f"{region.low:+.3g}", f"{region.high:+.3g}"
    if claim.direction == "above":
        return f"> {low if region.low else claim_neutral(claim)}"
    if claim.direction == "below":
        return f"< {high if region.high else claim_neutral(claim)}"
    return f"{low} to {high}"


def claim_neutral(claim: Claim) -> str:
    """No effect, in the claim's unit."""
    return "×1" if claim.factor else "0"


def comparisons_text(outcome: Outcome) -> str:
    """How many of a claim's comparisons hold, where there are several."""
    comparisons = outcome.decision.comparisons
    if len(comparisons) < 2:
        return ""
    holding = sum(comparison.holds for comparison in comparisons)
    return f"{holding} of {len(comparisons)} hold"


def worst_text(outcome: Outcome) -> str:
    """The name of the comparison that is shown, where there are several."""
    comparisons = outcome.decision.comparisons
    return comparisons[0].name if len(comparisons) > 1 else ""


def verdict_text(outcome: Outcome) -> str:
    """The verdict; undecided ones with the seeds they would need."""
    decision = outcome.decision
    if decision.verdict != "undecided":
        return decision.verdict
    needed = decision.seeds_needed or 0
    if needed > MAX_NEEDED:
        return f"undecided, needs more than {MAX_NEEDED} seeds"
    return f"undecided, needs {needed or f'at least {MIN_SEEDS}'} seeds"


# --- all of them


def frame(found: Sequence[Outcome]) -> pd.DataFrame:
    """One row a claim, as it is read."""
    rows = [
        {
            "Claim": outcome.claim.claim,
            "Place": outcome.claim.place,
            "Grid": outcome.claim.grid,
            "Claimed": claimed_text(outcome.claim),
            "Effect [95 %]": effect_text(outcome),
            "n (seeds)": str(outcome.decision.n),
            "Verdict": verdict_text(outcome),
            "Comparisons": comparisons_text(outcome),
            "Shown": worst_text(outcome),
            "Missing": "; ".join(outcome.missing),
        }
        for outcome in found
    ]
    table = pd.DataFrame(rows)
    return table if table["Missing"].any() else table.drop(columns="Missing")


def record(outcome: Outcome) -> dict[str, Any]:
    """Everything about a claim, for programs; factors as factors, not as logarithms."""
    decision = outcome.decision
    return {
        **asdict(outcome.claim),
        "verdict": decision.verdict,
        "n": decision.n,
        "seeds": outcome.seeds,
        "seeds_needed": decision.seeds_needed,
        "comparisons": [_plain(c, outcome.claim.factor) for c in decision.comparisons],
        "missing": outcome.missing,
        "commands": outcome.commands,
    }


def _plain(comparison: Comparison, factor: bool) -> dict[str, Any]:
    scale = math.exp if factor else float
    own = asdict(comparison)
    for key in ("effect", "low", "high", "spread"):
        own[key] = None if math.isnan(own[key]) else scale(own[key])
    return own


def csv(found: Sequence[Outcome]) -> str:
    """One row a claim, with the comparison that speaks least for it."""
    rows = []
    for outcome in found:
        whole = record(outcome)
        worst = (whole["comparisons"] or [{}])[0]
        keys = ("id", "claim", "place", "grid", "quantity", "direction", "verdict", "n")
        rows.append(
            {key: whole[key] for key in (*keys, "seeds_needed")}
            | {"unit": "factor" if outcome.claim.factor else "points"}
            | {f"worst_{key}": worst.get(key) for key in ("name", "effect", "low", "high")}
            | {"comparisons": len(whole["comparisons"])}
            | {"comparisons_that_hold": sum(c["holds"] for c in whole["comparisons"])}
            | {"missing": "; ".join(whole["missing"])}
        )
    return pd.DataFrame(rows).to_csv(index=False)


def markdown(table: pd.DataFrame, about: str, commands: Sequence[str]) -> str:
    """The whole as Markdown."""
    parts = [f"**{about}**", table.to_markdown(index=False, disable_numparse=True), RULES.strip()]
    if commands:
        lines = "\n".join(f"    {line}" for line in commands)
        parts.append(f"What is missing is made with:\n\n{lines}")
    return "\n\n".join(parts) + "\n"
