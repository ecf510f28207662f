"""TorchOpt's differentiable Adam (`torchopt.MetaAdam`) on the same question, for comparison.

Its epsilon has torch's form (after the bias correction), so it does the work that `Adam` with
eps_form="torch" describes. It takes the bias correction's powers in torch's default dtype: in
float64 it agrees with our engine to 1e-13 where the default dtype is float64 too, otherwise to
1e-5. Its `use_accelerated_op=True` leaves epsilon out of a derivative and so computes another
gradient (in float64 it is off by 4e-4 after ten steps): not used.
"""

import copy

import torch
import torch.nn.functional as F
import torchopt  # pyright: ignore[reportMissingImports]

from bench.metagrad import Adam, MetaGradient, Problem, cross_entropies
from bench.metagrad.precision import hardware_precision
from bench.metagrad.problem import StepRange

# Stands in for the mask where v = 0 and the derivative of √v is infinite: far below any v that
# matters (v of a gradient entry of 1e-12 is 1e-27), large enough for a finite derivative.
EPS_ROOT = 1e-36


class TorchOptEngine:
    """Meta-gradients through images; learned labels and single-sample losses are not measured.

    Args:
        precision: float32, float64, or tf32 on a GPU.
    """

    def __init__(self, precision: str = "float32") -> None:
        self.precision = precision

    def meta_gradient(
        self,
        problem: Problem,
        window: StepRange,
        target_images: torch.Tensor,
        target_labels: torch.Tensor,
    ) -> MetaGradient:
        """As `Engine.meta_gradient`."""
        with hardware_precision(self.precision):
            return unroll(problem, window, target_images, target_labels)


def unroll(
    problem: Problem, window: StepRange, target_images: torch.Tensor, target_labels: torch.Tensor
) -> MetaGradient:
    """The graph of the whole window, and one backward pass through it."""
    adam = problem.optimizer
    assert isinstance(adam, Adam)
    assert adam.eps_form == "torch"
    network = copy.deepcopy(problem.network).to(problem.images)
    network.load_state_dict(problem.parameters)
    optimizer = torchopt.MetaAdam(
        network,
        lr=adam.lr,
        betas=(adam.beta1, adam.beta2),
        eps=adam.eps,
        eps_root=EPS_ROOT,
        moment_requires_grad=False,
    )
    images = problem.images.detach().requires_grad_()
    for t in range(window.stop):
        in_window = t >= window.start
        batch, labels = problem.inner_batch(
            t, images if in_window else images.detach(), problem.labels
        )
        optimizer.step(cross_entropies(network(batch), labels).mean())
        if not in_window:  # the warm-up is a constant
            torchopt.stop_gradient(network)
            torchopt.stop_gradient(optimizer)
    one_hot = F.one_hot(target_labels, problem.labels.shape[1]).to(images)
    loss = cross_entropies(network(target_images), one_hot).mean()
    (images_bar,) = torch.autograd.grad(loss, images)
    return MetaGradient(images_bar, None, loss.detach())
