"""One run from its folder to its result: resume, outer loop, records, checkpoints, evaluation.

If several processes share the replicas, this is the leader's work; followers are in `follower.py`.
"""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn, Protocol

import torch

from bench.config.run_config import Environment, RunConfig
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation, OuterStep
from bench.distillation.process_group import SINGLE_PROCESS, ProcessGroup
from bench.evaluation.dd_ranking import refuse_few_real_images
from bench.runs.failure import describe_error
from bench.runs.final_evaluation import FinalEvaluation, FinalSet
from bench.runs.heartbeat import Heartbeat, record_failure
from bench.runs.lockstep import StopRequest, outer_steps, set_up
from bench.runs.manifest import record_start, restore_manifest
from bench.runs.measurements import Best, Measurements
from bench.runs.records import CHECKPOINT_BEFORE, Recorder, load_checkpoint, save_checkpoint
from bench.runs.rerun import remove_previous, start_rerun
from bench.runs.run_folder import JSON_LINES, SET_FILE, RunFolder, now
from bench.runs.run_lock import RunIsTaken, await_silence, lock
from bench.runs.saved_evaluations import FILE
from bench.system import versions
from bench.system.errors import UserError
from bench.system.files import checksum, remove_orphans

# Small files that a process without the run's lock may be writing.
BY_OTHERS = ("config.json", "job.json", "takeover.json", "anew.json")


class Reporter(Protocol):
    """Shows the progress of a run."""

    def started(self, target_set: TargetSet, device: torch.device, resumed_at: int) -> None: ...

    def stepped(self, record: OuterStep) -> None: ...

    def measured(self, measurement: dict[str, Any]) -> None: ...

    def evaluating(self, what: str, trained: int, networks: int) -> None: ...


class Interrupted(Exception):
    """The run stopped on request; its state is in the checkpoint."""


class Superseded(Interrupted):
    """The run stopped because another process took it over; its state is in the checkpoint."""


def execute(
    folder: RunFolder,
    environment: Environment,
    reporter: Reporter,
    group: ProcessGroup = SINGLE_PROCESS,
    takeover: str = "",
    data: str = "",
) -> dict[str, Any]:
    """Run `folder` to completion, resuming from its checkpoint if there is one, and return the
    result.

    A finished run is not run again, unless a rerun was requested. Errors are recorded in error.json
    and raised.

    Args:
        takeover: unique token; takes the run over from the process that is running it
            (`run_lock.lock`).
        data: fingerprint of the data that the run has to be made on; by default any.

    Raises:
        RunIsTaken: another process is running it, or took it over later.
        UserError: the configuration, the data or the checkpoint cannot be used.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the run resumes when it is executed again.
        Superseded: another process has taken the run over.
        Diverged: losses, meta-gradients or the distilled set are not finite (`not_finite`), or none
            of the networks trained on the final set is.
        ProcessGroupBroken: another process of the run failed or was killed.
    """
    with lock(folder, takeover):
        if not folder.is_done():
            await_silence(folder, takeover)
        remove_orphans(folder.path, BY_OTHERS)
        if folder.is_done():
            remove_leftovers(folder)
            return folder.read("result") or {}
        folder.remove("error.json")
        config = folder.config()
        with Heartbeat(folder, config.outer_steps) as heartbeat:
            try:
                execution = _Execution(
                    folder, config, environment, heartbeat, reporter, group, data
                )
                return execution.run()
            except (Interrupted, RunIsTaken):
                raise
            except Exception as error:
                described = describe_error(error)
                if not record_failure(folder, described):
                    heartbeat.update(error={key: described[key] for key in ("kind", "message")})
                raise


def remove_leftovers(folder: RunFolder) -> None:
    """Remove what only a run without a result needs."""
    folder.remove(CHECKPOINT_BEFORE, f"{FILE}.json")
    remove_previous(folder)


