"""The outer loop of one run: Algorithm 1, its draws, its checkpoints."""

import io
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation
from bench.distillation.outer_optimizers import whole_norm
from bench.distillation.replicas import replica_config
from bench.evaluation.fresh_networks import evaluate
from bench.metagrad import make_derivatives
from bench.training.batches import InnerBatches, target_batch
from methods import Window
from tests.bench.distillation.applied import coming_problem, step_and_applied
from tests.bench.distillation.steps import recorded, same_state
from tests.bench.published_form import published_meta_gradient


@pytest.mark.parametrize("method", ["rat_bptt", "r_bptt", "backward_window"])
def test_a_checkpoint_continues_bit_for_bit(
    config: RunConfig, digits: TargetSet, method: str
) -> None:
    options = {"patience": 2} if method == "backward_window" else {}
    if method == "r_bptt":
        options = {"min_length": 0}
    config = replace(
        config, method=method, method_options=options, learn_labels=True, augment_inner="rotate"
    )
    whole = Distillation(config, digits)
    records = recorded(whole, 6)
    first = Distillation(config, digits)
    recorded(first, 3)
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    second = Distillation(config, digits)
    second.load_state(torch.load(file, weights_only=True))
    assert recorded(second, 3) == records[3:]
    assert same_state(second.state(), whole.state())


def test_methods_with_the_same_seed_see_the_same_draws(
    config: RunConfig, digits: TargetSet
) -> None:
    one = Distillation(replace(config, method="t_bptt"), digits)
    other = Distillation(replace(config, method="bptt"), digits)
    recorded(one, 2)
    recorded(other, 2)
    assert torch.equal(
        target_batch(one.config, digits.train, 2)[0], target_batch(other.config, digits.train, 2)[0]
    )
    for name, value in coming_problem(one).parameters.items():
        assert torch.equal(value, coming_problem(other).parameters[name])


def test_each_outer_step_and_each_seed_has_draws_of_its_own(
    config: RunConfig, digits: TargetSet
) -> None:
    batches = [target_batch(config, digits.train, step)[0] for step in range(2)]
    other_seed = target_batch(replace(config, seed=1), digits.train, 0)[0]
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], other_seed)


def test_a_random_window_stays_for_redraw_every_outer_steps(
    config: RunConfig, digits: TargetSet
) -> None:
    config = replace(config, unroll_length=40, window_resample_every=5)
    distillation = Distillation(config, digits)
    windows = [distillation.window(step) for step in range(50)]
    assert all(len(set(windows[k : k + 5])) == 1 for k in range(0, 50, 5))
    assert len(set(windows)) > 5


def test_only_learned_labels_change_and_stay_at_least_zero(
    config: RunConfig, digits: TargetSet
) -> None:
    fixed = Distillation(config, digits)
    learned = Distillation(replace(config, learn_labels=True, outer_lr=0.3), digits)
    before = fixed.labels.clone()
    recorded(fixed, 2)
    recorded(learned, 2)
    assert torch.equal(fixed.labels, before)
    assert not torch.equal(learned.labels, before)
    assert learned.labels.min() >= 0


def test_the_recorded_norms_are_those_of_the_gradient(config: RunConfig, digits: TargetSet) -> None:
    distillation = Distillation(config, digits)
    gradient = distillation.engine.meta_gradient(
        coming_problem(distillation),
        distillation.window(0),
        *target_batch(config, digits.train, 0),
    )
    record = distillation.outer_step()
    assert record.gradient_norm == pytest.approx(gradient.images.norm().item(), rel=1e-6)
    each = [image.norm().item() for image in gradient.images]
    assert record.image_gradient_norm == pytest.approx(sum(each) / len(each), rel=1e-6)
    assert record.outer_loss == pytest.approx(gradient.outer_loss.item())


@pytest.mark.parametrize("learn_labels", [False, True])
def test_under_unit_norm_the_gradient_that_is_applied_has_norm_one(
    config: RunConfig, digits: TargetSet, learn_labels: bool
) -> None:
    config = replace(config, clipping="unit_norm", learn_labels=learn_labels)
    distillation = Distillation(config, digits)
    learned = [distillation.images, distillation.labels][: 1 + learn_labels]
    for _ in range(3):
        record, applied = step_and_applied(distillation)
        assert abs(record.gradient_norm - 1) > 1e-3
        assert applied.numel() == sum(part.numel() for part in learned)
        assert applied.norm().item() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("kind", ["pixels", "boosted", "linear", "idc", "haba"])
