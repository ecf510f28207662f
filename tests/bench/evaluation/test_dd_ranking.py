"""The scores of DD-Ranking, and the accuracies behind them: paired, and nothing chosen on the test
set."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bench.scores
from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.evaluation.dd_ranking import (
    FULL,
    HARD,
    OWN,
    RANDOM,
    RANDOM_HARD,
    Scores,
    combined,
    refuse_few_real_images,
    score,
)
from bench.evaluation.evaluation import Evaluation
from bench.evaluation.fresh_networks import Trainee, evaluate, evaluate_trainees
from bench.networks import initial_parameters
from bench.system.errors import UserError
from bench.training.batches import EpochBatches, classes_by_place
from bench.training.randomness import torch_generator
from bench.training.setup import make_network


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    return single_run("quick", parse(tiny, RunConfig))


def constructed(**test: list[list[float]]) -> Scores:
    """Scores of test accuracies [networks, 2 steps]; the validation part prefers the second."""
    validation = torch.tensor([[0.1, 0.2], [0.1, 0.2]])
    return Scores(
        {
            name: Evaluation([10, 20], validation, torch.tensor(accuracies))
            for name, accuracies in test.items()
        },
        "validation",
    )


def test_the_scores_are_differences_of_paired_accuracies_at_the_selected_steps() -> None:
    scores = constructed(
        **{
            FULL: [[1.0, 0.9], [1.0, 0.8]],
            HARD: [[1.0, 0.5], [1.0, 0.6]],
            OWN: [[1.0, 0.6], [1.0, 0.7]],
            RANDOM: [[1.0, 0.3], [1.0, 0.5]],
        }
    )
    hlr, ior = scores.hard_label_recovery, scores.improvement_over_random
    assert hlr.each.tolist() == pytest.approx([0.4, 0.2])
    assert (hlr.mean, hlr.std) == (pytest.approx(0.3), pytest.approx(0.2 / math.sqrt(2)))
    assert ior.each.tolist() == pytest.approx([0.3, 0.2])
    assert scores.score() == pytest.approx(
        (math.exp(0.5 * 0.25 - 0.5 * 0.3) - math.exp(-1)) / (math.e - math.exp(-1))
    )


def test_the_combined_score_runs_from_0_to_1_with_the_weight_of_each_part() -> None:
    assert combined(1.0, -1.0) == pytest.approx(0)
    assert combined(-1.0, 1.0) == pytest.approx(1)
    assert combined(0.3, 0.9, weight=0.0) == combined(0.3, -0.9, weight=0.0)
    assert combined(0.3, 0.9, weight=1.0) == combined(-0.3, 0.9, weight=1.0)
    assert combined(0.2, 0.1) < combined(0.1, 0.1) < combined(0.1, 0.2)


# --- what is trained


def distilled(digits: TargetSet) -> tuple[Tensor, Tensor]:
    """Two images a class in no order, with soft labels."""
    generator = torch_generator(0, "test")
    order = torch.randperm(20, generator=generator)
    labels = torch.eye(10).repeat_interleave(2, dim=0) + 0.3 * torch.rand(
        20, 10, generator=generator
    )
    return digits.train.images[order], labels[order]


def test_each_set_has_its_images_and_labels_and_all_begin_with_the_same_networks(
    config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[list[Trainee], list[int], str]] = []

    def noting(
        config: RunConfig,
        target_set: TargetSet,
        trainees: list[Trainee],
        steps: list[int],
        purpose: str,
        **rest: Any,
    ) -> Evaluation:
        calls.append((trainees, steps, purpose))
        return evaluate_trainees(config, target_set, trainees, steps, purpose, **rest)

    monkeypatch.setattr("bench.evaluation.dd_ranking.evaluate_trainees", noting)
    images, labels = distilled(digits)
    config = replace(config, full_train_batch_size=16, full_train_steps=[3])
    scores = score(config, digits, images, labels)
    assert list(scores.evaluations) == [FULL, OWN, RANDOM, HARD, RANDOM_HARD]
    full, ours, random, hard, random_hard = (trainees for trainees, _, _ in calls)
    assert [steps for _, steps, _ in calls] == [[3], *[config.evaluation_steps] * 4]
    assert {purpose for _, _, purpose in calls} == {"evaluation"}
    for trainees in (full, ours, random, hard, random_hard):
        assert [trainee.key for trainee in trainees] == [(0,), (1,)]
    assert [trainee.batch_size for trainee in (full[0], ours[0], random[0])] == [16, 0, 0]
    assert torch.equal(full[0].labels.argmax(dim=1), digits.train.labels)
    classes = ours[0].labels.argmax(dim=1)
    assert classes.tolist() == sorted(classes.tolist())
    assert torch.equal(hard[0].labels, torch.eye(10)[classes])
    assert torch.equal(ours[0].images, hard[0].images)
    assert torch.equal(random[0].labels, ours[0].labels)
    assert torch.equal(random_hard[0].labels, hard[0].labels)
    known = {image.numpy().tobytes(): label for image, label in zip(*_parts(digits), strict=True)}
    for k in (0, 1):
        chosen_classes = [known[image.numpy().tobytes()] for image in random[k].images]
        assert chosen_classes == classes.tolist()
        assert torch.equal(random[k].images, random_hard[k].images)
    assert not torch.equal(random[0].images, random[1].images)


def _parts(digits: TargetSet) -> tuple[Tensor, list[int]]:
    return digits.train.images, digits.train.labels.tolist()


def test_hard_labels_are_trained_once_and_give_the_accuracy_of_an_evaluation(
    config: RunConfig, digits: TargetSet
) -> None:
    chosen = torch.cat([torch.where(digits.train.labels == c)[0][:2] for c in range(10)])
    images, labels = digits.train.images[chosen], torch.eye(10).repeat_interleave(2, dim=0)
    reports: Counter[str] = Counter()
    scores = score(
        replace(config, full_train_batch_size=8, full_train_steps=[2]),
        digits,
        images,
        labels,
        report=lambda name, trained: reports.update([name]),
    )
    assert set(reports) == {FULL, OWN, RANDOM}
    assert scores.evaluations[HARD] is scores.evaluations[OWN]
    alone = evaluate(config, digits, images, labels, networks=2, steps=[2, 4], purpose="evaluation")
    assert torch.equal(scores.evaluations[OWN].test, alone.test)


@pytest.mark.parametrize("eps_form", ["torch", "published"])
def test_training_on_the_full_set_is_that_of_torch_s_own_adam_on_its_batches(
    config: RunConfig, digits: TargetSet, eps_form: str
) -> None:
    config = replace(config, precision="float64", evaluation_networks=1, inner_eps_form=eps_form)
    digits = digits.to("cpu", torch.float64)
    images, labels = digits.train.images[:10], torch.eye(10, dtype=torch.float64)
    config = replace(config, full_train_batch_size=16, full_train_steps=[20])
    scores = score(config, digits, images, labels)
    network = make_network(config, digits).double()
    initial = initial_parameters(network, torch_generator(config.seed, "evaluation/network", 0))
    network.load_state_dict(initial)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.inner_lr)
    batches = EpochBatches(config.seed, "none", "evaluation", (0,), 16)
    for t in range(20):
        batch = batches(t, digits.train.images, digits.train.labels)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(batch[0]), batch[1]).backward()
        optimizer.step()
    right = (network(digits.test.images).argmax(dim=1) == digits.test.labels).double()
    assert scores.evaluations[FULL].test.item() == pytest.approx(right.mean().item())


def test_the_rate_falls_at_the_same_part_of_the_training_on_the_full_set(
    config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[int]] = {}

    def noted(
        config: RunConfig, target_set: TargetSet, trainees: list[Any], *rest: Any, **how: Any
    ) -> Any:
        name = FULL if trainees[0].batch_size else "other"
        seen[name] = config.inner_decay_steps
        return evaluate_trainees(config, target_set, trainees, *rest, **how)

    monkeypatch.setattr("bench.evaluation.dd_ranking.evaluate_trainees", noted)
    config = replace(config, evaluation_networks=1, evaluation_steps=[2, 4], inner_decay_steps=[3])
    config = replace(config, full_train_batch_size=16, full_train_steps=[12])
    score(config, digits, digits.train.images[:10], torch.eye(10))
    assert seen == {FULL: [9], "other": [3]}


def test_the_full_training_set_teaches_more_than_a_part(
    config: RunConfig, digits: TargetSet
) -> None:
    config = replace(
        config, width=16, evaluation_steps=[40], full_train_batch_size=64, full_train_steps=[40]
    )
    images, labels = distilled(digits)
    scores = score(config, digits, images, labels)
    assert scores.evaluations[FULL].test.min() > 0.7  # chance is 0.1
    assert scores.hard_label_recovery.mean > 0.2


def test_the_class_of_an_image_of_ours_is_its_place_whatever_its_labels_became(
    config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[Tensor, Tensor]] = []

    def noting(*given: Any, **rest: Any) -> Evaluation:
        trained.append((given[2][0].images, given[2][0].labels))
        return Evaluation([2], torch.zeros(2, 1), torch.zeros(2, 1))

    monkeypatch.setattr("bench.evaluation.dd_ranking.evaluate_trainees", noting)
    images, labels = digits.train.images[:20], torch.eye(10).repeat_interleave(2, dim=0)
    labels[0] = torch.eye(10)[7]  # learned so
    score(config, digits, images, labels, classes=classes_by_place(labels))
    _, ours, _, hard, _ = trained  # of the full set, ours, random, hard, random hard
    assert torch.equal(ours[0], images)
    assert torch.equal(ours[1], labels)
    assert hard[1].argmax(dim=1).tolist() == [c for c in range(10) for _ in range(2)]


def test_scores_without_enough_real_images_are_refused_before_anything_is_distilled(
    config: RunConfig, digits: TargetSet
) -> None:
    fewest = int(digits.train.labels.bincount().min())
    refuse_few_real_images(replace(config, ipc=fewest), digits)
    with pytest.raises(UserError, match=f"needs {fewest + 1} random real images per class"):
        refuse_few_real_images(replace(config, ipc=fewest + 1), digits)
    with pytest.raises(UserError, match="some class has fewer"):
        score(
            replace(config, ipc=fewest + 1, full_train_steps=[1]),
            digits,
            digits.train.images[:1].expand(10 * (fewest + 1), -1, -1, -1),
            torch.eye(10).repeat_interleave(fewest + 1, dim=0),
        )


# --- the batches of the full training set


def indices(batches: EpochBatches, t: int, count: int) -> list[int]:
    images = torch.arange(float(count)).view(-1, 1, 1, 1)
    chosen, labels = batches(t, images, torch.arange(count)[:, None])
    assert chosen.flatten().long().tolist() == labels.flatten().tolist()
    return labels.flatten().tolist()


def test_each_epoch_has_every_image_once_in_an_order_of_its_own() -> None:
    batches = EpochBatches(0, "none", "x", (1,), 4)
    numbers = [indices(batches, t, 10) for t in range(5)]  # 20 images: two epochs
    assert {len(batch) for batch in numbers} == {4}
    together = [image for batch in numbers for image in batch]
    first, second = together[:10], together[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert (
        indices(EpochBatches(0, "none", "x", (1,), 4), 2, 10) == numbers[2]
    )  # whatever came before
    assert indices(EpochBatches(0, "none", "x", (2,), 4), 0, 10) != numbers[0]
    assert sorted(indices(EpochBatches(0, "none", "x", (1,), 99), 3, 10)) == list(range(10))


# --- the command


def test_the_command_tells_the_protocol_and_records_every_accuracy(
    cache_root: Path,
    tmp_path: Path,
    tiny_evaluation: list[str],
    digits: TargetSet,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(distilled(digits), tmp_path / "soft.pt")
    settings = [
        f"distilled={tmp_path / 'soft.pt'}",
        f"cache_root={cache_root}",
        f"results_root={tmp_path}",
        "full_train_batch_size=16",
        "full_train_steps=[2,5]",
    ]
    assert bench.scores.main([*tiny_evaluation, *settings]) == 0
    output = capsys.readouterr().out
    assert "for up to 5 steps of 16 = 0.1 epochs" in output
    for name in (FULL, OWN, HARD, RANDOM, RANDOM_HARD, "HLR", "IOR"):
        assert any(
            line.strip().startswith(name) and "(n=2)" in line for line in output.splitlines()
        ), name
    (path,) = (tmp_path / "evaluations").iterdir()
    record = json.loads(path.read_text())
    accuracies = record["evaluations"]
    assert accuracies[FULL]["all_steps"] == [2, 5]
    assert (record["config"]["full_train_batch_size"], record["config"]["full_train_steps"]) == (
        16,
        [2, 5],
    )
    hlr = accuracies[FULL]["test_accuracy_mean"] - accuracies[HARD]["test_accuracy_mean"]
    ior = accuracies[OWN]["test_accuracy_mean"] - accuracies[RANDOM]["test_accuracy_mean"]
    assert record["hard_label_recovery"]["mean"] == pytest.approx(hlr, abs=1e-6)
    assert record["improvement_over_random"]["mean"] == pytest.approx(ior, abs=1e-6)
    assert record["dd_ranking_score"]["score"] == pytest.approx(combined(hlr, ior), abs=1e-6)


def test_scores_selected_on_the_test_set_are_labelled(capsys: pytest.CaptureFixture[str]) -> None:
    each = [[0.1, 0.2], [0.3, 0.1]]
    fair = constructed(**dict.fromkeys((FULL, OWN, HARD, RANDOM, RANDOM_HARD), each))
    bench.scores.print_scores(fair)
    output = capsys.readouterr().out
    assert "TEST" not in output
    assert "best at its last step count" in output  # validation prefers the second of two
    bench.scores.print_scores(replace(fair, selection="test"))
    output = capsys.readouterr().out
    assert "best at its last step count" not in output
    lines = output.splitlines()
    figures = [line for line in lines if "(n=" in line or "score, w" in line]
    assert len(figures) == 8
    assert all("selected by TEST" in line for line in figures)


def test_what_has_no_scores_is_refused(
    cache_root: Path, tmp_path: Path, tiny_evaluation: list[str]
) -> None:
    settings = [*tiny_evaluation, f"cache_root={cache_root}", f"results_root={tmp_path}"]
    with pytest.raises(UserError, match="random real images are what"):
        bench.scores.main([*settings, "distilled=real_images"])
