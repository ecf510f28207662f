"""The inner optimizers: one step, and the adjoint of one step in closed form.

Parameters are one flat vector θ [P]. A step maps θ, the gradient g of the inner loss at θ and the
optimizer's state s to θ', s'. Its adjoint maps cotangents of (θ', s') to cotangents of (θ, g, s);
the engine differentiates g itself (the second derivatives of the loss). Cotangents may have leading
batch dimensions: [..., P].
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.system.choices import EPS_FORMS

State = tuple[Tensor, ...]
# Plain numbers; tensors without dimensions where the code is compiled.
Coefficients = tuple[float | Tensor, ...]


class InnerOptimizer(ABC):
    """The interface of inner optimizers: implement the four abstract methods for your own.

    The coefficients are the few numbers that change from step to step. `update` and
    `update_adjoint` are functions of tensors and the coefficients, so that they are compiled once
    for all steps. Step `t` counts from 0. No tensor is changed in place.

    A step inside the window may differ from one outside (warm-up, training for evaluation; see
    `Adam`, eps_form="published"). The state is the same, so the window continues from the state
    that the warm-up left.
    """

    def step(
        self, theta: Tensor, grad: Tensor, state: State, t: int, in_window: bool = False
    ) -> tuple[Tensor, State]:
        """θ_t, ∇ℓ(θ_t), s_t -> θ_{t+1}, s_{t+1}.

        Args:
            in_window: whether the meta-gradient flows through this step.
        """
        return self.update(theta, grad, state, self.coefficients(t, in_window))

    def adjoint(
        self, theta_bar: Tensor, state_bar: State, theta: Tensor, grad: Tensor, state: State, t: int
    ) -> tuple[Tensor, Tensor, State]:
        """Cotangents of (θ_{t+1}, s_{t+1}) -> cotangents of (θ_t with g held fixed, g, s_t), of a
        step of the window: no other has any."""
        coefficients = self.coefficients(t, in_window=True)
        return self.update_adjoint(theta_bar, state_bar, theta, grad, state, coefficients)

    @abstractmethod
    def initial_state(self, theta: Tensor) -> State:
        """The state before the first step: zeros shaped like θ."""

    @abstractmethod
    def coefficients(self, t: int, in_window: bool) -> tuple[float, ...]:
        """The numbers of step `t`, inside the window or in plain training."""

    @abstractmethod
    def update(
        self, theta: Tensor, grad: Tensor, state: State, coefficients: Coefficients
    ) -> tuple[Tensor, State]:
        """`step`, given the coefficients."""

    @abstractmethod
    def update_adjoint(
        self,
        theta_bar: Tensor,
        state_bar: State,
        theta: Tensor,
        grad: Tensor,
        state: State,
        coefficients: Coefficients,
    ) -> tuple[Tensor, Tensor, State]:
        """`adjoint`, given the coefficients."""


@dataclass(frozen=True)
class SGD(InnerOptimizer):
    """SGD with heavy-ball momentum, L2 weight decay and step decay, as `torch.optim.SGD`.

    The learning rate is multiplied by `decay_factor` at each of the inner steps `decay_steps`
    (paper, C.7: 0.01, times 0.2 at steps 120 and 200).
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay_steps: tuple[int, ...] = ()
    decay_factor: float = 1.0

    def learning_rate(self, t: int) -> float:
        return decayed(self.lr, t, self.decay_steps, self.decay_factor)

    def initial_state(self, theta: Tensor) -> State:
        return (torch.zeros_like(theta),)

    def coefficients(self, t: int, in_window: bool) -> tuple[float]:
        """(learning rate,)"""
        return (self.learning_rate(t),)

    def update(
        self, theta: Tensor, grad: Tensor, state: State, coefficients: Coefficients
    ) -> tuple[Tensor, State]:
        (lr,) = coefficients
        if self.weight_decay:
            grad = grad.add(theta, alpha=self.weight_decay)
        buffer = grad.add(state[0], alpha=self.momentum)
        return theta - lr * buffer, (buffer,)

    def update_adjoint(
        self,
        theta_bar: Tensor,
        state_bar: State,
        theta: Tensor,
        grad: Tensor,
        state: State,
        coefficients: Coefficients,
    ) -> tuple[Tensor, Tensor, State]:
        (lr,) = coefficients
        grad_bar = state_bar[0] - lr * theta_bar
        return (
            theta_bar.add(grad_bar, alpha=self.weight_decay),
            grad_bar,
            (self.momentum * grad_bar,),
        )


