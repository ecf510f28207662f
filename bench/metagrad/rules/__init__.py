"""Layers, each with its first and second derivatives written out (`application.py` says how)."""

from bench.metagrad.rules.application import Application, Cast, Parameters
from bench.metagrad.rules.unweighted import AveragePool, Flatten, MaxPool, ReLU
from bench.metagrad.rules.weighted import Convolution, InstanceNorm, Linear

__all__ = [
    "Application",
    "AveragePool",
    "Cast",
    "Convolution",
    "Flatten",
    "InstanceNorm",
    "Linear",
    "MaxPool",
    "Parameters",
    "ReLU",
]
