"""The closed-form adjoint of a step equals the derivative of the step itself."""

import pytest
import torch
from torch import Tensor

from bench.metagrad import EPS_FORMS, SGD, Adam, InnerOptimizer
from bench.training.randomness import torch_generator

SIZE = 4
OPTIMIZERS: dict[str, InnerOptimizer] = {
    "adam": Adam(0.1),
    "adam_eps": Adam(0.1, eps=0.1),
    "adam_eps_before_correction": Adam(0.1, eps=0.1, eps_form="higher"),
    "adam_published": Adam(0.1, eps=0.1, eps_form="published"),
    "adam_with_decay": Adam(0.1, 0.8, 0.9, 0.1, "torch", 0.3, (2,), 0.5),
    "sgd": SGD(0.1),
    "sgd_with_decay": SGD(0.1, 0.9, 0.3, (2,), 0.5),
}


def random_vectors(name: str, count: int, *lead: int) -> list[Tensor]:
    generator = torch_generator(0, name)
    return [
        torch.randn(*lead, SIZE, dtype=torch.float64, generator=generator) for _ in range(count)
    ]


def step_inputs(optimizer: InnerOptimizer, t: int) -> tuple[Tensor, ...]:
    """(θ_t, g_t, *s_t) after `t` steps on random gradients."""
    theta, *grads = random_vectors("inputs", t + 2)
    state = optimizer.initial_state(theta)
    for k in range(t):
        theta, state = optimizer.step(theta, grads[k], state, k)
    return (theta, grads[t], *state)


def jacobian(optimizer: InnerOptimizer, inputs: tuple[Tensor, ...], t: int) -> Tensor:
    """d (θ', *s') / d (θ, g, *s) of `step` in the window, [outputs, inputs], a column for each unit
    tangent."""

    def flat_step(flat: Tensor) -> Tensor:
        theta, grad, *state = flat.split(SIZE)
        theta, new_state = optimizer.step(theta, grad, tuple(state), t, in_window=True)
        return torch.cat([theta, *new_state])

    flat = torch.cat(inputs)
    columns = [
        torch.func.jvp(flat_step, (flat,), (tangent,))[1]
        for tangent in torch.eye(len(flat), dtype=flat.dtype)
    ]
    return torch.stack(columns, dim=1)


def adjoint(
    optimizer: InnerOptimizer, bars: list[Tensor], inputs: tuple[Tensor, ...], t: int
) -> Tensor:
    """Cotangents of (θ, g, *s), [..., inputs]."""
    theta, grad, *state = inputs
    theta_bar, grad_bar, state_bar = optimizer.adjoint(
        bars[0], tuple(bars[1:]), theta, grad, tuple(state), t
    )
    return torch.cat([theta_bar, grad_bar, *state_bar], dim=-1)


# The first forward-mode derivative makes torch itself warn of its own `torch.jit.script`.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("t", [0, 1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_adjoint_is_the_transposed_jacobian_of_the_step(
    name: str, t: int, lead: tuple[int, ...]
) -> None:
    optimizer = OPTIMIZERS[name]
    inputs = step_inputs(optimizer, t)
    assert inputs[1].abs().min() > 0  # Adam with v' = 0 has a test of its own
    bars = random_vectors("cotangents", len(inputs) - 1, *lead)
    expected = torch.cat(bars, dim=-1) @ jacobian(optimizer, inputs, t)
    actual = adjoint(optimizer, bars, inputs, t)
    assert actual.shape == (*lead, len(inputs) * SIZE)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_adjoint_treats_every_cotangent_of_a_batch_as_if_alone(name: str) -> None:
    optimizer = OPTIMIZERS[name]
    inputs = step_inputs(optimizer, 2)
    bars = random_vectors("cotangents", len(inputs) - 1, 5)
    together = adjoint(optimizer, bars, inputs, 2)
    alone = [adjoint(optimizer, [bar[i] for bar in bars], inputs, 2) for i in range(5)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-14, atol=0)


@pytest.mark.parametrize("eps_form", EPS_FORMS)
def test_the_adjoint_is_finite_where_the_second_moment_is_zero(eps_form: str) -> None:
    """There θ' = θ - a·m'/eps to first order, and √v' counts as constant."""
    optimizer = Adam(0.1, eps=0.5, eps_form=eps_form)
    theta, theta_bar, m_bar, v_bar = random_vectors("vectors", 4)
    zero = torch.zeros_like(theta)
    _, grad_bar, (m_bar_before, v_bar_before) = optimizer.adjoint(
        theta_bar, (m_bar, v_bar), theta, zero, (zero, zero), 0
    )
    # At the first step lr/c1·m' = lr·g, and √c2 leaves eps in today's form only.
    eps = 0.5 if eps_form == "torch" else 0.5 / (1 - 0.999) ** 0.5
    expected = -0.1 / eps * theta_bar + 0.1 * m_bar
    torch.testing.assert_close(grad_bar, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(m_bar_before, 9 * expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(v_bar_before, 0.999 * v_bar, rtol=1e-12, atol=0)
