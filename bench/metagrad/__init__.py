"""Engines: (problem, window, target batch) -> the exact meta-gradient and the outer loss."""

from bench.metagrad.derivatives import Derivatives
from bench.metagrad.exact import ExactEngine
from bench.metagrad.layered import make_derivatives
from bench.metagrad.mean_loss import MeanLoss
from bench.metagrad.optimizers import SGD, Adam, InnerOptimizer
from bench.metagrad.problem import Engine, MetaGradient, Problem, cross_entropies
from bench.metagrad.variance import normalized_variance

__all__ = [
    "ENGINES",
    "SGD",
    "Adam",
    "Derivatives",
    "Engine",
    "InnerOptimizer",
    "MeanLoss",
    "MetaGradient",
    "Problem",
    "cross_entropies",
    "make_derivatives",
    "make_engine",
    "normalized_variance",
]

ENGINES = ("exact", "higher")


def make_engine(name: str, activation_budget: int = 0) -> Engine:
    """The engine called `name`: "exact" (ours) or "higher" (the reference).

    Args:
        activation_budget: bytes that the exact engine may keep for its backward pass.

    Raises:
        ValueError: an unknown engine.
    """
    if name == "exact":
        return ExactEngine(activation_budget)
    if name == "higher":
        # On demand: the library is unmaintained, and a run with our engine needs none of it.
        from bench.metagrad.higher_reference import HigherEngine

        return HigherEngine()
    raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