@pytest.mark.parametrize("clipped", ["images", "all"])
def test_clipping_scales_the_gradient_of_the_images_and_that_of_labels_only_if_asked(
    config: RunConfig, digits: TargetSet, clipped: str, kind: str
) -> None:
    kinds = {
        "pixels": {},
        "boosted": {"boost_block": 1, "boost_beta": 0.5},
        "linear": {"parameterization": "linear", "basis_downsample": 1, "decoded_ipc": 2},
        "idc": {"parameterization": "idc"},
        "haba": {"parameterization": "haba"},
    }
    config = replace(config, ipc=2, clipping="unit_norm", learn_labels=True, clipped=clipped)
    distillation = Distillation(replace(config, **kinds[kind]), digits)
    distillation.outer_step()
    gradient = distillation.meta_gradient(distillation.window(1))
    of_images, of_labels = distillation.parameters.gradients(1, gradient)
    images, labels = (
        torch.cat([part.flatten() for _, part in parts]) for parts in (of_images, of_labels)
    )
    record, applied = step_and_applied(distillation)
    whole = torch.cat([images, labels]).norm().item()
    limited = whole if clipped == "all" else images.norm().item()
    assert record.gradient_norm == pytest.approx(whole, rel=1e-5)
    assert record.clipped_norm == pytest.approx(limited, rel=1e-5)
    assert record.clip_factor == pytest.approx(1 / limited, rel=1e-5)
    assert labels.norm() > 0.01 * whole
    of_labels_applied = labels / limited if clipped == "all" else labels
    expected = torch.cat([images / limited, of_labels_applied])
    torch.testing.assert_close(applied, expected, rtol=1e-4, atol=1e-7)


def test_without_learned_labels_both_ways_of_clipping_are_one_bit_for_bit(
    config: RunConfig, digits: TargetSet
) -> None:
    one, other = (
        Distillation(replace(config, clip_ratio=1.05, clipped=clipped), digits)
        for clipped in ("images", "all")
    )
    records = recorded(one, 4)
    assert records == recorded(other, 4)
    assert same_state(one.state(), other.state())


def test_the_average_of_clipping_is_that_of_what_is_clipped(
    config: RunConfig, digits: TargetSet
) -> None:
    config = replace(config, learn_labels=True, clipped="images", clip_ratio=1.05)
    distillation, average = Distillation(config, digits), None
    for _ in range(5):
        record = distillation.outer_step()
        norm = record.clipped_norm
        average = norm if average is None else 0.9 * average + 0.1 * norm
        assert record.clip_factor == pytest.approx(min(1, 1.05 * average / norm), rel=1e-6)
        assert norm < record.gradient_norm  # which counts the labels


