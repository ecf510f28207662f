"""One run from its folder to its result: resume, outer loop, records, checkpoints, evaluation.

Where several processes share the replicas, this is the leader's work; that of the others is in
`bench.runs.follower`.
"""

import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, Protocol

import torch

from bench.config.run_config import Environment, RunConfig, identity
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation, OuterStep
from bench.distillation.process_group import ALONE, ProcessGroup
from bench.evaluation.dd_ranking import refuse_few_real_images
from bench.evaluation.fresh_networks import Evaluation, evaluate
from bench.runs.failure import describe_error
from bench.runs.final_evaluation import FinalEvaluation, FinalSet
from bench.runs.follower import StopRequest, hosts, own_device
from bench.runs.heartbeat import Heartbeat, await_silence, record_failure
from bench.runs.rerun import begin_anew, forget_previous
from bench.runs.run_folder import Recorder, RunFolder, RunIsTaken, now
from bench.system import git, versions
from bench.system.errors import UserError
from bench.system.files import write_text
from bench.system.machine import cpu_cores, default_threads
from bench.training.setup import (
    activation_budget,
    check_device,
    compiles,
    load_data,
    settle_process,
)


class Reporter(Protocol):
    """Told what happens in a run, for whoever watches."""

    def started(self, target_set: TargetSet, device: torch.device, resumed_at: int) -> None: ...

    def stepped(self, record: OuterStep) -> None: ...

    def measured(self, measurement: dict[str, Any]) -> None: ...

    def evaluating(self, what: str, trained: int, networks: int) -> None: ...


class Interrupted(Exception):
    """The run was asked to stop, and has: its state is in the checkpoint."""


class Superseded(Interrupted):
    """Another process claimed the run, and was left it: its state is in the checkpoint."""


def execute(
    folder: RunFolder,
    environment: Environment,
    reporter: Reporter,
    group: ProcessGroup = ALONE,
    takeover: str = "",
) -> dict[str, Any]:
    """Bring the run in `folder` to its end, from wherever it stands, and return its result.

    A finished run is not run again, unless it is asked to be made anew. Whatever goes wrong is
    recorded in error.json and raised.

    Args:
        takeover: unique token; takes the run over from the process that is running it
            (`RunFolder.lock`).

    Raises:
        RunIsTaken: another process is at work on it, or claimed it later.
        UserError: the configuration, the data or the checkpoint cannot be used.
        Interrupted: SIGINT or SIGTERM came; the run goes on when it is executed again.
        Superseded: another process has claimed it, and goes on with it.
        Diverged: the meta-gradients stayed not finite.
        TeamBroken: another process of the run failed or was killed.
    """
    with folder.lock(takeover):
        if takeover:
            await_silence(folder)
        if folder.is_done():
            forget_previous(folder)  # a kill may have left it
            return folder.read("result") or {}
        folder.remove("error.json")
        config = folder.config()
        with Heartbeat(folder, config.outer_steps) as heartbeat:
            try:
                return _Execution(
                    folder, config, environment, heartbeat, reporter, group
                ).to_the_end()
            except (Interrupted, RunIsTaken):
                raise
            except Exception as error:
                described = describe_error(error)
                if not record_failure(folder, described):
                    heartbeat.update(error={key: described[key] for key in ("kind", "message")})
                raise


@dataclass
class Best:
    """The distilled set that did best so far on the part that selects."""

    step: int
    accuracy: float
    images: torch.Tensor
    labels: torch.Tensor


