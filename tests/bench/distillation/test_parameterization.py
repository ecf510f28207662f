"""What is learned: pixels, or bases and coefficients within the budget of an IPC."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.identity import images_per_class
from bench.config.resolve import resolve
from bench.config.run_config import Environment, RunConfig
from bench.config.storage_budget import Budget, nominal_budget
from bench.data import TargetSet, load_target_set
from bench.distillation.outer_loop import Distillation
from bench.distillation.parameterization import Linear
from bench.distillation.process_group import SingleProcess
from bench.distillation.replicas import Replicas
from bench.distillation.upsampling import enlarge, enlarge_transposed
from bench.evaluation.distilled_set import load_distilled_set
from bench.evaluation.fresh_networks import evaluate
from bench.run import Console
from bench.runs.execute import execute
from bench.runs.run_folder import Store
from bench.system.choices import SHAPES
from bench.system.errors import UserError
from bench.training.setup import load_data
from tests.bench.distillation.applied import step_and_applied
from tests.bench.distillation.steps import resumed_halfway

# Data sets and IPCs of the paper's Table 1.
TABLE_1 = [
    *(("cifar10", ipc) for ipc in (1, 10, 50)),
    *(("cifar100", ipc) for ipc in (1, 10, 50)),
    *(("cub200", ipc) for ipc in (1, 10)),
    *(("tiny_imagenet", ipc) for ipc in (1, 10)),
]


@pytest.fixture(scope="module")
def digits(cache_root: Path) -> TargetSet:
    data = load_target_set("digits", data_root=cache_root, cache_root=cache_root)
    return data.to("cpu", torch.float64)


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    given = {**parse(tiny, RunConfig), "precision": "float64", "ipc": 2}
    return single_run("quick", {**given, "parameterization": "linear", "decoded_ipc": 3})


def linear(distillation: Distillation) -> Linear:
    assert isinstance(distillation.parameters, Linear)
    return distillation.parameters


def bits(distillation: Distillation) -> bytes:
    file = io.BytesIO()
    state = distillation.state()
    torch.save([state["parameters"], state["outer_optimizer"], state["clipping"]], file)
    return file.getvalue()


# --- the budget


@pytest.mark.parametrize("learn_labels", [False, True])
@pytest.mark.parametrize("downsample", [1, 2, 4])
@pytest.mark.parametrize(("dataset", "ipc"), TABLE_1)
def test_a_linear_set_takes_no_more_than_the_budget_and_one_base_more_would(
    dataset: str, ipc: int, downsample: int, learn_labels: bool
) -> None:
    settings = {"dataset": dataset, "ipc": ipc, "learn_labels": learn_labels}
    linear = {"parameterization": "linear", "basis_downsample": downsample}
    images = images_per_class(resolve({**settings, **linear}))
    budget = nominal_budget(dataset, 0, ipc, learn_labels, downsample)
    bases = budget.bases(0, images)
    classes, channels, side = SHAPES[dataset]
    stored_labels = classes if learn_labels else 0
    allowed = classes * ipc * (channels * side**2 + stored_labels)

    def takes(bases: int) -> int:
        numbers = bases * channels * (side // downsample) ** 2 + classes * images * bases
        return numbers + classes * images * stored_labels

    assert images > ipc
    assert bases >= 1
    assert budget.floats == allowed
    assert budget.linear(bases, images) == takes(bases) <= allowed < takes(bases + 1)
    with pytest.raises(ValueError, match=f"the budget of {allowed}: .*; {bases} bases of"):
        budget.bases(bases + 1, images)


def test_the_budget_holds_what_the_published_command_of_9_stores() -> None:
    # 16 bases of half the height and width; with these its code takes 115 images per class.
    budget = nominal_budget("cifar10", 0, 1, False, basis_downsample=2)
    assert budget.most_bases(115) == 16
    assert budget.most_bases(116) == 15


def test_the_shapes_behind_the_budget_are_those_of_the_data(digits: TargetSet) -> None:
    assert SHAPES["digits"] == (len(digits.classes), digits.image_shape[0], digits.image_shape[1])


@pytest.mark.parametrize("downsample", [1, 2, 4])
@pytest.mark.parametrize("learn_labels", [False, True])
def test_the_storage_of_a_set_is_the_numbers_that_are_learned(
    config: RunConfig, digits: TargetSet, learn_labels: bool, downsample: int
) -> None:
    config = replace(config, learn_labels=learn_labels, basis_downsample=downsample)
    labels = 10 * 3 * 10 if learn_labels else 0
    budget = Budget(10, (1, 8, 8), 2, learn_labels, downsample)
    base = 64 // downsample**2
    for asked, bases in ((0, budget.most_bases(3)), (4, 4)):
        parameters = Distillation(replace(config, basis_images=asked), digits).parameters
        assert parameters.storage_floats == bases * base + 30 * bases + labels <= budget.floats
    pixels = Distillation(replace(config, parameterization="pixels"), digits).parameters
    assert pixels.storage_floats == budget.floats


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"basis_images": 28, "basis_downsample": 2},
            "takes 1288 floats, more than the budget of 1280: that of ipc=2 for 10 classes of"
            " images of 64 floats; 27 bases of 16 floats fit",
        ),
        ({"basis_images": 14, "basis_downsample": 1}, "13 bases of 64 floats fit"),
        ({"decoded_ipc": 200}, "no base of 16 floats fits beside so many images"),
        ({"basis_downsample": 3}, "basis_downsample=3 does not divide images of 8x8"),
        ({"basis_downsample": 16}, "basis_downsample=16 does not divide images of 8x8"),
        ({"basis_downsample": 8}, "basis_downsample=8 leaves bases of a single pixel"),
    ],
)
def test_what_does_not_fit_the_data_at_hand_is_refused(
    config: RunConfig, digits: TargetSet, changed: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        Distillation(replace(config, **changed), digits)  # type: ignore[arg-type]


# --- enlarging


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_enlarging_is_torch_s_bilinear_and_its_transpose_the_gradient_of_that(factor: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    expected = F.interpolate(images, scale_factor=factor, mode="bilinear", align_corners=False)
    of_enlarged = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(expected, images, of_enlarged)
    torch.testing.assert_close(enlarge(images.detach(), factor), expected.detach())
    torch.testing.assert_close(enlarge_transposed(of_enlarged, factor), gradient)


# --- the set and its meta-gradient


@pytest.mark.parametrize("downsample", [1, 2, 4])
def test_decoded_images_begin_with_norm_one_and_lie_class_by_class(
    config: RunConfig, digits: TargetSet, downsample: int
) -> None:
    distillation = Distillation(replace(config, basis_downsample=downsample), digits)
    assert distillation.images.shape == (30, 1, 8, 8)
    norms = distillation.images.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-5, atol=0)
    bases = linear(distillation).bases
    assert len(bases) == {1: 13, 2: 27, 4: 37}[downsample]
    assert bases.shape[1:] == (1, 8 // downsample, 8 // downsample)
    rank = torch.linalg.matrix_rank(distillation.images.flatten(1), tol=1e-5)
    assert rank == min(len(bases), bases[0].numel())
    assert distillation.labels.argmax(dim=1).tolist() == [c for c in range(10) for _ in range(3)]


@pytest.mark.parametrize("downsample", [1, 2, 4])
def test_enlarged_bases_begin_with_the_norm_of_an_image(
    config: RunConfig, digits: TargetSet, downsample: int
) -> None:
    distillation = Distillation(replace(config, basis_downsample=downsample), digits)
    norms = enlarge(linear(distillation).bases, downsample).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-5, atol=0)


@pytest.mark.parametrize("downsample", [1, 2, 4])
def test_the_meta_gradient_of_bases_and_coefficients_is_that_of_finite_differences(
    config: RunConfig, digits: TargetSet, downsample: int
) -> None:
    # bptt: the warm-up, through which no gradient flows, is empty.
    smooth = {"method": "bptt", "inner_optimizer": "sgd", "inner_lr": 0.1}
    config = replace(config, **smooth, basis_downsample=downsample)
    distillation = Distillation(config, digits)
    parameters = linear(distillation)
    window = distillation.window(0)
    learned, of_labels = parameters.gradients(0, distillation.meta_gradient(window))
    assert of_labels == []
    assert [part is learned[k][0] for k, part in enumerate(parameters.learned)] == [True, True]

    def loss(moved: Tensor, by: Tensor) -> float:
        before = moved.clone()
        moved += by
        value = distillation.meta_gradient(window).outer_loss.item()
        moved.copy_(before)
        return value

    generator = torch.Generator().manual_seed(0)
    for part, gradient in learned:
        for _ in range(3):
            direction = torch.randn(part.shape, generator=generator, dtype=torch.float64)
            slope = (gradient * direction).sum().item()
            h = 1e-7  # so near, no ReLU turns: a larger step met one
            difference = (loss(part, h * direction) - loss(part, -h * direction)) / (2 * h)
            assert difference == pytest.approx(slope, rel=1e-5)
            assert abs(slope) > 1e-6


@pytest.mark.parametrize("downsample", [1, 2, 4])
def test_the_meta_gradient_is_the_pixel_gradient_taken_through_the_map(
    config: RunConfig, digits: TargetSet, downsample: int
) -> None:
    config = replace(config, learn_labels=True, basis_downsample=downsample)
    distillation = Distillation(config, digits)
    distillation.outer_step()
    gradient = distillation.meta_gradient(distillation.window(1))
    parameters = linear(distillation)
    leaves = [part.clone().requires_grad_() for part in (parameters.bases, parameters.coefficients)]
    images = torch.einsum("nk,kchw->nchw", leaves[1], leaves[0])
    images = F.interpolate(images, scale_factor=downsample, mode="bilinear", align_corners=False)
    torch.testing.assert_close(parameters.at(1)[0], images.detach(), rtol=1e-12, atol=1e-15)
    expected = torch.autograd.grad(images, leaves, gradient.images)
    of_images, [(_, of_labels)] = parameters.gradients(1, gradient)
    found = [of_part for _, of_part in of_images]
    torch.testing.assert_close(found, list(expected), rtol=1e-12, atol=1e-15)
    assert gradient.labels is not None
    assert torch.equal(of_labels, gradient.labels)


def test_the_gradient_of_what_is_learned_is_conditioned_and_that_of_images_recorded_beside_it(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(replace(config, clipping="unit_norm"), digits)
    gradient = distillation.meta_gradient(distillation.window(0))
    of_images = gradient.images.flatten(1).norm(dim=1).mean().item()
    parts = [part.flatten() for _, part in distillation.parameters.gradients(0, gradient)[0]]
    record, applied = step_and_applied(distillation)
    assert record.gradient_norm == pytest.approx(torch.cat(parts).norm().item(), rel=1e-12)
    assert record.image_gradient_norm == pytest.approx(of_images, rel=1e-12)
    assert applied.norm().item() == pytest.approx(1, rel=1e-12)


# --- checkpoints, process groups, files


@pytest.mark.parametrize("learn_labels", [False, True])
def test_a_linear_set_goes_on_from_a_checkpoint_bit_for_bit(
    config: RunConfig, digits: TargetSet, learn_labels: bool
) -> None:
    config = replace(config, learn_labels=learn_labels)
    whole, resumed, stopped = resumed_halfway(config, digits)
    assert bits(resumed) == bits(whole) != bits(stopped)


class Incomplete(Exception):
    """A process has computed its replica, and waits for the others."""


class Member(SingleProcess):
    """One of several processes, each with one replica, in one outer step. Without `gathered`, which
    holds the rows of all, it raises `Incomplete` with its own row."""

    def __init__(self, rank: int, gathered: Tensor | None = None) -> None:
        self.rank, self.gathered = rank, gathered

    def share(self, replicas: int) -> range:
        return range(self.rank, self.rank + 1)

    def gather(self, values: Tensor) -> Tensor:
        if self.gathered is None:
            raise Incomplete(values)
        assert torch.equal(values, self.gathered[self.rank : self.rank + 1])
        return self.gathered


@pytest.mark.parametrize(
    "kind",
    [
        {"parameterization": "linear", "learn_labels": True},
        {"parameterization": "pixels", "boost_block": 1, "boost_beta": 0.5},
        {"parameterization": "idc", "learn_labels": True},
        {"parameterization": "haba"},
    ],
    ids=["linear", "boosted", "idc", "haba"],
)
def test_every_process_of_a_group_holds_the_bits_of_one_process(
    config: RunConfig, digits: TargetSet, kind: dict[str, object]
) -> None:
    config = replace(config, replicas=2, **kind)  # type: ignore[arg-type]
    alone, *members = (Distillation(config, digits) for _ in range(3))
    for _ in range(config.outer_steps):
        alone.outer_step()
        rows = []
        for rank, member in enumerate(members):
            member.replicas = Replicas(2, Member(rank))
            with pytest.raises(Incomplete) as incomplete:
                member.outer_step()
            rows.append(incomplete.value.args[0])
        for rank, member in enumerate(members):
            member.replicas = Replicas(2, Member(rank, torch.cat(rows)))
            member.outer_step()
    assert bits(members[0]) == bits(members[1]) == bits(alone)


def test_a_linear_run_states_its_storage_beside_its_budget_and_stores_decoded_images(
    config: RunConfig, cache_root: Path, tmp_path: Path
) -> None:
    config = replace(config, precision="float32")
    folder, environment = (
        Store(tmp_path).run(config),
        Environment(cache_root=str(cache_root), threads=1),
    )
    folder.create(config)
    result = execute(folder, environment, Console(config))
    stored = load_distilled_set(folder.path / "distilled.safetensors")
    assert stored.images.shape == (30, 1, 8, 8)
    assert stored.labels is not None
    for told in (result, stored.metadata):
        assert (told["storage_floats"], told["budget_floats"]) == (27 * (16 + 30), 1280)
    evaluation = evaluate(
        config,
        load_data(config, environment, torch.device("cpu")),
        stored.images,
        stored.labels,
        networks=config.evaluation_networks,
        steps=config.evaluation_steps,
        purpose="evaluation",
    )
    assert evaluation.summary(config.selection) == result["evaluation"]
