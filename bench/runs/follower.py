"""The worker loop of ranks > 0."""

from contextlib import suppress

from bench.config.run_config import Environment, RunConfig
from bench.distillation.divergence import Diverged
from bench.distillation.process_group import ProcessGroup, Shutdown
from bench.runs.lockstep import StopRequest, outer_steps, set_up
from bench.runs.run_folder import RunFolder


def follow(
    folder: RunFolder, config: RunConfig, environment: Environment, group: ProcessGroup
) -> None:
    """Compute this process's replicas of a run that another process leads, until the run ends.

    Args:
        folder: of the run; only the leader reads and writes it.

    Raises:
        UserError: the data here differ from those of the leader, or the device cannot be used.
        ProcessGroupBroken: another process of the run failed or was killed.
    """
    with suppress(Shutdown), StopRequest() as stop:
        setup = set_up(folder, config, environment, group)
        with suppress(Diverged):  # the leader raises it at the same step, and records it
            for _ in outer_steps(setup.distillation, group, lambda: stop.requested):
                pass
        group.any(False)  # waits until the leader has evaluated and shuts the group down
