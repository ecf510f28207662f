"""RCIG: Loo, Hasani, Lechner and Rus, "Dataset distillation with convexified implicit gradients",
ICML 2023."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.objectives import RCIG
from bench.metagrad import MetaGradient
from bench.metagrad.flat import FlatNetwork
from bench.objectives.kernel_regression import centered, cholesky, margin
from bench.objectives.network_pool import NetworkPool
from bench.objectives.objective import PlainObjective, Setting, embedding
from bench.objectives.platt import PlattLoss
from bench.training.randomness import python_random

TARGETS_AT_ONCE = 250  # images; changes memory only
CONVERGED = 1e-24  # of a squared residual, relative to the first


class ImplicitGradients(PlainObjective):
    """The Platt loss of a linearized network that is trained on the distilled set, by its implicit
    gradient (their Algorithm 1). The network at parameters θ, linearized in all of them but the
    weights of its last layer, and with these solved for, predicts

        f(T) = J_T δ + K_TS A⁻¹ (y - J_S δ),  A = K_SS + λI,  K = φ φᵀ

    J is the Jacobian of the logits, φ what the last layer sees, y the distilled labels minus 1/C.
    Training moves δ to the minimum of the inner loss, and the outer loss follows there:

        λ/2nC (tr (y - J_S δ)ᵀ A⁻¹ (y - J_S δ) + ‖δ‖²)
        L = 1/|T| Σ_T CE(e^τ f, class) - mean_S min(largest - second of y, 1/2C)

    With H the second derivative of the inner loss, L has the gradient

        ∂L/∂S - ∂²(inner loss)/∂S∂δ · H⁻¹ ∂L/∂δ

    whose second, implicit, part is scaled down to the norm of the first where it is larger, for
    images and labels apart. The networks are those of a pool, and are trained themselves, between 1
    and `most_updates` steps after each use, until they had `online_steps`.

    In their published code: 30 networks, 100 steps by Adam at 0.00005, up to 15 at once; a λ of
    0.0005 for each distilled image; target batches of 1,024 images; mirrored copies of the
    distilled images beside them (not for MNIST and Fashion-MNIST); learned labels; real images to
    start from; AdaBelief at 0.003, and at 0.03 for τ, where Adam is taken here; what is evaluated
    there is the average of the iterates, decaying by 0.99. δ and H⁻¹ ∂L/∂δ are found there in 20
    steps of Adam each, at rates that are searched for at the start; the first is followed up. There
    the implicit part also runs through the weights of the last layer, which are solved for; here,
    as in the paper's text, it does not. Both are the minima of quadratic functions, and here 20
    steps of conjugate gradients, which need no rate, lead there. There the network has no norms,
    doubles its width with each block, and has softplus for ReLU; here it is that of the run.
    """

    def __init__(self, options: RCIG, setting: Setting) -> None:
        self.options, self.setting = options, setting
        self.pool = NetworkPool(setting, [0] * options.networks, options.network_lr)
        device = setting.target_set.train.images.device
        self.platt = PlattLoss(options.temperature_lr, device)

    def gradient(self, seed: int, step: int, images: Tensor, labels: Tensor) -> MetaGradient:
        options, learned = self.options, self.setting.config.learn_labels
        targets, classes = self.setting.target_batch(seed, step)
        theta = self.pool.at(step).theta
        moving = [images.detach().requires_grad_(), labels.detach().requires_grad_(learned)]
        mirrored, y = self._with_mirrored(*moving)
        own = Linearization(self.pool.flat, theta, mirrored)
        kernel = own.features @ own.features.T
        lower = cholesky(kernel, options.ridge * len(images))  # of A

        def inverse(right: Tensor) -> Tensor:
            return torch.cholesky_solve(right, lower)  # A⁻¹ times it

        def normal(direction: Tensor) -> Tensor:  # H nC/λ
            return own.transposed(inverse(own.times(direction))) + direction

        delta = conjugate_gradients(normal, own.transposed(inverse(y)), options.inner_steps)
        residual = y - own.times(delta, differentiable=True)
        of_targets = TargetOutputs(self.pool.flat, theta, delta, targets)
        predicted = of_targets.logits + of_targets.features @ own.features.T @ inverse(residual)
        loss = self.platt(predicted, classes) - margin(y, 0.5)

        of_predicted = torch.autograd.grad(loss, predicted, retain_graph=True)[0]
        through = own.features @ (of_targets.features.T @ of_predicted)
        outer = of_targets.transposed(of_predicted) - own.transposed(inverse(through))
        solved = conjugate_gradients(normal, outer, options.inverse_steps)
        # - ⟨H⁻¹ ∂L/∂δ, ∂ inner loss/∂δ⟩ as a function of images and labels, but for a constant
        product = (inverse(residual) * own.times(solved, differentiable=True)).sum()
        of = moving if learned else moving[:1]
        direct = torch.autograd.grad(loss, of, retain_graph=True)
        implicit = torch.autograd.grad(product, of)
        limit = limited if options.limit_implicit else torch.add
        gradients = [limit(*parts) for parts in zip(direct, implicit, strict=True)]
        of_labels = gradients[1] if learned else None
        return MetaGradient(gradients[0], of_labels, loss.detach().to(images))

    def after(self, step: int, images: Tensor, labels: Tensor) -> None:
        self.platt.update()
        rng = python_random(self.setting.config.seed, "pool/updates", step)
        updates = rng.randint(1, self.options.most_updates)
        images, y = self._with_mirrored(images, labels)
        self.pool.train(step, images, y.to(images), updates)
        if self.pool.at(step).age >= self.options.online_steps:
            self.pool.replace(step)

    def _with_mirrored(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images [n, C, H, W] and y [n, classes], float64, with mirrored copies if so chosen."""
        y = centered(labels)
        if not self.options.mirror:
            return images, y
        return torch.cat([images, images.flip(-1)]), torch.cat([y, y])

    def state(self) -> dict[str, Any]:
        return {"pool": self.pool.state(), "platt": self.platt.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.pool.load_state(state["pool"])
        self.platt.load_state(state["platt"])


class Linearization:
    """A network around θ: what it makes of some images, and products with the Jacobian J of its
    logits with respect to θ without the weights of the last layer. Vectors are float64.

    Attributes:
        features: what the last layer sees, [n, features]; differentiable in the images.
    """

    def __init__(self, flat: FlatNetwork, theta: Tensor, images: Tensor) -> None:
        self.body = flat.flatten(
            {
                name: torch.full(shape, float(name != "classifier.weight")).to(theta)
                for name, shape in zip(flat.names, flat.shapes, strict=True)
            }
        )
        self.theta = theta.detach().requires_grad_()
        parameters = flat.unflatten(self.theta)
        seen = embedding(flat.network, parameters, images)
        last = parameters["classifier.weight"], parameters["classifier.bias"]
        self.logits, self.features = F.linear(seen, *last), seen.double()

    @cached_property
    def _pulled_back(self) -> tuple[Tensor, Tensor]:
        """Jᵀu and u. It is linear in u, so that its derivative with respect to u is J."""
        cotangent = torch.zeros_like(self.logits, requires_grad=True)
        (pulled,) = torch.autograd.grad(self.logits, self.theta, cotangent, create_graph=True)
        return pulled, cotangent

    def times(self, direction: Tensor, differentiable: bool = False) -> Tensor:
        """J δ [n, classes] of δ [P]; `differentiable` in the images."""
        (product,) = torch.autograd.grad(
            *self._pulled_back,
            self.body * direction.to(self.body),
            retain_graph=True,
            create_graph=differentiable,
        )
        return product.double()

    def transposed(self, cotangent: Tensor) -> Tensor:
        """Jᵀu [P] of u [n, classes]."""
        (product,) = torch.autograd.grad(
            self.logits, self.theta, cotangent.to(self.logits), retain_graph=True
        )
        return (self.body * product).double()


class TargetOutputs:
    """The same of many images, a part at a time, and without a gradient with respect to them.

    Attributes:
        features: [n, features].
        logits: J δ, [n, classes].
    """

    def __init__(self, flat: FlatNetwork, theta: Tensor, delta: Tensor, images: Tensor) -> None:
        self.flat, self.theta, self.parts = flat, theta, images.split(TARGETS_AT_ONCE)
        linearized = [self._outputs(part, delta) for part in self.parts]
        self.features = torch.cat([features for features, _ in linearized])
        self.logits = torch.cat([logits for _, logits in linearized])

    def _outputs(self, images: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        one = Linearization(self.flat, self.theta, images)
        return one.features.detach(), one.times(delta)

    def transposed(self, cotangent: Tensor) -> Tensor:
        """Jᵀu [P] of u [n, classes]."""
        cotangents = cotangent.split(TARGETS_AT_ONCE)
        products = [
            Linearization(self.flat, self.theta, part).transposed(of_part)
            for part, of_part in zip(self.parts, cotangents, strict=True)
        ]
        return torch.stack(products).sum(0)


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], right: Tensor, steps: int) -> Tensor:
    """x with M x = b, after so many steps from 0 or when the residual is nearly 0.

    Args:
        matrix: M x of a vector x; symmetric and positive.
        right: b.
    """
    solution = torch.zeros_like(right)
    residual = direction = right
    square = first = residual.square().sum()
    with torch.no_grad():
        for _ in range(steps):
            if square <= CONVERGED * first:
                break
            product = matrix(direction)
            size = square / (direction * product).sum()
            solution = solution + size * direction
            residual = residual - size * product
            before, square = square, residual.square().sum()
            direction = residual + square / before * direction
    return solution


def limited(direct: Tensor, implicit: Tensor) -> Tensor:
    """Their sum, the second with at most the norm of the first."""
    factor = (direct.norm() / implicit.norm()).nan_to_num(0).clamp(max=1)
    return direct + factor * implicit