@dataclass(frozen=True)
class Adam(InnerOptimizer):
    """Adam with L2 weight decay and step decay, its epsilon in one of `EPS_FORMS`.

    eps_form="torch" is today's `torch.optim.Adam`: θ' = θ - lr/c1 · m' / (√v'/√c2 + eps), with the
    bias corrections c1 = 1 - β1^k and c2 = 1 - β2^k at the k-th step (k = t + 1).
    eps_form="higher" adds eps before the correction, as the `higher` library and torch <= 1.2 do:
    θ' = θ - lr·√c2/c1 · m' / (√v' + eps); the same step as the other form with eps/√c2, which is 32
    times eps at the first step, 10 times at the 10th and 3.2 times at the 100th.
    eps_form="published" is what the paper's published code does: `torch.optim.Adam` for the warm-up
    and for networks that are evaluated, and inside the window `higher`, which takes over the
    moments and the step count. A window that starts at 0 is wholly in the form of `higher`.

    Where v' = 0 the derivative of √v' is infinite; it is taken as 0, as `higher` does (such an
    entry has g = 0, so nothing is lost).

    Raises:
        ValueError: another eps_form.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    eps_form: str = "torch"
    weight_decay: float = 0.0
    decay_steps: tuple[int, ...] = ()
    decay_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.eps_form not in EPS_FORMS:
            raise ValueError(f"eps_form={self.eps_form!r} is not one of {', '.join(EPS_FORMS)}")

    def eps_before_correction(self, in_window: bool) -> bool:
        """Whether a step, inside the window or in plain training, has the form of `higher`."""
        return self.eps_form == "higher" or (self.eps_form == "published" and in_window)

    def learning_rate(self, t: int) -> float:
        return decayed(self.lr, t, self.decay_steps, self.decay_factor)

    def initial_state(self, theta: Tensor) -> State:
        return (torch.zeros_like(theta), torch.zeros_like(theta))

    def coefficients(self, t: int, in_window: bool) -> tuple[float, float]:
        """(a, e) such that θ' = θ - a · m' / (√v' + e), whichever form eps has."""
        root_c2 = math.sqrt(1 - self.beta2 ** (t + 1))
        scale = self.learning_rate(t) * root_c2 / (1 - self.beta1 ** (t + 1))
        return scale, self.eps if self.eps_before_correction(in_window) else self.eps * root_c2

    def _moments(self, theta: Tensor, grad: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        if self.weight_decay:
            grad = grad.add(theta, alpha=self.weight_decay)
        m = (state[0] * self.beta1).add_(grad, alpha=1 - self.beta1)
        v = (state[1] * self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
        return grad, m, v

    def update(
        self, theta: Tensor, grad: Tensor, state: State, coefficients: Coefficients
    ) -> tuple[Tensor, State]:
        scale, eps = coefficients
        _, m, v = self._moments(theta, grad, state)
        return theta - scale * m / (v.sqrt() + eps), (m, v)

    def update_adjoint(
        self,
        theta_bar: Tensor,
        state_bar: State,
        theta: Tensor,
        grad: Tensor,
        state: State,
        coefficients: Coefficients,
    ) -> tuple[Tensor, Tensor, State]:
        scale, eps = coefficients
        grad, m, v = self._moments(theta, grad, state)
        root = v.sqrt()
        direction = scale / (root + eps)  # -∂θ'/∂m'
        # ∂θ'/∂v' = scale · m' / (√v' + eps)² · 1/(2√v'), masked where v' = 0
        slope = direction * m / (root + eps) / (2 * root)
        slope = torch.where(root == 0, torch.zeros_like(slope), slope)
        m_bar = state_bar[0] - theta_bar * direction
        v_bar = state_bar[1] + theta_bar * slope
        grad_bar = m_bar * (1 - self.beta1) + v_bar * (grad * (2 * (1 - self.beta2)))
        return (
            theta_bar.add(grad_bar, alpha=self.weight_decay),
            grad_bar,
            (m_bar * self.beta1, v_bar * self.beta2),
        )


def decayed(lr: float, t: int, decay_steps: tuple[int, ...], decay_factor: float) -> float:
    """The learning rate of step `t` (from 0) under step decay."""
    return lr * decay_factor ** sum(t >= step for step in decay_steps)
