"""Images that are decoded from what is stored: parts of images (`idc`), bases and hallucinators
(`haba`)."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import bench.evaluate
from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import Environment, RunConfig
from bench.config.storage_budget import Budget
from bench.data import TargetSet, load_target_set
from bench.distillation import hallucinators, parts
from bench.distillation.outer_loop import Distillation
from bench.distillation.parameterization import Decoded
from bench.evaluation.distilled_set import load_distilled_set
from bench.evaluation.fresh_networks import evaluate
from bench.run import Console
from bench.runs.execute import execute
from bench.runs.run_folder import Store
from bench.system.errors import UserError
from bench.training.batches import images_of_each_class
from bench.training.randomness import torch_generator
from tests.bench.distillation.steps import resumed_halfway

KINDS = ("idc", "haba")
every_kind = pytest.mark.parametrize("kind", KINDS)
# The smallest set of each kind on digits.
IPC = {"idc": 1, "haba": 2}
IMAGES = {"idc": 4, "haba": 5}  # per class


@pytest.fixture(scope="module")
def digits(cache_root: Path) -> TargetSet:
    data = load_target_set("digits", data_root=cache_root, cache_root=cache_root)
    return data.to("cpu", torch.float64)


Make = Callable[..., RunConfig]


@pytest.fixture
def make(tiny: list[str]) -> Make:
    """`make("idc", init="real")`: a tiny run."""

    def configuration(kind: str, **settings: Any) -> RunConfig:
        given = {**parse(tiny, RunConfig), "precision": "float64", "ipc": IPC[kind]}
        if "objective" in settings:
            del given["window_size"], given["unroll_length"]
        return single_run("quick", {**given, "parameterization": kind, **settings})

    return configuration


def stored(run: Distillation) -> Decoded:
    assert isinstance(run.parameters, Decoded)
    return run.parameters


# --- the set at its beginning


@every_kind
@pytest.mark.parametrize("init", ["noise", "real"])
def test_decoded_images_begin_with_norm_one_and_lie_class_by_class(
    make: Make, digits: TargetSet, kind: str, init: str
) -> None:
    run = Distillation(make(kind, init=init), digits)
    assert run.images.shape == (10 * IMAGES[kind], 1, 8, 8)
    norms = run.images.flatten(1).norm(dim=1).unflatten(0, (10, -1))
    if kind == "idc":
        torch.testing.assert_close(norms, torch.ones_like(norms))
    else:  # of each hallucinator, over the bases
        of_each = norms.square().mean(dim=0).sqrt()
        torch.testing.assert_close(of_each, torch.ones_like(of_each))
    classes = [c for c in range(10) for _ in range(IMAGES[kind])]
    assert run.labels.argmax(dim=1).tolist() == classes
    assert run.labels.sum() == len(classes)


def test_parts_begin_as_real_images_of_their_class(make: Make, digits: TargetSet) -> None:
    run = Distillation(make("idc", init="real", init_norm=0), digits)
    train = digits.train
    generator = torch_generator(run.config.seed, "distilled_images/real")
    real = train.images[images_of_each_class(train, 10, 4, generator)]
    small = parts.cut(stored(run).stored["images"], 2)
    assert torch.equal(small, real[:, :, ::2, ::2])


# --- its gradient

SMOOTH = {"method": "bptt", "inner_optimizer": "sgd", "inner_lr": 0.1}  # no warm-up, no Adam


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("idc", {**SMOOTH, "learn_labels": True}),
        ("idc", {"objective": "dm", "init": "real", "init_norm": 0}),
        ("haba", {**SMOOTH, "learn_labels": True}),
        ("haba", {"objective": "dm", "init": "real", "init_norm": 0}),
    ],
)
def test_the_gradient_of_all_that_is_learned_is_that_of_finite_differences(
    make: Make, digits: TargetSet, kind: str, settings: dict[str, Any]
) -> None:
    run = Distillation(make(kind, **settings), digits)
    run.outer_step()  # shifts are then no longer 0
    window = run.window(1)
    of_images, of_labels = run.parameters.gradients(1, run.meta_gradient(window))
    learned = [*of_images, *of_labels]
    assert [part for part, _ in learned] == run.parameters.groups()[0]
    generator = torch.Generator().manual_seed(0)
    for part, gradient in learned:
        assert gradient.shape == part.shape
        direction = torch.randn(part.shape, generator=generator, dtype=torch.float64)
        before, h = part.clone(), 1e-6 * part.abs().mean().item()
        ends = []
        for sign in (1, -1):
            part.copy_(before + sign * h * direction)
            ends.append(run.meta_gradient(window).outer_loss.item())
        part.copy_(before)
        slope = (gradient * direction).sum().item()
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(slope, rel=1e-4)
        assert abs(slope) > 1e-5 * gradient.norm().item()


@every_kind
def test_the_gradient_is_that_of_the_images_taken_through_the_map(
    make: Make, digits: TargetSet, kind: str
) -> None:
    run = Distillation(make(kind, learn_labels=True), digits)
    gradient = run.meta_gradient(run.window(0))
    assert gradient.labels is not None
    own = stored(run)
    leaves = {name: part.clone().requires_grad_() for name, part in own.stored.items()}
    if kind == "idc":
        images = torch.cat(
            [
                F.interpolate(
                    leaves["images"][n : n + 1, :, i : i + 4, j : j + 4],
                    scale_factor=2,
                    mode="bilinear",
                )
                for n in range(10)
                for i in (0, 4)
                for j in (0, 4)
            ]
        )
    else:
        images = hallucinators.decode(**leaves)
    expected = torch.autograd.grad(images, list(leaves.values()), gradient.images)
    of_images, [(_, of_labels)] = own.gradients(0, gradient)
    torch.testing.assert_close([found for _, found in of_images], list(expected))
    rows = gradient.labels.split(IMAGES[kind])
    torch.testing.assert_close(of_labels, torch.stack([row.sum(dim=0) for row in rows]))


# --- storage


@every_kind
@pytest.mark.parametrize("learn_labels", [False, True])
def test_the_storage_of_a_set_is_the_numbers_that_are_learned(
    make: Make, digits: TargetSet, kind: str, learn_labels: bool
) -> None:
    config = make(kind, learn_labels=learn_labels, ipc=3)
    parameters = Distillation(config, digits).parameters
    learned = sum(part.numel() for group in parameters.groups() for part in group)
    budget = Budget(10, (1, 8, 8), 3, learn_labels)
    labels = 10 * 10 if learn_labels else 0  # for one stored image or base per class
    if kind == "idc":
        expected = 3 * (10 * 64 + labels)
        assert expected == budget.floats
    else:
        expected = 2 * (10 * 64 + labels) + 5 * (9 + 1 + 2 * 36 + 9 + 1)
        assert expected == budget.haba(2, 5, False) <= budget.floats < budget.haba(3, 5, False)
    assert parameters.storage_floats == learned == expected


def test_what_does_not_fit_the_data_at_hand_is_refused(make: Make, digits: TargetSet) -> None:
    with pytest.raises(UserError, match="haba_bases=1 fits"):
        Distillation(replace(make("haba"), haba_bases=2), digits)
    with pytest.raises(UserError, match="idc_factor=3 does not divide images of 8x8"):
        Distillation(replace(make("idc"), idc_factor=3), digits)


# --- a whole run


@every_kind
@pytest.mark.parametrize(
    "settings", [{}, {"learn_labels": True, "replicas": 2}, {"objective": "dc"}]
)
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(
    make: Make, digits: TargetSet, kind: str, settings: dict[str, Any]
) -> None:
    if "objective" in settings:
        options = {"outer_steps_per_network": 3, "network_steps": 1, "real_ipc": 5}
        settings = {**settings, "objective_options": options}
    config = make(kind, **settings)
    whole, resumed, stopped = resumed_halfway(config, digits)
    states = [copy.deepcopy(run.parameters.state()) for run in (whole, resumed, stopped)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    moved = [name for name in states[0] if not torch.equal(states[0][name], states[2][name])]
    assert moved == [name for name in states[0] if name != "labels" or config.learn_labels]


@every_kind
def test_a_run_stores_decoded_images_beside_its_storage_and_is_evaluated_from_its_folder(
    make: Make, cache_root: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make(kind, precision="float32", learn_labels=True, scores=True, full_train_steps=[3])
    environment = Environment(cache_root=str(cache_root), threads=1)
    folder = Store(tmp_path).run(config)
    folder.create(config)
    result = execute(folder, environment, Console(config))
    images = load_distilled_set(folder.path / "distilled.safetensors")
    assert images.images.shape == (10 * IMAGES[kind], 1, 8, 8)
    assert images.labels is not None
    assert images.labels.shape == (10 * IMAGES[kind], 10)
    storage = {"idc": (740, 740), "haba": (740 + 460, 1480)}[kind]
    for record in (result, images.metadata):
        assert (record["storage_floats"], record["budget_floats"]) == storage
    assert (folder.path / "distilled.png").stat().st_size > 0
    assert result["scores"]
    capsys.readouterr()
    own = [f"cache_root={cache_root}", f"results_root={tmp_path}"]
    assert bench.evaluate.main([f"distilled={folder.path}", *own]) == 0
    assert "warning" not in capsys.readouterr().out
    (path,) = (tmp_path / "evaluations").iterdir()
    assert json.loads(path.read_text())["evaluation"] == result["evaluation"]


UNROLLED = {"unroll_length": 15, "window_size": 6, "outer_lr": 0.03, "target_batch": 128}
MATCHING = {
    **{"objective": "dm", "objective_options": {"real_ipc": 32, "augmentation": "none"}},
    **{"init_norm": 0, "clipping": "none"},
    **{"outer_optimizer": "sgd", "outer_momentum": 0.5, "outer_lr": 2.0},
}


@pytest.mark.parametrize(
    ("kind", "settings", "steps"), [("idc", UNROLLED, 25), ("haba", MATCHING, 40)]
)
def test_a_distilled_set_beats_real_images_that_take_the_same_storage(
    digits: TargetSet, kind: str, settings: dict[str, Any], steps: int
) -> None:
    data = digits.to("cpu", torch.float32)
    small = {"width": 16, "depth": 1, "variance_every": 0}
    shared = {"parameterization": kind, "ipc": IPC[kind], "init": "real"}
    config = single_run("quick", {**shared, **small, **settings})
    run = Distillation(config, data)
    for _ in range(steps):
        run.outer_step()
    generator = torch_generator(0, "real")
    positions = images_of_each_class(data.train, 10, config.ipc, generator)
    real = data.train.images[positions], torch.eye(10).repeat_interleave(config.ipc, dim=0)
    ours, theirs = (
        evaluate(config, data, *one, networks=3, steps=[30], purpose="evaluation").test.mean()
        for one in ((run.images, run.labels), real)
    )
    assert ours > theirs + 0.1  # seen, with two seeds: by 0.20 and more, and 0.16 and more
