"""Verdicts as text, as a table and as JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from analysis.arguments import Request, sweeps_first
from analysis.captions import caption
from analysis.rendered_table import RenderedTable, as_shown
from analysis.verdicts.groups import Group, counts_by_kind, counts_text, grouped
from analysis.verdicts.inference import Comparison, standing
from analysis.verdicts.judge import NOT_COMPARABLE, OPPOSITE, Claim, Outcome
from analysis.verdicts.region import MAX_NEEDED, MIN_SEEDS
from bench.system.text import count

RULES = """\
A verdict uses the seeds that all sides of a claim share: the same seed means the same networks and
target batches, and differences are taken seed by seed. Interval: 95 %, the wider of the paired t
interval and the bootstrap interval over seeds. Holds: the interval of every comparison lies within
the claimed region. Does not hold: the interval of some comparison lies wholly outside it, at 95 %
over all comparisons of the claim. A claim about all measured steps holds if the mean of the steps
does and no step lies significantly outside; it does not hold if the mean or a step lies wholly
outside, at 97.5 % over all means and at 97.5 % over all steps. Its literal reading needs every
step. Undecided: neither, or fewer than 3 seeds; the number of seeds given would decide with a
probability of 80 % if the observed effects and spreads were the true ones. If a claim has several
comparisons, the one that the verdict rests on is shown: of those that lie wholly outside the
clearest, else of those without a verdict the one with the least favorable mean, else of all the
least certain. A claim on the edge of its region gets a wrong verdict of either kind in 1 of 40
cases. p: the smallest error at which a verdict would be the same. Verdicts are not corrected for
the number of claims, or for seeds that were added after a look at fewer. Numbers of the paper are
taken as they stand, without an error of their own. Some claims require that something happened in
the runs, such as a shift of every moving window: seeds in which it did not happen do not count, nor
do seeds that have no such number, or whose runs were made on different machines where a claim is
about time or memory. A run that diverged is a result, so a claim is not tested if a side lacks a
seed that another side has because its run diverged: the other seeds are a selection of those that
went well. So are the other steps of a run whose variance or norm is not finite at some step. Not
tested: these; or there are runs, and no seed counts; or the settings make the sides of a comparison
the same run.
"""
FINDINGS_TITLE = "Findings of ours, which are not in the paper"
NUMBERS_TITLE = "Numbers of the paper's tables"
NO_STEPS = dict.fromkeys(("total", "inside", "outside"))
SCALE_NOTES = {
    "quick": "These verdicts are about a small network, few steps and the bundled digits. They say"
    " nothing about the paper's CIFAR-10.",
    "cpu": "These verdicts are about a narrow network and few steps.",
}


def claims_caption(outcomes: Sequence[Outcome], request: Request) -> str:
    """What the verdicts are about."""
    quoting = sum(NOT_COMPARABLE in outcome.missing for outcome in outcomes)
    reading = [counts_by_kind(outcomes)]
    if quoting:
        reading.append(
            f"{count(quoting, 'claim')} {'is' if quoting == 1 else 'are'} {NOT_COMPARABLE}."
        )
    reading += corrected_text(outcomes)
    if request.scale != "paper":
        reading += [
            SCALE_NOTES.get(request.scale, ""),
            "Claims name the paper's settings; the grids state the settings used here instead.",
        ]
    return caption(reading, request, [run for outcome in outcomes for run in outcome.runs])


def corrected_text(outcomes: Sequence[Outcome]) -> list[str]:
    """How many verdicts are left if they are corrected for the number of claims, if there are
    several."""
    decisions = [outcome.decision for outcome in outcomes]
    judged = sum(one.n >= MIN_SEEDS for one in decisions)
    decided = sum(one.p is not None for one in decisions)
    if judged < 2 or not decided:
        return []
    holm, discovered = (
        f"{len(left)}{f' (p up to {p_text(left[-1])})' if left else ''}"
        for left in standing(decisions)
    )
    return [
        f"Corrected for the {judged} claims with {MIN_SEEDS} seeds or more, of the"
        f" {count(decided, 'verdict')} that hold or do not Holm's correction leaves {holm}, and a"
        f" false discovery rate of 5 % (Benjamini and Hochberg) {discovered}."
    ]


def p_text(p: float) -> str:
    """A p value with two digits."""
    return f"{p:.2g}"


# --- one outcome in words


def effect_text(outcome: Outcome) -> str:
    """The effect of the comparison that is shown, with its interval."""
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
    """How many of a claim's comparisons hold, if there are several; of one about steps, how many
    steps lie where it says, and how many significantly elsewhere."""
    comparisons, steps = outcome.decision.comparisons, outcome.decision.steps
    if steps is not None:
        direction = outcome.claim.direction
        inside = direction if direction in ("above", "below") else "inside"
        text = f"{steps.inside} of {count(steps.total, 'step')} {inside}"
        return f"{text}, {steps.outside} significantly {OPPOSITE[direction]}"
    if len(comparisons) < 2:
        return ""
    holding = sum(comparison.holds for comparison in comparisons)
    return f"{holding} of {len(comparisons)} hold"


def worst_text(outcome: Outcome) -> str:
    """The name of the comparison that is shown, if there are several."""
    comparisons = outcome.decision.comparisons
    return comparisons[0].name if len(comparisons) > 1 else ""


def verdict_text(outcome: Outcome) -> str:
    """The verdict with its p value or, if it is undecided, the number of seeds that it needs."""
    decision = outcome.decision
    if decision.p is not None:
        p = "p < 0.001" if decision.p < 0.001 else f"p = {p_text(decision.p)}"
        return f"{decision.verdict}, {p}"
    if decision.verdict != "undecided":
        return decision.verdict
    needed = decision.seeds_needed or 0
    if needed > MAX_NEEDED:
        return f"undecided, needs more than {MAX_NEEDED} seeds"
    return f"undecided, needs {needed or f'at least {MIN_SEEDS}'} seeds"


# --- all outcomes


def claims_table(outcomes: Sequence[Outcome], request: Request) -> RenderedTable:
    """The verdicts as tables: the paper's claims, a claim or a group of claims per row; findings of
    ours; the claims of the groups."""
    findings = [outcome for outcome in outcomes if outcome.claim.kind == "finding"]
    of_paper = [outcome for outcome in outcomes if outcome.claim.kind != "finding"]
    cells = [outcome for outcome in of_paper if outcome.claim.group]
    return RenderedTable(
        name="claims",
        title="Claims of the paper",
        caption=claims_caption(outcomes, request),
        frames=[
            (as_shown([_shown(row) for row in rows]), text)
            for rows, text in (
                (grouped(of_paper), ""),
                (findings, FINDINGS_TITLE),
                (cells, NUMBERS_TITLE),
            )
            if rows
        ],
        tidy=pd.DataFrame([_tidy(outcome) for outcome in outcomes]),
        missing="Some claims lack runs (column Missing)"
        if any(outcome.missing for outcome in outcomes)
        else "",
        commands=sweeps_first(line for outcome in outcomes for line in outcome.commands),
        notes=[RULES.strip()],
    )


def _shown(row: Outcome | Group) -> dict[str, str]:
    if isinstance(row, Group):
        first = row.outcomes[0].claim
        return {
            "Claim": row.claim,
            "Kind": first.kind,
            "Id": row.id,
            "Place": first.place,
            "Grid": first.grid,
            "Claimed": row.margins,
            "Effect [95 %]": "",
            "n (seeds)": row.seeds,
            "Verdict": ", ".join(counts_text(row.outcomes).values()),
            "Comparisons": row.holding,
            "Shown": "",
            "Condition": "",
            "Missing": "; ".join(row.missing),
        }
    return {
        "Claim": row.claim.claim,
        "Kind": row.claim.kind,
        "Id": row.claim.id,
        "Place": row.claim.place,
        "Grid": row.claim.grid,
        "Claimed": claimed_text(row.claim),
        "Effect [95 %]": effect_text(row),
        "n (seeds)": str(row.decision.n),
        "Verdict": verdict_text(row),
        "Comparisons": comparisons_text(row),
        "Shown": worst_text(row),
        "Condition": "; ".join(row.conditions),
        "Missing": "; ".join(row.missing),
    }


def _tidy(outcome: Outcome) -> dict[str, Any]:
    """One row of the CSV, with the comparison that is shown."""
    whole = record(outcome)
    worst = (whole["comparisons"] or [{}])[0]
    keys = (
        "id",
        "kind",
        "group",
        "claim",
        "place",
        "grid",
        "quantity",
        "direction",
        "verdict",
        "p",
        "n",
    )
    return {
        **{key: whole[key] for key in (*keys, "seeds_needed")},
        "unit": "factor" if outcome.claim.factor else "points",
        **{f"worst_{key}": worst.get(key) for key in ("name", "effect", "low", "high")},
        **{f"steps_{key}": value for key, value in (whole["steps"] or NO_STEPS).items()},
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
        "p": decision.p,
        "n": decision.n,
        "seeds": outcome.seeds,
        "seeds_needed": decision.seeds_needed,
        "steps": None if decision.steps is None else asdict(decision.steps),
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
    numbers["p"] = None if math.isnan(comparison.p) else comparison.p
    return numbers
