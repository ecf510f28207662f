"""The floor: operations and bytes of the exact engine, counted by hand and by torch."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.metagrad import make_derivatives, make_engine
from bench.speed.rates import Rates
from bench.speed.roofline import Cost, cost, cost_of_an_image, layers
from bench.speed.work import Work, make_network, make_work
from methods import Window
from tests.bench.speed.machine import GIB

CPU = torch.device("cpu")
SMALL = Work(width=4, images=4, window=2, target_batch=4)


def test_convnet_3_takes_50_7_million_multiply_adds_an_image() -> None:
    forward = sum(layer.multiply_adds for layer in layers(Work(width=128)))
    by_hand = 9 * 3 * 128 * 32**2 + 9 * 128**2 * (16**2 + 8**2) + 10 * 128 * 4**2
    assert forward == by_hand == 50_745_344


@pytest.mark.parametrize("work", [Work(width=8), Work(width=3, depth=2)], ids=str)
def test_the_exact_engine_does_the_operations_of_the_floor(work: Work) -> None:
    problem, _ = make_work(replace(work, images=1), CPU, torch.float32)
    derivatives = make_derivatives(make_network(work))
    theta = derivatives.flatten(problem.parameters)
    with FlopCounterMode(display=False) as training:
        derivatives.gradient(theta, problem.images, problem.labels)
    linearization = derivatives.linearize(theta, problem.images, problem.labels)
    with FlopCounterMode(display=False) as product:
        linearization.hvp(theta.unsqueeze(0))
    counted = [float(counter.get_total_flops()) for counter in (training, product)]
    assert counted == [part.operations for part in cost_of_an_image(work)]


def test_a_whole_outer_step_does_the_operations_of_the_floor() -> None:
    work = replace(SMALL, warm_up=1)
    problem, target = make_work(work, CPU, torch.float32)
    engine = make_engine("exact", activation_budget=GIB)
    engine.meta_gradient(problem, Window(0, 1), *target)  # it measures its activations once
    with FlopCounterMode(display=False) as counter:
        engine.meta_gradient(problem, Window(work.warm_up, work.inner_steps), *target)
    assert counter.get_total_flops() == cost(work).operations


def test_each_pass_over_a_map_is_counted_once() -> None:
    work = Work(width=1, depth=1)
    image, maps, pooled = 3 * 32**2, 32**2, 16**2
    training, product = cost_of_an_image(work)
    # convolution: x -> y; gy, x -> nothing. norm: x -> y; gy, x -> gx. pool: x -> y; gy -> gx.
    # linear: x -> y; gy, x -> gx.
    by_hand = 2 * (image + maps) + 5 * maps + 2 * (maps + pooled) + 3 * pooled + 2 * 10
    assert training.bytes == 4 * by_hand
    # tangents. convolution: x -> ẏ; x, gy, ġy -> ġx. norm: x, ẋ -> ẏ; x, ẋ, gy, ġy -> ġx.
    # pool: ẋ -> ẏ; ġy -> ġx. linear: x, ẋ -> ẏ; x, ẋ, gy, ġy -> ġx.
    by_hand = (2 * image + maps) + (image + 2 * maps) + 8 * maps
    by_hand += 2 * (maps + pooled) + 5 * pooled + 3 * 10
    assert product.bytes == 4 * by_hand


def test_the_floor_is_the_longer_of_computing_and_moving() -> None:
    assert Cost(20, 30).seconds(Rates(10, 10)) == 3
    assert Cost(20, 30).seconds(Rates(10, 30)) == 2