class _Execution:
    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        environment: Environment,
        heartbeat: Heartbeat,
        reporter: Reporter,
        group: ProcessGroup,
    ) -> None:
        self.folder = folder
        self.config = config
        self.environment = environment
        self.heartbeat = heartbeat
        self.reporter = reporter
        self.group = group
        self.stop = StopRequest()
        self.best: Best | None = None
        self.record_sizes: dict[str, int] = {}
        self.seconds = 0.0  # in outer steps and measurements, over all starts

    def to_the_end(self) -> dict[str, Any]:
        begin_anew(self.folder)  # where that is asked for
        settle_process()
        self.device = own_device(self.environment, self.group)
        check_device(self.config, self.device)
        self.members = hosts(self.group, self.device)
        self._set_threads()
        self.heartbeat.update(activity="loading data")
        self.target_set = load_data(self.config, self.environment, self.device)
        if self.config.scores:
            refuse_few_real_images(self.config, self.target_set)
        self.group.broadcast(self.target_set.fingerprint)  # now that the others find them cached
        self.compiled = self._compiles()
        budget = activation_budget(self.environment, self.device)
        self.distillation = Distillation(
            self.config, self.target_set, budget, self.group, self.compiled
        )
        self._resume()
        self.heartbeat.update(step=self.distillation.step)
        self.group.broadcast(self.distillation.state())
        self._write_manifest()
        with self.stop:
            self.reporter.started(self.target_set, self.device, self.distillation.step)
            with self.folder.recorder(self.record_sizes) as recorder:
                self._outer_loop(recorder)
            self.heartbeat.update(activity="evaluating")
            return self._finish()

    def _set_threads(self) -> None:
        """A resumed run keeps its number of threads: sums in another order round differently. All
        processes take the same number, and those on the same cores divide them."""
        before = (self.folder.read("manifest") or {}).get("threads")
        cores = [(member["host"], member["cores"]) for member in self.members]
        share = max(1, cpu_cores() // cores.count(cores[0]))
        threads = before or self.environment.threads or min(share, default_threads())
        torch.set_num_threads(self.group.broadcast(threads))

    def _compiles(self) -> bool:
        """A resumed run is compiled or not as it was; so are all its processes."""
        before = self.folder.read("manifest")
        if before:
            compiled = before.get("compiled", False)
        else:
            compiled = compiles(self.config, self.environment, self.device)
        return self.group.broadcast(compiled)

    def _resume(self) -> None:
        known = (self.folder.read("manifest") or {}).get("data", {}).get("fingerprint")
        if known is not None and known != self.target_set.fingerprint:
            raise UserError(
                f"{self.folder.name} was begun with other data ({known}, now"
                f" {self.target_set.fingerprint}); point data_root at that copy, or give force=true"
            )
        checkpoint = self.folder.load_checkpoint()
        if checkpoint is None:
            return
        try:
            self.distillation.load_state(checkpoint["distillation"])
            self.record_sizes = checkpoint["record_sizes"]
            self.seconds = checkpoint["seconds"]
            self.best = Best(**checkpoint["best"]) if checkpoint["best"] else None
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the checkpoint of {self.folder.name} does not belong to this configuration"
                f" ({error}); give force=true to start anew"
            ) from error

    def _write_manifest(self) -> None:
        content = self.folder.read("manifest") or {
            "identity": identity(self.config),
            "seed": self.config.seed,
            "data": {
                "name": self.target_set.name,
                "source": self.target_set.source,
                "fingerprint": self.target_set.fingerprint,
                "train": len(self.target_set.train),
                "validation": len(self.target_set.validation),
                "test": len(self.target_set.test),
            },
            "threads": torch.get_num_threads(),
            "compiled": self.compiled,
            "starts": [],
        }
        start = {
            "time": now(),
            "step": self.distillation.step,
            "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
            "versions": versions.versions(),
            "hardware": versions.hardware(self.device),
            "world_size": len(self.members),
            "processes": [{"host": m["host"], "device": m["device"]} for m in self.members],
            **git.commit(),
        }
        content["starts"].append(start)
        self.folder.write("manifest", content)
        if diff := git.uncommitted_diff():
            write_text(self.folder.path / "uncommitted.diff", diff)

    # --- the outer loop

    def _outer_loop(self, recorder: Recorder) -> None:
        begun, first = time.perf_counter(), self.distillation.step
        saved_at, seconds_before = begun, self.seconds
        while self.distillation.step < self.config.outer_steps:
            before = recorder.sizes()
            try:
                self._measure(recorder)
            except Interrupted:
                self._checkpoint(recorder, before)  # the step is done, its measurements are not
                raise
            self.heartbeat.update(activity="distilling")
            record = self.distillation.outer_step()
            recorder.append("metrics", asdict(record))
            self.reporter.stepped(record)
            elapsed = time.perf_counter() - begun
            self.seconds = seconds_before + elapsed
            self.heartbeat.update(
                step=self.distillation.step,
                seconds_per_step=elapsed / (self.distillation.step - first),
            )
            due = time.perf_counter() - saved_at >= self.environment.checkpoint_seconds
            last = self.distillation.step == self.config.outer_steps
            asked = self.group.any(self._must_stop())
            if due or last or asked:
                self._checkpoint(recorder, recorder.sizes())
                saved_at = time.perf_counter()
            if asked:
                self._interrupt()
        self._measure(recorder)

    def _checkpoint(self, recorder: Recorder, sizes: dict[str, int]) -> None:
        """Save the state, and the sizes of the records that belong to it."""
        recorder.sync()
        self.folder.save_checkpoint(
            {
                "distillation": self.distillation.state(),
                "best": vars(self.best) if self.best else None,
                "record_sizes": sizes,
                "seconds": self.seconds,
            }
        )

    def _measure(self, recorder: Recorder) -> None:
        """What is due before outer step `distillation.step`, or after the last one."""
        step, config = self.distillation.step, self.config
        is_last = step == config.outer_steps
        if config.variance_every and step % config.variance_every == 0 and not is_last:
            self.heartbeat.update(activity="measuring variance")
            variance = self.distillation.normalized_variance()
            self._record(recorder, {"step": step, "normalized_variance": variance})
        if config.accuracy_every and (step % config.accuracy_every == 0 or is_last):
            self.heartbeat.update(activity="measuring accuracy")
            measured = evaluate(
                config,
                self.target_set,
                self.distillation.images,
                self.distillation.labels,
                networks=config.accuracy_networks,
                steps=[config.accuracy_steps],
                purpose="accuracy",
                indices=(step,),
                check=self._stop_if_asked,
            )
            record = {"step": step, **measured.summary(config.selection)}
            if config.boost_block:
                record["ipc"] = len(self.distillation.images) // len(self.target_set.classes)
            self._record(recorder, record)
            self._keep_if_best(measured)

    def _record(self, recorder: Recorder, measurement: dict[str, Any]) -> None:
        recorder.append("measurements", measurement)
        self.reporter.measured(measurement)

    def _keep_if_best(self, measured: Evaluation) -> None:
        if not self.distillation.is_whole:
            return  # a boosted set is chosen from when its last block has joined
        judged = measured.test if self.config.selection == "test" else measured.validation
        accuracy = judged.mean().item()
        if self.best is None or accuracy > self.best.accuracy:
            self.best = Best(
                self.distillation.step,
                accuracy,
                self.distillation.images.detach().clone(),
                self.distillation.labels.detach().clone(),
            )

    # --- the end

    def _finish(self) -> dict[str, Any]:
        parameters = self.distillation.parameters
        images, labels, step = (
            (self.best.images.to(self.device), self.best.labels.to(self.device), self.best.step)
            if self.best
            else (self.distillation.images, self.distillation.labels, self.distillation.step)
        )
        final = FinalSet(images, labels, step, parameters.storage_floats)
        ending = FinalEvaluation(
            self.config,
            self.target_set,
            self.folder,
            final,
            self._report_evaluation,
            self._stop_if_asked,
        )
        result = {
            "finished": now(),
            "outer_steps": self.config.outer_steps,
            **ending.results(),
            "data": (self.folder.read("manifest") or {})["data"],
            "seconds": self.seconds,
            "peak_memory_bytes": versions.peak_memory_bytes(self.device),
        }
        self.folder.write("result", result)
        forget_previous(self.folder)
        ending.forget()
        return result

    def _report_evaluation(self, what: str, trained: int) -> None:
        networks = self.config.evaluation_networks
        self.heartbeat.update(activity=f"evaluating{what} {trained}/{networks}")
        self.reporter.evaluating(what, trained, networks)

    # --- interruption

    def _must_stop(self) -> bool:
        return self.stop.asked or self.heartbeat.superseded

    def _stop_if_asked(self) -> None:
        """While this process alone is at work: the others' requests are heard at the next step."""
        if self._must_stop():
            self._interrupt()

    def _interrupt(self) -> NoReturn:
        at = f"after outer step {self.distillation.step}"
        if self.heartbeat.superseded:
            raise Superseded(
                f"left {at} to {self.folder.taken_over_by()}, which has claimed the run"
            )
        raise Interrupted(f"stopped {at}")
