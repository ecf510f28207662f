"""What a method would observe in a run of which nothing is known: for estimates of what a run will
take, and for pictures of windows that no run made."""

from methods.observations import Probe, StepObservation, observes_probes, observes_steps
from methods.window import Method, Window


def imagine_probe(method: Method, step: int, unroll_length: int) -> bool:
    """Let the method observe a probe before outer step `step`, if it asks for one, in which all
    inner gradients have norm 1 and nothing is learned; returns whether it did."""
    if not observes_probes(method) or not method.needs_probe(step):
        return False
    method.observe_probe(step, Probe([1.0] * unroll_length, 1.0, 0.0))
    return True


def imagine_step(method: Method, step: int, window: Window, outer_loss: float) -> None:
    """Let the method observe an outer step, with norms of 1 and a meta-gradient that does not agree
    with those before it."""
    method.observe(step, outer_loss)
    if observes_steps(method):
        norms = [1.0] * window.stop
        method.observe_step(StepObservation(step, outer_loss, window, 1.0, 0.0, norms))
