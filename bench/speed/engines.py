"""The engines that can be measured here, by name."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.config.run_config import Environment
from bench.speed.work import Work

HIGHER = "higher"
TORCHOPT = "torchopt"
RECOMPUTING, AUTO = "exact, recomputing", "exact, auto"
COMPILED = "exact, compiled"
AUTOGRAD = "exact, autograd derivatives"  # recomputing, without the layers' rules
GRAPH_ENGINES = (HIGHER, TORCHOPT)  # they keep the graph of the whole window


def engines(device_type: str, compiled: bool) -> list[str]:
    """Names of the engines to measure. Compiled steps start slowly on a CPU: only on request."""
    chosen = [HIGHER, AUTOGRAD, RECOMPUTING, AUTO]
    if device_type == "cuda" or compiled:
        chosen.append(COMPILED)
    if installed(TORCHOPT):
        chosen.append(TORCHOPT)
    return chosen


def installed(package: str) -> bool:
    """Whether the package can be imported; does not import it."""
    return find_spec(package) is not None


def precisions(device_type: str) -> tuple[str, ...]:
    """Precisions worth timing on the device. A CPU emulates tf32 by rounding, which is slow."""
    return ("float32", "tf32", "bf16") if device_type == "cuda" else ("float32", "bf16")


def can(engine: str, precision: str) -> bool:
    """Whether the engine supports this precision; only the layers' rules support bf16."""
    return precision != "bf16" or engine not in (*GRAPH_ENGINES, AUTOGRAD)


def build(engine: str, work: Work, environment: Environment, device: Any) -> Any:
    """The engine of this name, for this work."""
    from bench.metagrad import ExactEngine, autograd_derivatives, make_engine
    from bench.training.setup import activation_budget, find_room_to_compile

    if engine == TORCHOPT:
        from bench.speed.torchopt_engine import TorchOptEngine

        return TorchOptEngine(work.precision)
    if engine == HIGHER:
        return make_engine("higher", precision=work.precision)
    if engine == AUTOGRAD:
        return ExactEngine(precision=work.precision, derivatives=autograd_derivatives)
    if engine == COMPILED:
        find_room_to_compile(Path(environment.cache_root) / "compiling")
    budget = 0 if engine == RECOMPUTING else activation_budget(environment, device)
    return make_engine("exact", budget, work.precision, compiled=engine == COMPILED)