@dataclass
class _Execution:
    """One start of a run, in the leader.

    Attributes:
        seconds: in outer steps and measurements, over all starts.
        peak_memory: bytes, the most of all starts so far, by kind.
        record_sizes: bytes of the records at the checkpoint that the run resumes from.
    """

    folder: RunFolder
    config: RunConfig
    environment: Environment
    heartbeat: Heartbeat
    reporter: Reporter
    group: ProcessGroup
    data: str
    stop: StopRequest = field(default_factory=StopRequest)
    seconds: float = 0.0
    peak_memory: dict[str, int] = field(default_factory=dict)
    record_sizes: dict[str, int] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        start_rerun(self.folder)  # if a rerun was requested
        restore_manifest(self.folder)  # if it is damaged
        self.heartbeat.update(activity="loading data")
        self.setup = set_up(
            self.folder, self.config, self.environment, self.group, self._resumed_state
        )
        self.distillation = self.setup.distillation
        self.heartbeat.update(step=self.distillation.step)
        self.manifest = record_start(self.folder, self.config, self.setup)
        with self.stop:
            self.reporter.started(self.setup.target_set, self.setup.device, self.distillation.step)
            with Recorder(self.folder.path, self.record_sizes) as recorder:
                self._outer_loop(recorder)
            self.heartbeat.update(activity="evaluating")
            return self._finish()

    def _resumed_state(self, distillation: Distillation) -> dict[str, Any]:
        """The state that the run starts from: its checkpoint's, if there is one."""
        if self.config.scores:
            refuse_few_real_images(self.config, distillation.target_set)
        self.measurements = Measurements(distillation, self.heartbeat, self._stop_if_requested)
        self._compare_data(distillation.target_set.fingerprint)
        if distillation.objective:
            distillation.objective.prepare(lambda text: self.heartbeat.update(activity=text))
        if checkpoint := load_checkpoint(self.folder.path):
            try:
                distillation.load_state(checkpoint["distillation"])
                self.record_sizes = checkpoint["record_sizes"]
                self.seconds = checkpoint["seconds"]
                self.peak_memory = checkpoint.get("peak_memory_bytes", {})
                best = checkpoint["best"]
                self.measurements.best = Best(**best) if best else None
            except (KeyError, TypeError, RuntimeError, ValueError) as error:
                raise UserError(
                    f"the checkpoint of {self.folder.name} does not belong to this configuration"
                    f" ({error}); give force=true to start over"
                ) from error
        return distillation.state()

    def _compare_data(self, now: str) -> None:
        """Raise UserError if the run was made on other data before."""
        before = (self.folder.read("manifest") or {}).get("data", {}).get("fingerprint")
        for other, remedy in ((before, ", or give force=true"), (self.data, "")):
            if other and other != now:
                raise UserError(
                    f"{self.folder.name} was started with other data (fingerprint {other}, now"
                    f" {now}); point data_root at that copy{remedy}"
                )

    # --- the outer loop

    def _outer_loop(self, recorder: Recorder) -> None:
        started, first = time.perf_counter(), self.distillation.step
        saved_at, seconds_before = started, self.seconds
        self._measure(recorder)
        for record, stopping in outer_steps(self.distillation, self.group, self._must_stop):
            self._stop_if_displaced()
            recorder.append("metrics", asdict(record))
            self.reporter.stepped(record)
            self._record(recorder, self.measurements.completed())
            elapsed = time.perf_counter() - started
            self.seconds = seconds_before + elapsed
            self.heartbeat.update(
                step=self.distillation.step,
                seconds_per_step=elapsed / (self.distillation.step - first),
            )
            due = time.perf_counter() - saved_at >= self.environment.checkpoint_seconds
            if due or stopping or self.distillation.step == self.config.outer_steps:
                self._checkpoint(recorder, recorder.extent())
                saved_at = time.perf_counter()
            if stopping:
                self._interrupt()
            self._measure(recorder)
        self.seconds = seconds_before + time.perf_counter() - started

    def _measure(self, recorder: Recorder) -> None:
        extent = recorder.extent()
        try:
            self._record(recorder, self.measurements.due())
        except Interrupted:
            self._checkpoint(recorder, extent)  # the step is done, its measurements are not
            raise
        self.heartbeat.update(activity="distilling")

    def _record(self, recorder: Recorder, measurements: Iterable[dict[str, Any]]) -> None:
        for measurement in measurements:
            self._stop_if_displaced()
            recorder.append("measurements", measurement)
            self.reporter.measured(measurement)

    def _checkpoint(self, recorder: Recorder, extent: dict[str, Any]) -> None:
        """Save the state, and the sizes and checksums of the records that belong to it."""
        best = self.measurements.best
        self._stop_if_displaced()
        recorder.sync()
        save_checkpoint(
            self.folder.path,
            {
                "distillation": self.distillation.state(),
                "best": vars(best) if best else None,
                **extent,
                "seconds": self.seconds,
                "peak_memory_bytes": self._peak_memory(),
                "manifest": self.manifest,
            },
        )

    def _peak_memory(self) -> dict[str, int]:
        """The most of all starts: the last one may have done no more than evaluate."""
        for kind, peak in versions.peak_memory_bytes(self.setup.device).items():
            self.peak_memory[kind] = max(peak, self.peak_memory.get(kind, 0))
        return self.peak_memory

    # --- the end

    def _finish(self) -> dict[str, Any]:
        self.distillation.require_finite()
        chosen, device = self.measurements.best or self.distillation, self.setup.device
        final = FinalEvaluation(
            self.config,
            self.setup.target_set,
            self.folder,
            FinalSet(
                chosen.images.to(device),
                chosen.labels.to(device),
                chosen.step,
                self.distillation.parameters.storage_floats,
            ),
            self._report_evaluation,
            self._stop_if_requested,
        )
        objective = self.distillation.objective
        of_objective = objective.results() if objective else {}
        result = {
            "finished": now(),
            "outer_steps": self.config.outer_steps,
            **final.results(),
            "data": self.manifest["data"],
            "seconds": self.seconds,
            **({"objective": of_objective} if of_objective else {}),
            "peak_memory_bytes": self._peak_memory(),
            "checksums": {
                name: checksum(self.folder.path / name) for name in (*JSON_LINES, SET_FILE)
            },
        }
        self._stop_if_displaced()
        self.folder.write("result", result)
        remove_leftovers(self.folder)
        return result

    def _report_evaluation(self, what: str, trained: int) -> None:
        networks = self.config.evaluation_networks
        self.heartbeat.update(activity=f"evaluating{what} {trained}/{networks}")
        self.reporter.evaluating(what, trained, networks)

    # --- interruption

    def _must_stop(self) -> bool:
        return self.stop.requested or self.heartbeat.superseded

    def _stop_if_requested(self) -> None:
        """For work of the leader alone: requests to followers wait for the next outer step."""
        if self._must_stop():
            self._interrupt()

    def _stop_if_displaced(self) -> None:
        """Before each write: another process may have given this one up, and run the run."""
        if self.heartbeat.is_displaced():
            self._interrupt()

    def _interrupt(self) -> NoReturn:
        stopped = f"stopped after outer step {self.distillation.step}"
        if self.heartbeat.superseded:
            raise Superseded(f"{stopped}: {self.folder.taken_over_by()} has taken the run over")
        raise Interrupted(stopped)
