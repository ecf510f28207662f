"""The meta-gradients of all windows of a trajectory, from one backward pass for each stop.

The meta-gradient through [start, stop) is a sum of contributions of the inner steps, which the
backward pass adds up from the stop backwards. The cotangents of θ_start and s_start are dropped at
the window's start (the warm-up is a constant). So on its way from `stop` to 0 one pass has the
gradient of [start, stop) when it reaches `start`: the numbers that the engine adds for that window,
added in the same order.

This needs one trajectory for all windows. Where the optimizer's step inside a window differs from
the step before it (`Adam`, eps_form="published"), θ_stop itself depends on the window's start.
Then every start has a trajectory of its own and every window a backward pass of its own: exact
too, but more work.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.metagrad.exact import AtStep, ExactEngine, WindowStep, backward, forward, one_hot
from bench.metagrad.mean_loss import MeanLoss
from bench.metagrad.optimizers import InnerOptimizer, State
from bench.metagrad.precision import hardware_precision
from bench.metagrad.problem import Problem


@dataclass
class WindowGradient:
    """The meta-gradient through one window, and what the backward pass carried at its start.

    Attributes:
        images: shaped like the distilled images.
        labels: shaped like the distilled labels, or None where labels are not learned.
        outer_loss: at θ_stop.
        outer_gradient_norm: of the outer loss with respect to θ_stop: the cotangent that the
            backward pass starts from.
        cotangent_norms: of θ_start, then of each part of the optimizer's state s_start, as they
            arrive at the window's start (where the gradient drops them).
        variance: of an entry of the images' gradient over single-sample outer losses (unbiased),
            averaged over entries (paper, C.4, before it is normalized); None: not measured.
        seconds: what the window costs: training to θ_stop, the gradient of the outer loss, and the
            backward pass from stop to start.
    """

    start: int
    stop: int
    images: Tensor
    labels: Tensor | None
    outer_loss: float
    outer_gradient_norm: float
    cotangent_norms: tuple[float, ...]
    variance: float | None
    seconds: float


class AllWindows(ExactEngine):
    """The exact engine, for all windows [start, stop) with these starts and stops at once."""

    def window_gradients(
        self,
        problem: Problem,
        starts: Sequence[int],
        stops: Sequence[int],
        target_images: Tensor,
        target_labels: Tensor,
        samples: int = 0,
    ) -> list[WindowGradient]:
        """The gradient of every window with start < stop, equal to that of `meta_gradient`.

        The steps of the whole trajectory are in memory, as for full BPTT, and the gradients of all
        windows.

        Args:
            target_images: [batch, C, H, W].
            target_labels: [batch] class indices.
            samples: measures the variance over the first so many target images; 0: does not.
        """
        loss, prepared = self._ready(problem)
        target = (target_images, one_hot(target_labels, problem.labels))
        last, found = max(stops), []
        own = step_depends_on_window(problem.optimizer, last)
        trajectories = [(start, [start]) for start in starts] if own else [(0, list(starts))]
        with hardware_precision(self.precision):
            for first, wanted in trajectories:
                since = self._now(target_images)
                steps, theta = forward(loss, prepared, range(first, last), self.activation_budget)
                per_step = (self._now(target_images) - since) / last
                for stop in sorted(stops):
                    if stop <= first:
                        continue
                    theta_stop = theta if stop == last else steps[stop - first].theta
                    ending = _Ending(self, loss, prepared, range(first, stop), steps, theta_stop)
                    windows = ending.windows(wanted, target, per_step * stop)
                    if samples:
                        ending.measure_variance(windows, target, samples)
                    found += windows
        return found

    @staticmethod
    def _now(like: Tensor) -> float:
        """The time, once the device has done all that it was given."""
        if like.is_cuda:
            torch.cuda.synchronize(like.device)
        return time.perf_counter()


def step_depends_on_window(optimizer: InnerOptimizer, steps: int) -> bool:
    """Whether some step differs inside a window from before it, so that θ_stop depends on where the
    window starts."""
    return any(
        optimizer.coefficients(t, True) != optimizer.coefficients(t, False) for t in range(steps)
    )


class _Ending:
    """The windows that end at one stop of one trajectory.

    Args:
        longest: the window of the trajectory that ends there.
        steps: of the trajectory, from the start of `longest` on.
        theta: [P], at the stop.
    """

    def __init__(
        self,
        engine: AllWindows,
        loss: MeanLoss,
        problem: Problem,
        longest: range,
        steps: list[WindowStep],
        theta: Tensor,
    ) -> None:
        self.engine, self.loss, self.problem, self.longest = engine, loss, problem, longest
        self.steps, self.theta = steps[: len(longest)], theta

    def windows(
        self, starts: list[int], target: tuple[Tensor, Tensor], forward_seconds: float
    ) -> list[WindowGradient]:
        """The windows from these starts, those that begin latest first."""
        since = self.engine._now(self.theta)
        theta_bar, losses = self.loss.gradient(self.theta, *target, self.problem.outer_loss)
        outer_loss, outer_norm = losses.mean().item(), norm(theta_bar)
        seconds, found = forward_seconds, []

        def at_step(t: int, bars: list[Tensor], theta_bar: Tensor, state_bar: State) -> None:
            nonlocal seconds, since
            seconds += self.engine._now(self.theta) - since
            if t in starts:
                images, *labels = [bar[0].clone() for bar in bars]
                norms = tuple(map(norm, (theta_bar, *state_bar)))
                window = WindowGradient(
                    *(t, self.longest.stop, images, labels[0] if labels else None),
                    *(outer_loss, outer_norm, norms, None, seconds),
                )
                found.append(window)
            since = self.engine._now(self.theta)  # what this function does is not part of the cost

        self._pull_back(theta_bar.unsqueeze(0), at_step)
        return found

    def measure_variance(
        self, windows: list[WindowGradient], target: tuple[Tensor, Tensor], samples: int
    ) -> None:
        """Set the `variance` of each window, in memory for `sample_chunk` samples at a time.

        With d_i the gradient of a sample minus that of the whole batch, the sum over entries of the
        unbiased variance is (Σ‖d_i‖² - ‖Σd_i‖²/n) / (n - 1).
        """
        target = (target[0][:samples], target[1][:samples])
        singles = zip(target[0].split(1), target[1].split(1), strict=True)
        theta_bars = torch.stack(
            [
                self.loss.gradient(self.theta, images, labels, self.problem.outer_loss)[0]
                for images, labels in singles
            ]
        )
        means = {window.start: window.images.flatten().double() for window in windows}
        sums = {start: torch.zeros_like(mean) for start, mean in means.items()}
        squares = dict.fromkeys(means, 0.0)

        def at_step(t: int, bars: list[Tensor], theta_bar: Tensor, state_bar: State) -> None:
            if t in means:
                distances = bars[0].flatten(1).double() - means[t]
                sums[t] += distances.sum(dim=0)
                squares[t] += distances.square().sum().item()

        for chunk in theta_bars.split(self.engine.sample_chunk):
            self._pull_back(chunk, at_step)
        n = len(theta_bars)
        for window in windows:
            total = squares[window.start] - sums[window.start].square().sum().item() / n
            window.variance = total / (n - 1) / window.images.numel()

    def _pull_back(self, theta_bar: Tensor, at_step: AtStep) -> None:
        backward(self.loss, self.problem, self.longest, self.steps, theta_bar, at_step)


def norm(tensor: Tensor) -> float:
    """The Euclidean norm, summed in float64: squares of large float32 numbers would overflow."""
    return torch.linalg.vector_norm(tensor, dtype=torch.float64).item()
