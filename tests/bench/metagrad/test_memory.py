"""Memory of the exact engine: the window costs its parameter copies, never a graph."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor

from bench.config.grid import single_run
from bench.data import load_target_set
from bench.distillation.outer_loop import Distillation
from bench.metagrad import SGD, Adam, InnerOptimizer, Problem, make_engine
from methods import Window

MakeProblem = Callable[..., Problem]
Target = tuple[Tensor, Tensor]


class GraphMeter:
    """Counts the bytes of the tensors that autograd graphs hold, and remembers the peak."""

    def __init__(self) -> None:
        self.live = self.peak = 0

    def pack(self, tensor: Tensor) -> "Held":
        # Detached: a node that holds its own output would hold itself, and never be freed. Autograd
        # puts the graph back when it unpacks.
        held = Held(tensor.detach())
        self.live += held.n_bytes
        self.peak = max(self.peak, self.live)
        weakref.finalize(held, self._release, held.n_bytes)
        return held

    def unpack(self, held: "Held") -> Tensor:
        return held.tensor

    def _release(self, n_bytes: int) -> None:
        self.live -= n_bytes


class Held:
    """A tensor saved for a backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.n_bytes = tensor.numel() * tensor.element_size()


def graph_peak(
    engine: str, problem: Problem, window: Window, target: Target, *, samples: bool = False
) -> int:
    """The most bytes that graphs hold at one time."""
    meter, made = GraphMeter(), make_engine(engine)
    ask = made.sample_gradients if samples else made.meta_gradient
    with torch.autograd.graph.saved_tensors_hooks(meter.pack, meter.unpack):
        ask(problem, window, *target)
    gc.collect()
    return meter.peak


def live_tensor_bytes() -> int:
    """Bytes of all tensors that Python holds, each storage once."""
    storages: dict[int, int] = {}
    for thing in gc.get_objects():
        # Some other test may have left a sparse tensor, whose storage cannot be asked for.
        if type(thing) is Tensor and thing.layout == torch.strided:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def held_peak(problem: Problem, window: Window, target: Target) -> int:
    """The most bytes of tensors that the exact engine holds when it asks for an inner batch."""
    peak = 0

    def batch(t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal peak
        peak = max(peak, live_tensor_bytes())
        return problem.inner_batch(t, images, labels)

    gc.collect()
    before = live_tensor_bytes()
    make_engine("exact").meta_gradient(replace(problem, inner_batch=batch), window, *target)
    return peak - before


@pytest.mark.parametrize("samples", [False, True], ids=["meta_gradient", "sample_gradients"])
def test_the_graphs_of_the_exact_engine_do_not_grow_with_the_window(
    make_problem: MakeProblem, target: Target, samples: bool
) -> None:
    problem = make_problem(Adam(0.01), learn_labels=True, network="smooth")  # through autograd
    short, long = (
        graph_peak("exact", problem, Window(0, stop), target, samples=samples) for stop in (2, 6)
    )
    assert short > 0
    assert long <= 1.01 * short


def test_known_layers_need_no_graph(make_problem: MakeProblem, target: Target) -> None:
    assert graph_peak("exact", make_problem(Adam(0.01)), Window(0, 3), target) == 0


def test_the_meter_sees_a_graph_that_grows_with_the_window(
    make_problem: MakeProblem, target: Target
) -> None:
    problem = make_problem(Adam(0.01))
    short, long = (graph_peak("higher", problem, Window(0, stop), target) for stop in (2, 6))
    assert long > 2 * short


def test_the_warm_up_costs_nothing(make_problem: MakeProblem, target: Target) -> None:
    problem = make_problem(Adam(0.01))
    without, behind = (
        held_peak(problem, window, target) for window in (Window(0, 2), Window(4, 6))
    )
    assert behind <= without + theta_bytes(problem)


@pytest.mark.parametrize("engine", ["exact", "higher"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
def test_no_graph_is_kept_of_the_warm_up(
    make_problem: MakeProblem, target: Target, weight_decay: float, engine: str
) -> None:
    problem = make_problem(Adam(0.01, weight_decay=weight_decay))
    without, behind = (
        graph_peak(engine, problem, window, target) for window in (Window(0, 2), Window(4, 6))
    )
    assert behind <= 1.01 * without


@pytest.mark.parametrize(
    ("optimizer", "vectors"),
    [(Adam(0.01), 4), (SGD(0.1, momentum=0.9), 3)],
    ids=["adam", "sgd"],
)
def test_a_step_of_the_window_holds_its_parameters_gradient_and_optimizer_state_only(
    make_problem: MakeProblem, target: Target, optimizer: InnerOptimizer, vectors: int
) -> None:
    problem = make_problem(optimizer)
    short, long = (held_peak(problem, Window(0, stop), target) for stop in (2, 6))
    growth = (long - short) / (4 * theta_bytes(problem))
    assert growth == pytest.approx(vectors, abs=0.3)


def theta_bytes(problem: Problem) -> int:
    """Bytes of one parameter vector."""
    return sum(tensor.numel() * tensor.element_size() for tensor in problem.parameters.values())


@pytest.mark.parametrize("budget", [0, 1 << 30], ids=["recomputing", "storing"])
@pytest.mark.slow
def test_memory_does_not_grow_with_the_outer_steps(cache_root: Path, budget: int) -> None:
    small = {"width": 24, "depth": 1, "unroll_length": 4, "window_size": 3, "target_batch": 20}
    target_set = load_target_set("digits", data_root=cache_root, cache_root=cache_root)
    distillation = Distillation(single_run("quick", small), target_set, budget)

    def held_after(steps: int) -> tuple[int, int, int]:
        """(tensors that Python holds, its other objects, resident bytes without mapped files, whose
        pages the system takes and gives)"""
        while distillation.step < steps:
            distillation.outer_step()
        gc.collect()
        objects = gc.get_objects()
        tensors = sum(type(thing) is Tensor for thing in objects)
        resident = psutil.Process().memory_info()
        return tensors, len(objects) - tensors, resident.rss - getattr(resident, "shared", 0)

    (tensors, objects, resident), (tensors_later, objects_later, resident_later) = (
        held_after(50),
        held_after(200),
    )
    assert tensors_later == tensors
    assert objects_later - objects < 75  # not one in two steps
    # The allocator moves by some hundred KiB; one θ kept a step would be 2.4 MiB.
    assert resident_later - resident < 1 << 20
