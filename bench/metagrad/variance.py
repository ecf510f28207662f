"""The normalized variance of meta-gradients over samples (paper, C.4, Figure 7)."""

from torch import Tensor


def normalized_variance(gradients: Tensor) -> float:
    """Mean over entries of the variance over samples, divided by the squared norm of the mean.

    Args:
        gradients: [samples, ...], the meta-gradient of each single-sample outer loss; at least two.

    Returns:
        The (unbiased) variance of an entry, averaged over entries, over ‖mean gradient‖². It is not
        finite where the mean vanishes or a gradient is not finite.
    """
    flat = gradients.flatten(1)
    return (flat.var(dim=0).mean() / flat.mean(dim=0).square().sum()).item()
