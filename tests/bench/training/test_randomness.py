"""Draws are functions of (seed, purpose, indices) and of nothing else."""

import itertools
import random

import pytest
import torch

from bench.training.randomness import derive_seed, python_random, torch_generator

# Pairs of keys that a careless join or sum of their parts would confuse.
KEYS: list[tuple[int, str, tuple[int, ...]]] = [
    *itertools.product((0, 1, 12), ("network", "window"), ((), (0,), (1,), (0, 0), (0, 1), (1, 0))),
    (1, "window", (2, 3)),
    (1, "window", (23,)),
    (12, "window", (3,)),
    (2, "window", (1, 3)),
    (-1, "window", ()),
]


def numbers(generator: torch.Generator) -> tuple[float, ...]:
    return tuple(torch.rand(4, generator=generator, dtype=torch.float64).tolist())


@pytest.mark.parametrize(("seed", "purpose", "indices"), KEYS)
def test_the_same_arguments_give_the_same_stream_whatever_was_drawn_before(
    seed: int, purpose: str, indices: tuple[int, ...]
) -> None:
    first = numbers(torch_generator(seed, purpose, *indices))
    first_python = python_random(seed, purpose, *indices).random()
    numbers(torch_generator(seed + 1, "other", 5))
    torch.rand(3)
    random.random()
    assert numbers(torch_generator(seed, purpose, *indices)) == first
    assert python_random(seed, purpose, *indices).random() == first_python


def test_different_seeds_purposes_and_indices_give_different_streams() -> None:
    assert len({derive_seed(seed, purpose, *indices) for seed, purpose, indices in KEYS}) == len(
        KEYS
    )
    torch_streams = {numbers(torch_generator(seed, *(p, *i))) for seed, p, i in KEYS}
    python_streams = {python_random(seed, *(p, *i)).random() for seed, p, i in KEYS}
    assert len(torch_streams) == len(python_streams) == len(KEYS)


def test_no_global_state_is_read_or_consumed() -> None:
    torch_before, python_before = torch.random.get_rng_state(), random.getstate()
    numbers(torch_generator(3, "network", 1))
    python_random(3, "window", 1).random()
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    assert random.getstate() == python_before


def test_generators_do_not_share_their_state() -> None:
    first, second = torch_generator(0, "network", 1), torch_generator(0, "network", 1)
    numbers(first)
    assert numbers(second) == numbers(torch_generator(0, "network", 1))


def test_a_seed_is_the_same_in_every_process_and_version() -> None:
    # A golden value: a change of it would silently change every stored result.
    assert derive_seed(0, "network", 0) == 17280005094209899387
