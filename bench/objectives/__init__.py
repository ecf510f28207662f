"""What the outer loop can follow instead of the unrolled objective: one file for each idea.

The options of an objective are in `bench.config.objectives`, which needs no torch.
"""

from pathlib import Path

from torch import nn

from bench.config.objectives import OBJECTIVES, UNROLLED
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.objectives.distribution_matching import DistributionMatching
from bench.objectives.feature_regression import FeatureRegression
from bench.objectives.gradient_matching import GradientMatching
from bench.objectives.implicit_gradients import ImplicitGradients
from bench.objectives.objective import Objective, Setting
from bench.objectives.random_features import RandomFeatures
from bench.objectives.tangent_kernel import TangentKernel
from bench.objectives.trajectory_matching import TrajectoryMatching

__all__ = ["IMPLEMENTATIONS", "Objective", "make_objective"]

IMPLEMENTATIONS = {
    "dm": DistributionMatching,
    "dc": GradientMatching,
    "dsa": GradientMatching,
    "frepo": FeatureRegression,
    "kip": TangentKernel,
    "rfad": RandomFeatures,
    "rcig": ImplicitGradients,
    "mtt": TrajectoryMatching,
    "ftd": TrajectoryMatching,
}


def make_objective(
    config: RunConfig, target_set: TargetSet, network: nn.Module, cache_root: Path | None = None
) -> Objective | None:
    """The objective of a run in its initial state; None for the unrolled one.

    Args:
        cache_root: folder of what is computed once for many runs; None: kept in memory only.
    """
    if config.objective == UNROLLED:
        return None
    options = OBJECTIVES[config.objective](**config.objective_options)
    setting = Setting(config, target_set, network, cache_root)
    return IMPLEMENTATIONS[config.objective](options, setting)
