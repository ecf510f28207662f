"""Engines: (problem, window, target batch) -> the exact meta-gradient and the outer loss."""

from bench.metagrad.exact import ExactEngine
from bench.metagrad.flat import FlatNetwork
from bench.metagrad.optimizers import SGD, Adam, InnerOptimizer
from bench.metagrad.problem import Engine, MetaGradient, Problem, inner_loss, outer_losses
from bench.metagrad.variance import normalized_variance

__all__ = [
    "ENGINES",
    "SGD",
    "Adam",
    "Engine",
    "FlatNetwork",
    "InnerOptimizer",
    "MetaGradient",
    "Problem",
    "inner_loss",
    "make_engine",
    "normalized_variance",
    "outer_losses",
]

ENGINES = ("exact", "higher")


def make_engine(name: str) -> Engine:
    """The engine called `name`: "exact" (ours) or "higher" (the reference).

    Raises:
        ValueError: an unknown engine.
    """
    if name == "exact":
        return ExactEngine()
    if name == "higher":
        # On demand: the library is unmaintained, and a run with our engine needs none of it.
        from bench.metagrad.higher_reference import HigherEngine

        return HigherEngine()
    raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
