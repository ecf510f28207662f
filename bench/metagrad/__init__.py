"""Engines: (problem, window, target batch) -> the exact meta-gradient and the outer loss."""

from bench.metagrad.choice import make_derivatives
from bench.metagrad.compiled import compile_error
from bench.metagrad.derivatives import Derivatives
from bench.metagrad.exact import ExactEngine
from bench.metagrad.mean_loss import MeanLoss
from bench.metagrad.optimizers import SGD, Adam, InnerOptimizer
from bench.metagrad.precision import storage_type
from bench.metagrad.problem import OUTER_LOSSES, Engine, MetaGradient, Problem, cross_entropies
from bench.metagrad.stacked import networks_at_once, stacked_derivatives
from bench.metagrad.variance import normalized_variance
from bench.system.choices import ENGINES, EPS_FORMS, PRECISIONS

__all__ = [
    "ENGINES",
    "EPS_FORMS",
    "OUTER_LOSSES",
    "PRECISIONS",
    "SGD",
    "Adam",
    "Derivatives",
    "Engine",
    "InnerOptimizer",
    "MeanLoss",
    "MetaGradient",
    "Problem",
    "compile_error",
    "cross_entropies",
    "make_derivatives",
    "make_engine",
    "networks_at_once",
    "normalized_variance",
    "stacked_derivatives",
    "storage_type",
]


def make_engine(
    name: str, activation_budget: int = 0, precision: str = "float32", compiled: bool = False
) -> Engine:
    """The engine called `name`: "exact" (ours) or "higher" (the reference).

    Args:
        activation_budget: bytes that the exact engine may keep for its backward pass.
        precision: one of `PRECISIONS`; the problem's tensors have its `storage_type`.
        compiled: whether the exact engine compiles its steps.

    Raises:
        ValueError: an unknown engine, or a precision that it does not have.
    """
    if name == "exact":
        return ExactEngine(activation_budget, precision=precision, compiled=compiled)
    if name == "higher":
        # On demand: the library is unmaintained, and a run with our engine needs none of it.
        from bench.metagrad.higher_reference import HigherEngine

        return HigherEngine(precision)
    raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
