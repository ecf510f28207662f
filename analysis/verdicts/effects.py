"""From measured values to effects seed by seed, and to a decision."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from analysis.verdicts.inference import Decision, decide, decide_over_steps
from analysis.verdicts.quantities import Quantity, Values
from analysis.verdicts.region import Region
from analysis.verdicts.sides import Pair, name_of, names_of


@dataclass(frozen=True)
class PairEffects:
    """The effects of one pair.

    Attributes:
        by_step: the effect of each seed, at each step that all runs of the pair measured.
    """

    name: str
    by_step: dict[int, list[float]]


def pair_effects(
    pairs: Sequence[Pair],
    less: Mapping[str, Any] | None,
    values: Mapping[str, Mapping[int, Values]],
    seeds: Sequence[int],
) -> Iterator[PairEffects]:
    """The effects of each pair that has a step which all of its runs measured.

    Args:
        less: `fraction`, `first` and `than`: this fraction of the effect of another pair is taken
            off, seed by seed.
        values: measured values by text of the side, seed and step.
    """
    for (first, than), name in zip(pairs, names_of(pairs), strict=True):
        terms = [(1.0, first), (-1.0, than)]
        if less:
            fraction = less["fraction"]
            terms += [(-fraction, less["first"]), (fraction, less["than"])]
            name += f", less {fraction} of {name_of(less['first'], less['than'])}"
        weighted = [(weight, values[str(side)]) for weight, side in terms]
        measured = [set(side[seed]) for _, side in weighted for seed in seeds]
        steps = sorted(set.intersection(*measured)) if measured else []
        by_step = {
            step: [sum(weight * side[seed][step] for weight, side in weighted) for seed in seeds]
            for step in steps
        }
        if by_step:
            yield PairEffects(name, by_step)


def decision(
    effects: Sequence[PairEffects], quantity: Quantity, region: Region, on_the_whole: bool
) -> Decision:
    """The verdict on a claim.

    Args:
        on_the_whole: on the mean of steps and against each of them, not at each step.
    """
    import numpy as np

    by_pair = [np.array(list(pair.by_step.values())) for pair in effects]  # [steps, seeds]
    step_names = [
        [
            f"{pair.name}, {quantity.at.format(step)}" if quantity.each_step else pair.name
            for step in pair.by_step
        ]
        for pair in effects
    ]
    if on_the_whole:
        names = [f"{pair.name}, mean of {len(pair.by_step)} steps" for pair in effects]
        return decide_over_steps(by_pair, names, step_names, region)
    return decide(np.concatenate(by_pair), list(chain(*step_names)), region)
