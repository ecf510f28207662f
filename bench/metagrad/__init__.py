"""Exact meta-gradients of a bilevel problem: (problem, window, target batch) -> gradient.

To use the engine from Python (README.md has two examples that run):

    make_engine, ExactEngine       engines; both kinds implement `Engine`
    Problem, MetaGradient          the bilevel problem of one outer step, and the answer
    Adam, SGD, InnerOptimizer      inner optimizers; subclass the last for your own
    OUTER_LOSSES, Loss             outer losses by name; the class for your own
    autograd_derivatives           for inputs that are no images [batch, C, H, W]
    SampleVariance                 of `Engine.sample_gradients` (paper, C.4)

The other names are for the other packages of this project.
"""

from bench.metagrad.choice import autograd_derivatives, make_derivatives
from bench.metagrad.compiled import compile_error
from bench.metagrad.derivatives import Derivatives
from bench.metagrad.exact import ExactEngine
from bench.metagrad.mean_loss import MeanLoss
from bench.metagrad.optimizers import SGD, Adam, InnerOptimizer
from bench.metagrad.precision import storage_type
from bench.metagrad.problem import (
    OUTER_LOSSES,
    Engine,
    Loss,
    MetaGradient,
    Problem,
    StepRange,
    cross_entropies,
)
from bench.metagrad.stacked import networks_at_once, stacked_derivatives
from bench.metagrad.variance import SampleVariance
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
    "ExactEngine",
    "InnerOptimizer",
    "Loss",
    "MeanLoss",
    "MetaGradient",
    "Problem",
    "SampleVariance",
    "StepRange",
    "autograd_derivatives",
    "compile_error",
    "cross_entropies",
    "make_derivatives",
    "make_engine",
    "networks_at_once",
    "stacked_derivatives",
    "storage_type",
]


def make_engine(
    name: str, activation_budget: int = 0, precision: str = "float32", compiled: bool = False
) -> Engine:
    """The engine called `name`: "exact" (ours) or "higher" (the reference).

    Args:
        activation_budget: bytes of activations that the exact engine may store.
        precision: one of `PRECISIONS`; the problem's tensors have its `storage_type`.
        compiled: whether the exact engine compiles its steps.

    Raises:
        ValueError: an unknown engine, or a precision that it does not support.
    """
    if name == "exact":
        return ExactEngine(activation_budget, precision=precision, compiled=compiled)
    if name == "higher":
        # Imported on demand: the library is unmaintained, and the exact engine does not need it.
        from bench.metagrad.higher_reference import HigherEngine

        return HigherEngine(precision)
    raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
