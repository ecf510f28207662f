"""The region of an effect that a claim states, and the error rates and limits of its verdict."""

from dataclasses import dataclass

LEVEL = 0.95
POWER = 0.8
MIN_SEEDS = 3
MAX_NEEDED = 1000


@dataclass(frozen=True)
class Region:
    """The claimed region of the mean effect, from `low` to `high`."""

    low: float
    high: float

    def inner_distance(self, effect: float) -> float:
        """Distance of an effect inside the region from its edge; negative outside."""
        return min(effect - self.low, self.high - effect)
