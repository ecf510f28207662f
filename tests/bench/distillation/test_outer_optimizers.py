"""The outer optimizers."""

import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from bench.distillation.outer_optimizers import OuterAdam, OuterOptimizer, OuterSGD

LR = 0.01


def tensors(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 1, 4, 4), (3, 5), (2, 7)]
    return [torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["adam", "sgd", "momentum"])
def test_it_is_torch_s_to_the_bit_whatever_has_a_gradient_and_at_any_rate(
    kind: str, dtype: torch.dtype
) -> None:
    ours, theirs = tensors(dtype), tensors(dtype)
    groups = [{"params": theirs[:2]}, {"params": theirs[2:]}]
    own: OuterOptimizer
    if kind == "adam":
        own = OuterAdam([ours[:2], ours[2:]], LR)
        reference: torch.optim.Optimizer = torch.optim.Adam(groups, lr=LR)
    else:
        momentum = 0.5 if kind == "momentum" else 0.0
        own = OuterSGD([ours[:2], ours[2:]], LR, momentum)
        reference = torch.optim.SGD(groups, lr=LR, momentum=momentum)
    generator = torch.Generator().manual_seed(1)
    for step in range(12):
        rates = [1.0, 0.1 * (step % 3)]
        present = [k for k in range(3) if (step + k) % 3]
        gradients = {
            k: torch.randn(ours[k].shape, generator=generator, dtype=dtype) for k in present
        }
        own.step([(ours[k], gradients[k]) for k in present], rates)
        for k, parameter in enumerate(theirs):
            parameter.grad = gradients.get(k)
        for group, rate in zip(reference.param_groups, rates, strict=True):
            group["lr"] = LR * rate
        reference.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_it_goes_on_from_its_state(kind: str) -> None:
    def make(group: list[Tensor]) -> OuterOptimizer:
        return OuterAdam([group], LR) if kind == "adam" else OuterSGD([group], LR, 0.5)

    first = tensors(torch.float32)
    optimizer = make(first)
    for _ in range(3):
        optimizer.step([(parameter, parameter.cos()) for parameter in first], [1.0])
    second = deepcopy(first)
    resumed = make(second)
    resumed.load_state(deepcopy(optimizer.state()))
    for one, own in ((optimizer, first), (resumed, second)):
        one.step([(parameter, parameter.cos()) for parameter in own], [1.0])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_it_does_not_import_torch_s_compiler() -> None:
    code = (
        "import sys, torch; from bench.distillation.outer_optimizers import OuterAdam;"
        " p = torch.ones(2);"
        " OuterAdam([[p]], 0.1).step([(p, p.clone())], [1.0]);"
        " sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
