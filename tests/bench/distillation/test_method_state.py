"""What a user's method may put into a checkpoint."""

import io
import random
import re
from typing import Any

import numpy as np
import pytest
import torch

from bench.config.grid import single_run
from bench.data import TargetSet
from bench.distillation.method_state import method_state
from bench.distillation.outer_loop import Distillation
from bench.system.errors import UserError
from methods import StatelessMethod, Window, make_method


class Keeps(StatelessMethod):
    """Its state is any value."""

    kept: Any

    def next_window(self, step: int, rng: random.Random) -> Window:
        return Window(0, self.window_size)

    def state(self) -> Any:
        return self.kept


def keeping(kept: Any) -> Keeps:
    method = Keeps(4, 2)
    method.kept = kept
    return method


def test_plain_values_are_kept_and_can_be_read_again() -> None:
    kept = {"a": 1, "b": [0.5, None, {"c": True, 2: "x"}], "d": {}, "e": []}
    content = io.BytesIO()
    torch.save(method_state(keeping(kept), "mine:Keeps"), content)
    content.seek(0)
    assert torch.load(content, weights_only=True) == kept


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ({"mean": np.float64(1.5)}, "state()['mean'] is of type numpy.float64"),
        ({"a": [0.5, {"b": np.int64(1)}]}, "state()['a'][1]['b'] is of type numpy.int64"),
        ({"a": torch.zeros(1)}, "state()['a'] is of type torch.Tensor"),
        ({"a": {1, 2}}, "state()['a'] is of type set"),
        ({np.str_("a"): 1}, "key 'a', is of type numpy.str_"),
        ([1.0], "state() is of type list"),
        (None, "state() is of type NoneType"),
    ],
)
def test_other_values_are_refused_with_their_place(kept: Any, told: str) -> None:
    with pytest.raises(UserError, match="method 'mine:Keeps': its ") as error:
        method_state(keeping(kept), "mine:Keeps")
    assert told in re.sub(r"np\.str_\((.*?)\)", r"\1", str(error.value))


def test_they_are_refused_before_the_first_step_and_at_a_checkpoint(
    digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = single_run("quick", {"width": 4, "depth": 1, "unroll_length": 4, "window_size": 2})
    distillation = Distillation(config, digits)
    monkeypatch.setattr(distillation.method, "state", lambda: {"mean": np.float64(1)})
    with pytest.raises(UserError, match=r"method 'rat_bptt'.*'mean'"):
        distillation.state()
    monkeypatch.setattr(type(make_method("rat_bptt", 4, 2)), "state", lambda _: {"mean": 1j})
    with pytest.raises(UserError, match=r"method 'rat_bptt'.*complex"):
        Distillation(config, digits)
