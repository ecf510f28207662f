"""What an evaluation says of its networks, and its record."""

import json
import math

import pytest
import torch

from bench.evaluation.evaluation import Evaluation
from bench.system.text import accuracy_text


def test_selection_looks_at_the_part_it_names_and_at_no_other() -> None:
    validation = torch.tensor([[0.1, 0.9, 0.2], [0.3, 0.9, 0.2]])
    test = torch.tensor([[0.5, 0.1, 0.9], [0.7, 0.3, 0.9]])
    evaluation = Evaluation([10, 20, 30], validation, test)
    fair = evaluation.summary("validation")
    assert (fair["steps"], fair["n"], fair["selection"]) == (20, 2, "validation")
    assert fair["test_accuracy_mean"] == pytest.approx(0.2)
    assert fair["test_accuracy_std"] == pytest.approx(0.2 / math.sqrt(2))
    published = evaluation.summary("test")
    assert (published["steps"], published["test_accuracy_mean"]) == (30, pytest.approx(0.9))


def test_selection_on_the_training_part_looks_at_no_other() -> None:
    best_first, best_last = torch.tensor([[0.9, 0.1], [0.9, 0.3]]), torch.tensor([[0.2, 0.8]] * 2)
    evaluation = Evaluation([10, 20], best_first, best_first, best_last, 1 - best_last)
    summary = evaluation.summary("train")
    assert (summary["steps"], summary["selection"]) == (20, "train")
    assert summary["test_accuracy_mean"] == pytest.approx(0.2)
    assert summary["train_accuracy_mean"] == pytest.approx(0.8)
    assert summary["train_loss_mean"] == pytest.approx(0.2)


def test_an_evaluation_is_read_as_it_was_recorded_with_and_without_a_training_part() -> None:
    part = torch.tensor([[0.25, 0.5], [0.75, 1.0]])
    for measured in ({}, {"train": part.flip(1), "train_loss": part.flip(0)}):
        evaluation = Evaluation([10, 20], part, part, **measured)
        found = Evaluation.from_summary(evaluation.summary("test"))
        assert str(found) == str(evaluation)


def test_a_record_has_no_digits_beyond_float32_and_loses_none() -> None:
    part = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
    part[0, 0], part[1, 1] = 0.276, 0.1 + 2**-26  # 0.27599999 and 0.10000002 in float64
    summary = json.loads(json.dumps(Evaluation([10, 20], part, part).summary("test")))
    assert summary["all_test"][0][0] == 0.276
    assert max(len(str(number)) for row in summary["all_test"] for number in row) <= 12
    found = Evaluation.from_summary(summary)
    assert torch.equal(found.test, part)
    assert torch.equal(found.validation, part)


def test_networks_that_are_not_finite_are_counted() -> None:
    part, finite = torch.full((3, 2), 0.1), torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    evaluation = Evaluation([10, 20], part, part, finite=finite)
    summary = evaluation.summary("validation")
    assert (summary["steps"], summary["not_finite"]) == (10, 1)
    assert accuracy_text(summary) == "10.0 ± 0.0 (n=3, 1 of 3 networks not finite)"
    assert str(Evaluation.from_summary(summary)) == str(evaluation)
    assert not evaluation.all_not_finite("validation")
    assert Evaluation([10], part, part, finite=torch.zeros(3, 1)).all_not_finite("test")
    assert "not_finite" not in Evaluation([10, 20], part, part).summary("validation")


def test_one_network_has_no_standard_deviation() -> None:
    evaluation = Evaluation([10], torch.tensor([[0.1]]), torch.tensor([[0.5]]))
    assert evaluation.summary("validation")["test_accuracy_std"] is None
