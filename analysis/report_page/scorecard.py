"""Verdicts as a scorecard: the sentence, numbers and interval of each claim."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.verdicts.groups import Group, counts_text, grouped
from analysis.verdicts.inference import Comparison
from analysis.verdicts.judge import Claim, Outcome
from analysis.verdicts.texts import (
    claimed_text,
    comparisons_text,
    effect_text,
    effect_text_of,
    verdict_text,
    worst_text,
)

MARGIN = 0.12  # of the axis, on either side of what it shows


@dataclass(frozen=True)
class Bar:
    """An interval on an axis of its own. Positions are in percent of the axis from its left end.

    Attributes:
        region: the claimed region of the effect.
        interval: of the effect; None if there is only one seed.
        neutral: no effect.
    """

    effect: float
    region: tuple[float, float]
    interval: tuple[float, float] | None
    neutral: float


@dataclass(frozen=True)
class Line:
    """One claim of the scorecard; unknown values are empty."""

    id: str
    kind: str
    claim: str
    place: str
    grid: str
    verdict: str
    verdict_text: str
    claimed: str
    effect: str
    n: str
    bar: Bar | None
    several: str
    shown: str
    comparisons: list[tuple[str, str, str]]
    condition: str
    missing: list[str]


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    """The scorecard, in the order of the claims; a group of claims is one line."""
    return [
        _line_of_group(row) if isinstance(row, Group) else _line(row) for row in grouped(outcomes)
    ]


def counts(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """The number of claims with each verdict, in words, without those of groups."""
    return counts_text([outcome for outcome in outcomes if not outcome.claim.group])


def _line(outcome: Outcome) -> Line:
    claim, decision = outcome.claim, outcome.decision
    several = len(decision.comparisons) > 1
    return Line(
        id=claim.id,
        kind="literal" if claim.kind == "literal" else "",  # findings have a section of their own
        claim=claim.claim,
        place=claim.place,
        grid=claim.grid,
        verdict=decision.verdict,
        verdict_text=verdict_text(outcome),
        claimed=claimed_text(claim),
        effect=effect_text(outcome),
        n=str(decision.n),
        bar=bar(claim, decision.worst) if decision.comparisons else None,
        several=comparisons_text(outcome),
        shown=worst_text(outcome),
        comparisons=[
            (one.name, effect_text_of(claim, one), _verdict_of(one)) for one in decision.comparisons
        ]
        if several
        else [],
        condition="; ".join(outcome.conditions),
        missing=outcome.missing,
    )


def _line_of_group(group: Group) -> Line:
    first = group.outcomes[0].claim
    return Line(
        id=group.id,
        kind="",
        claim=group.claim,
        place=first.place,
        grid=first.grid,
        verdict=group.look,
        verdict_text=", ".join(counts_text(group.outcomes).values()),
        claimed=f"{group.margins} points",
        effect=group.holding,
        n=group.seeds,
        bar=None,
        several="each number",
        shown="",
        comparisons=[
            (one.claim.claim, effect_text(one) or "no effect known", verdict_text(one))
            for one in group.outcomes
        ],
        condition="",
        missing=group.missing,
    )


def _verdict_of(comparison: Comparison) -> str:
    return "holds" if comparison.holds else "does not hold" if comparison.fails else "undecided"


def bar(claim: Claim, comparison: Comparison) -> Bar:
    """A comparison's interval beside the claimed region. Factors are drawn on a log scale."""
    region = claim.region()
    known = [comparison.effect, comparison.low, comparison.high, region.low, region.high, 0.0]
    shown = [value for value in known if math.isfinite(value)]
    length = (max(shown) - min(shown)) or 1.0
    low, high = min(shown) - MARGIN * length, max(shown) + MARGIN * length

    def place(value: float) -> float:
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    return Bar(
        place(comparison.effect),
        (place(region.low), place(region.high)),
        None if math.isnan(comparison.low) else (place(comparison.low), place(comparison.high)),
        place(0.0),
    )
