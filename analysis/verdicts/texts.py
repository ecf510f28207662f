"""Verdicts as text, as a table and as JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from analysis.arguments import Request, sweeps_first
from analysis.captions import caption
from analysis.rendered_table import RenderedTable, as_shown
from analysis.verdicts.inference import MAX_NEEDED, MIN_SEEDS, Comparison
from analysis.verdicts.judge import Claim, Outcome
from bench.system.text import count

RULES = """\
A verdict uses the seeds that all sides of a claim share: the same seed means the same networks and
target batches, and differences are taken seed by seed. Interval: 95 %, the wider of the paired t
interval and the bootstrap interval over seeds. Holds: the interval of every comparison lies within
the claimed region. Does not hold: the interval of some comparison lies wholly outside it, at 95 %
over all comparisons of the claim. Undecided: neither, or fewer than 3 seeds; the number of seeds
given would decide with a probability of 80 % if the observed effects and spreads were the true
ones. If a claim has several comparisons, the one that supports it least is shown. A claim on the
edge of its region gets a wrong verdict of either kind in 1 of 40 cases. There is no correction for
the number of claims. Some claims require that something happened in the runs, such as a shift of
every moving window: seeds in which it did not happen do not count. Not tested: there are runs, and
no seed counts.
"""


SCALE_NOTES = {
    "quick": "These verdicts are about a small network, few steps and the bundled digits. They say"
    " nothing about the paper's CIFAR-10.",
    "cpu": "These verdicts are about a narrow network and few steps.",
}


def claims_caption(outcomes: Sequence[Outcome], request: Request) -> str:
    """What the verdicts are about."""
    reading = [f"{count(len(outcomes), 'claim')} of the paper."]
    if request.scale != "paper":
        reading += [
            SCALE_NOTES.get(request.scale, ""),
            "Claims name the paper's settings; the grids state the settings used here instead.",
        ]
    return caption(reading, request, [run for outcome in outcomes for run in outcome.runs])


# --- one outcome in words


def effect_text(outcome: Outcome) -> str:
    """The effect that supports the claim least, with its interval."""
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
    """The claimed region of the effect."""
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
    """How many of a claim's comparisons hold, if there are several."""
    comparisons = outcome.decision.comparisons
    if len(comparisons) < 2:
        return ""
    holding = sum(comparison.holds for comparison in comparisons)
    return f"{holding} of {len(comparisons)} hold"


def worst_text(outcome: Outcome) -> str:
    """The name of the comparison that is shown, if there are several."""
    comparisons = outcome.decision.comparisons
    return comparisons[0].name if len(comparisons) > 1 else ""


def verdict_text(outcome: Outcome) -> str:
    """The verdict and, if it is undecided, the number of seeds that it needs."""
    decision = outcome.decision
    if decision.verdict != "undecided":
        return decision.verdict
    needed = decision.seeds_needed or 0
    if needed > MAX_NEEDED:
        return f"undecided, needs more than {MAX_NEEDED} seeds"
    return f"undecided, needs {needed or f'at least {MIN_SEEDS}'} seeds"


# --- all outcomes


def claims_table(outcomes: Sequence[Outcome], request: Request) -> RenderedTable:
    """The verdicts as a table, a claim per row."""
    return RenderedTable(
        name="claims",
        title="Claims of the paper",
        caption=claims_caption(outcomes, request),
        frames=[(as_shown([_shown(outcome) for outcome in outcomes]), "")],
        tidy=pd.DataFrame([_tidy(outcome) for outcome in outcomes]),
        missing="Some claims lack runs (column Missing)"
        if any(outcome.missing for outcome in outcomes)
        else "",
        commands=sweeps_first(line for outcome in outcomes for line in outcome.commands),
        notes=[RULES.strip()],
    )


def _shown(outcome: Outcome) -> dict[str, str]:
    return {
        "Claim": outcome.claim.claim,
        "Place": outcome.claim.place,
        "Grid": outcome.claim.grid,
        "Claimed": claimed_text(outcome.claim),
        "Effect [95 %]": effect_text(outcome),
        "n (seeds)": str(outcome.decision.n),
        "Verdict": verdict_text(outcome),
        "Comparisons": comparisons_text(outcome),
        "Shown": worst_text(outcome),
        "Condition": "; ".join(outcome.conditions),
        "Missing": "; ".join(outcome.missing),
    }


def _tidy(outcome: Outcome) -> dict[str, Any]:
    """One row of the CSV, with the comparison that supports the claim least."""
    whole = record(outcome)
    worst = (whole["comparisons"] or [{}])[0]
    keys = ("id", "claim", "place", "grid", "quantity", "direction", "verdict", "n")
    return {
        **{key: whole[key] for key in (*keys, "seeds_needed")},
        "unit": "factor" if outcome.claim.factor else "points",
        **{f"worst_{key}": worst.get(key) for key in ("name", "effect", "low", "high")},
        "comparisons": len(whole["comparisons"]),
        "comparisons_that_hold": sum(one["holds"] for one in whole["comparisons"]),
        "condition": "; ".join(whole["conditions"]),
        "missing": "; ".join(whole["missing"]),
    }


def record(outcome: Outcome) -> dict[str, Any]:
    """Everything about a claim, for the JSON file; factors as factors, not as logarithms."""
    decision = outcome.decision
    return {
        **asdict(outcome.claim),
        "verdict": decision.verdict,
        "n": decision.n,
        "seeds": outcome.seeds,
        "seeds_needed": decision.seeds_needed,
        "comparisons": [_plain(one, outcome.claim.factor) for one in decision.comparisons],
        "conditions": outcome.conditions,
        "missing": outcome.missing,
        "commands": outcome.commands,
    }


def _plain(comparison: Comparison, factor: bool) -> dict[str, Any]:
    scale = math.exp if factor else float
    numbers = asdict(comparison)
    for key in ("effect", "low", "high", "spread"):
        numbers[key] = None if math.isnan(numbers[key]) else scale(numbers[key])
    return numbers
