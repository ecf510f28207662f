"""The examples of bench/metagrad/README.md run as they stand, on a network without rules."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench import metagrad
from bench.metagrad import make_derivatives, make_engine
from bench.metagrad.derivatives import AutogradDerivatives

README = Path(metagrad.__file__).with_name("README.md")
ONE_STEP, DISTILLATION = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)


def run(example: str) -> dict[str, Any]:
    """The names that the example leaves, with a fixed seed."""
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(example, str(README), "exec"), names)
    assert isinstance(make_derivatives(names["network"]), AutogradDerivatives)
    return names


@pytest.mark.parametrize("example", [ONE_STEP, DISTILLATION], ids=["one_step", "distillation"])
def test_an_example_is_a_dozen_lines_and_imports_the_public_face_only(example: str) -> None:
    lines = [line for line in example.splitlines() if line]
    statements = [line for line in lines if not line.startswith(("import", "from"))]
    assert len(statements) <= 13
    assert {line.split()[1] for line in lines if "bench" in line} == {"bench.metagrad"}
    assert set(re.findall(r"from bench.metagrad import (.*)", example)[0].split(", ")) <= set(
        metagrad.__all__
    )


def test_the_example_of_one_outer_step_gives_the_gradient_of_higher() -> None:
    names = run(ONE_STEP)
    expected = make_engine("higher").meta_gradient(
        names["problem"], names["window"], names["target_images"], names["target_classes"]
    )
    answer = names["answer"]
    assert answer.images.shape == names["images"].shape
    assert (answer.images - expected.images).norm() < 0.05 * expected.images.norm()


def accuracy(network: torch.nn.Module, images: Tensor, x: Tensor, y: Tensor) -> float:
    """Of the network, trained on the images, one of each class."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(network(images), torch.arange(len(images))).backward()
        optimizer.step()
    return (network(x).argmax(dim=1) == y).double().mean().item()


def test_the_example_of_a_distillation_distills() -> None:
    names = run(DISTILLATION)
    x, y, network = names["x"], names["y"], names["network"]
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    noise = torch.randn(names["distilled"].shape, generator=torch.Generator().manual_seed(1))
    assert accuracy(network, noise, x, y) < 0.3
    network.load_state_dict(start)
    assert accuracy(network, names["distilled"], x, y) > 0.7
