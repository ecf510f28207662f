"""The normalized variance of meta-gradients over samples (paper, C.4, Figure 7).

C.4: "the average variance of all gradient entries using a set of 100 samples", normalized "against
the square of the norm". It does not say of which gradient the norm is. Let g be the expected
meta-gradient with D entries, tr V the sum of the variances of the entries of a single-sample
gradient, and r = tr V / ‖g‖² the noise-to-signal ratio. The variance, tr V / D, is divided by

- `whole_batch`: ‖gradient of the step's whole target batch of B images‖², which is ‖g‖² (1 + r/B)
  in expectation. This is the reading that figures and claims use.
- `unbiased`: ‖mean of the n samples‖² - tr V / n, which is ‖g‖² in expectation. Where noise
  prevails, the difference of two large numbers can be zero or negative: the ratio is then NaN.
- `sample_mean`: ‖mean of the n samples‖², which is ‖g‖² (1 + r/n) in expectation. Where r is far
  above n, the ratio is n/D whatever the method does: the noisier method looks the steadier.

Two more readings are possible and not recorded: the norm of Figure 2 (the mean over images of each
image's norm), and the ratio of reference [13] of the paper (each entry's variance over its own
second moment, averaged over entries), which is at most 1 and says even less where noise prevails.
"""

import math
from dataclasses import asdict, dataclass
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class SampleVariance:
    """What the single-sample meta-gradients of one outer step say.

    Attributes:
        samples: n.
        entries: D.
        variance: the (unbiased) variance of an entry over samples, averaged over entries: tr V / D.
        sample_mean_squared_norm: ‖mean over samples‖².
    """

    samples: int
    entries: int
    variance: float
    sample_mean_squared_norm: float

    @classmethod
    def of(cls, gradients: Tensor) -> Self:
        """From [samples, ...], the meta-gradient of each single-sample outer loss; at least two.
        The numbers are not finite where a gradient is not."""
        flat = gradients.flatten(1)
        return cls(
            len(flat),
            flat.shape[1],
            # The sums over all entries in float64: there are up to millions of them.
            flat.var(dim=0).double().mean().item(),
            flat.mean(dim=0).double().square().sum().item(),
        )

    def record(self, whole_batch_squared_norm: float) -> dict[str, float]:
        """These numbers, and the normalized variance by each reading of C.4 (see above), as they
        are written to a run's measurements.

        Args:
            whole_batch_squared_norm: of the meta-gradient of the same step's whole target batch.
        """
        noise = self.entries * self.variance / self.samples
        readings = {
            "whole_batch": whole_batch_squared_norm,
            "unbiased": self.sample_mean_squared_norm - noise,
            "sample_mean": self.sample_mean_squared_norm,
        }
        return {
            **asdict(self),
            "whole_batch_squared_norm": whole_batch_squared_norm,
            **{
                f"normalized_variance_{name}": normalized(self.variance, squared_norm)
                for name, squared_norm in readings.items()
            },
        }


def normalized(variance: float, squared_norm: float) -> float:
    """Their ratio; NaN where the squared norm, which may be an estimate, is not positive and
    finite."""
    return variance / squared_norm if 0 < squared_norm < math.inf else math.nan