def test_clipping_at_1_05_bounds_the_gradient_that_is_applied(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(replace(config, clip_ratio=1.05), digits)
    average, clipped = None, 0
    for _ in range(12):
        record, applied = step_and_applied(distillation)
        norm = record.gradient_norm
        average = norm if average is None else 0.9 * average + 0.1 * norm
        assert applied.norm().item() == pytest.approx(min(norm, 1.05 * average), rel=1e-4)
        clipped += norm > 1.06 * average
    assert clipped


def test_the_norm_of_the_whole_gradient_counts_learned_labels() -> None:
    images, labels = torch.full((4,), 1.5), torch.full((1,), 4.0)
    assert whole_norm([(images, images), (labels, labels)]).item() == 5.0


@pytest.mark.parametrize(("inner_classes", "inner_ipc"), [(3, 2), (0, 1), (5, 1)])
def test_inner_batches_hold_the_asked_classes_and_images(
    config: RunConfig, inner_classes: int, inner_ipc: int
) -> None:
    config = replace(config, ipc=4, inner_classes=inner_classes, inner_ipc=inner_ipc)
    asked = inner_classes or 10
    images = torch.arange(40.0)[:, None, None, None].expand(40, 1, 2, 2)
    labels = torch.eye(10).repeat_interleave(4, dim=0)
    batches = InnerBatches(config, 10, "none", "inner", (0,))
    seen = set()
    for t in range(60):
        batch_images, batch_labels = batches(t, images, labels)
        counts = batch_labels.sum(dim=0)
        assert sorted(counts.tolist()) == [0.0] * (10 - asked) + [inner_ipc] * asked
        numbers = batch_images[:, 0, 0, 0]
        assert len(set(numbers.tolist())) == asked * inner_ipc
        assert torch.equal((numbers // 4).long(), batch_labels.argmax(dim=1))
        again, _ = batches(t, images, labels)
        assert torch.equal(again, batch_images)
        seen |= set(numbers.tolist())
    assert len(seen) == 40


def test_the_outer_loss_is_that_of_the_configuration(config: RunConfig, digits: TargetSet) -> None:
    distillation = Distillation(replace(config, outer_loss="mse"), digits)
    cross_entropy = Distillation(config, digits)
    assert distillation.sample_variance() != cross_entropy.sample_variance()
    window, batch = distillation.window(0), target_batch(config, digits.train, 0)
    network = make_derivatives(distillation.network)
    problem = coming_problem(distillation)
    theta = network.flatten(problem.parameters)
    state = problem.optimizer.initial_state(theta)
    for t in range(window.stop):
        gradient, _ = network.gradient(
            theta, *problem.inner_batch(t, problem.images, problem.labels)
        )
        theta, state = problem.optimizer.step(theta, gradient / len(problem.images), state, t)
    one_hot = F.one_hot(batch[1], 10).to(batch[0])
    expected = F.mse_loss(network.logits(theta, batch[0]), one_hot).item()
    assert distillation.outer_step().outer_loss == pytest.approx(expected, rel=1e-4)
    assert cross_entropy.outer_step().outer_loss != pytest.approx(expected, rel=1e-2)


def test_fresh_networks_are_trained_alike_whatever_the_outer_loss(
    config: RunConfig, digits: TargetSet
) -> None:
    images, labels = Distillation(config, digits).images, Distillation(config, digits).labels
    tests = [
        evaluate(changed, digits, images, labels, networks=2, steps=[5], purpose="test").test
        for changed in (config, replace(config, outer_loss="mse"))
    ]
    assert torch.equal(*tests)


def test_windows_reach_the_engine_as_the_method_names_them(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(replace(config, method="t_bptt", unroll_length=7), digits)
    record = distillation.outer_step()
    assert Window(record.window_start, record.window_stop) == Window(5, 7)


@pytest.mark.parametrize("engine", ["exact", "higher"])
@pytest.mark.parametrize("method", ["backward_window", "rat_bptt", "growing_bptt"])
def test_a_run_in_the_published_form_takes_the_meta_gradients_of_the_published_code(
    config: RunConfig, digits: TargetSet, method: str, engine: str
) -> None:
    """With learned labels, inner batches of their own, and two replicas."""
    options = {"backward_window": {"patience": 1}, "growing_bptt": {"grow_steps": 3}}
    config = replace(
        config,
        method=method,
        method_options=options.get(method, {}),
        engine=engine,
        precision="float64",
        inner_eps=1e-4,  # with 1e-8 a window from step 0 on enlarges rounding to 1e-9
        inner_eps_form="published",
        learn_labels=True,
        augment_inner="flip_or_rotate",
        inner_classes=6,
        replicas=2,
    )
    double = digits.to("cpu", torch.float64)
    distillation = Distillation(config, double)
    windows = set()
    for step in range(6):
        window = distillation.window(step)
        windows.add(window)
        answers = [
            published_meta_gradient(
                coming_problem(distillation, r),
                window,
                target_batch(replica_config(config, r), double.train, step),
            )
            for r in range(2)
        ]
        record = distillation.outer_step()
        images = torch.stack([each.images for each in answers]).mean(dim=0)
        labels = torch.stack([each.labels for each in answers if each.labels is not None])
        norm = torch.cat([images.flatten(), labels.mean(dim=0).flatten()]).norm().item()
        assert record.gradient_norm == pytest.approx(norm, rel=1e-10)
        losses = [each.outer_loss.item() for each in answers]
        assert record.outer_loss == pytest.approx(sum(losses) / 2, rel=1e-12)
    assert len(windows) > 1
    assert max(window.start for window in windows) > 0 or method == "growing_bptt"


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_step_asks_once_for_its_window_and_its_images(
    config: RunConfig, digits: TargetSet, replicas: int
) -> None:
    distillation = Distillation(replace(config, replicas=replicas), digits)
    method, parameters = distillation.method, distillation.parameters
    with (
        patch.object(method, "next_window", wraps=method.next_window) as windows,
        patch.object(parameters, "at", wraps=parameters.at) as images,
    ):
        distillation.outer_step()
    assert (windows.call_count, images.call_count) == (1, 1)


def test_a_variant_takes_the_steps_of_another_configuration_on_the_same_set(
    config: RunConfig, digits: TargetSet
) -> None:
    other = replace(config, method="bptt", target_batch=8)
    expected = Distillation(other, digits)
    distillation = Distillation(config, digits)
    variant = distillation.variant(other, expected.method, activation_budget=1 << 20)
    assert recorded(variant, 1) == recorded(expected, 1)
    assert torch.equal(variant.images, distillation.images)
    assert (distillation.step, variant.step) == (0, 1)
    assert distillation.config is config
    assert distillation.method is not variant.method
