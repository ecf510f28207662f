"""What a method is told of outer steps and of inner trainings that it asks for."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation
from bench.metagrad import MetaGradient
from bench.training.batches import target_batch
from methods import Probe, StepObservation
from tests.bench.distillation.applied import coming_problem

LISTENING = """
from methods import StatelessMethod, Window


class Listening(StatelessMethod):
    needs_inner_gradients = True
    every = 1

    def __init__(self, unroll_length, window_size):
        super().__init__(unroll_length, window_size)
        self.told = []

    def next_window(self, step, rng):
        return Window(1, self.unroll_length)

    def observe(self, step, outer_loss):
        self.told.append(("loss", step, outer_loss))

    def observe_step(self, observation):
        self.told.append(("step", observation))

    def needs_probe(self, step):
        return step % self.every == 0

    def observe_probe(self, step, probe):
        self.told.append(("probe", step, probe))
"""


@pytest.fixture
def config(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    (tmp_path / "listening.py").write_text(LISTENING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "listening", raising=False)
    given = parse([*tiny, "method=listening:Listening"], RunConfig)
    return replace(single_run("quick", given), variance_every=0)


def told(distillation: Distillation, kind: str) -> list:
    return [item[1:] for item in distillation.method.told if item[0] == kind]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("engine", ["exact", "higher"])
def test_a_step_is_told_with_its_window_norms_and_agreement(
    config: RunConfig, digits: TargetSet, replicas: int, engine: str
) -> None:
    distillation = Distillation(replace(config, replicas=replicas, engine=engine), digits)
    mean = torch.zeros_like(distillation.images)
    for step in range(4):
        gradient = distillation.meta_gradient(distillation.window(step))
        record = distillation.outer_step()
        (observation,) = told(distillation, "step")[-1]
        assert isinstance(observation, StepObservation)
        assert told(distillation, "loss")[-1] == (step, record.outer_loss)
        assert (observation.step, observation.outer_loss) == (step, record.outer_loss)
        window = observation.window
        assert (window.start, window.stop) == (record.window_start, record.window_stop)
        assert observation.gradient_norm == record.gradient_norm
        expected = F.cosine_similarity(gradient.images.flatten(), mean.flatten(), dim=0).item()
        expected = expected if step else math.nan
        assert observation.alignment == pytest.approx(expected, abs=1e-5, nan_ok=True)
        assert gradient.inner_gradient_norms is not None
        assert observation.inner_gradient_norms == gradient.inner_gradient_norms.tolist()
        assert len(observation.inner_gradient_norms) == config.unroll_length
        mean = 0.9 * mean + 0.1 * gradient.images * record.clip_factor


def test_norms_of_inner_gradients_are_computed_only_for_methods_that_want_them(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(replace(config, method="snr_bptt"), digits)
    assert distillation.meta_gradient(distillation.window(0)).inner_gradient_norms is None


def test_a_probe_is_the_inner_training_of_the_coming_step(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(config, digits)
    for step in range(3):
        problem = coming_problem(distillation)
        images, labels = target_batch(config, digits.train, step)
        logits = distillation.engine.train(problem, config.unroll_length, images).logits
        record = distillation.outer_step()
        at, probe = told(distillation, "probe")[-1]
        assert isinstance(probe, Probe)
        assert at == step
        (observation,) = told(distillation, "step")[-1]
        # The window ends where the trajectory does, so both trained the same network.
        assert probe.inner_gradient_norms == pytest.approx(observation.inner_gradient_norms)
        assert probe.outer_loss == pytest.approx(record.outer_loss, rel=1e-5)
        right = (logits.argmax(dim=1) == labels).double().mean().item()
        assert probe.accuracy == pytest.approx(100 * right)


def test_probes_are_made_when_asked_for_and_their_seconds_are_those_of_the_step(
    config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    distillation = Distillation(config, digits)
    monkeypatch.setattr(distillation.method, "every", 2)
    records = [distillation.outer_step() for _ in range(5)]
    assert [step for step, _ in told(distillation, "probe")] == [0, 2, 4]
    assert [record.probe_seconds > 0 for record in records] == [True, False, True, False, True]
    assert all(record.seconds > record.probe_seconds for record in records)


def test_a_probe_before_a_measurement_is_not_made_again_and_counts(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(config, digits)
    distillation.observe_probe()
    before = distillation.observer.probe_seconds
    resumed = Distillation(config, digits)
    resumed.load_state(distillation.state())
    for each, probes in ((distillation, 1), (resumed, 0)):
        each.observe_probe()
        record = each.outer_step()
        assert len(told(each, "probe")) == probes
        assert record.probe_seconds == before
        assert each.outer_step().probe_seconds != before


def test_a_restored_step_does_not_count_the_seconds_of_the_copys_probe(
    config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    distillation = Distillation(replace(config, not_finite="restore"), digits)
    monkeypatch.setattr(distillation.method, "every", 1000)
    distillation.observe_probe()  # before the copy, as a measurement of the variance does
    assert distillation.observer.probe_seconds > 0
    distillation.outer_step()
    real = distillation.engine.meta_gradient

    def broken(*question: Any, **more: Any) -> MetaGradient:
        answer = real(*question, **more)
        return replace(answer, images=answer.images * math.nan)

    with monkeypatch.context() as patch:
        patch.setattr(distillation.engine, "meta_gradient", broken)
        assert not distillation.outer_step().updated
    assert distillation.guard.restorations == 1
    assert distillation.outer_step().probe_seconds == 0


def test_a_gradient_of_zeros_has_no_agreement(config: RunConfig, digits: TargetSet) -> None:
    distillation = Distillation(config, digits)
    distillation.outer_step()
    pairs, _ = distillation.parameters.gradients(
        1, distillation.meta_gradient(distillation.window(1))
    )
    zeros = [(parameter, torch.zeros_like(gradient)) for parameter, gradient in pairs]
    assert math.isnan(distillation.outer_optimizer.alignment(zeros))
    ((parameter, _),) = pairs
    state = distillation.outer_optimizer.state()
    moment = state[0][0]["first"]
    assert distillation.outer_optimizer.alignment([(parameter, moment)]) == pytest.approx(1.0)
    assert math.isclose(
        distillation.outer_optimizer.alignment([(parameter, -moment)]), -1.0, rel_tol=1e-5
    )
