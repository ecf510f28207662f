"""An anatomy from its distilled set to its result, network by network; resumes where it stopped."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.anatomies import summary
from bench.anatomies.folder import FOLDER, AnatomyFolder, named
from bench.anatomies.measure import STATES, Measurer
from bench.anatomies.options import AnatomyOptions, starts_of, stops_of
from bench.config.identity import identity
from bench.config.run_config import Environment, RunConfig
from bench.evaluation.fresh_networks import random_real_images
from bench.runs.records import CHECKPOINT_BEFORE, load_checkpoint, save_checkpoint
from bench.runs.run_folder import name_of, now
from bench.runs.subject import Subject
from bench.system import git, versions
from bench.system.files import make_folder
from bench.training.setup import activation_budget, compiles

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Anatomy:
    """What is measured, and where it is written.

    Attributes:
        images: [classes*ipc, C, H, W], preprocessed like the target set.
        labels: [classes*ipc, classes].
        starts, stops: of the windows.
    """

    subject: Subject
    options: AnatomyOptions
    environment: Environment
    config: RunConfig
    folder: AnatomyFolder
    images: Tensor
    labels: Tensor
    starts: list[int]
    stops: list[int]

    @property
    def count(self) -> int:
        """The number of windows."""
        return sum(start < stop for stop in self.stops for start in self.starts)

    @property
    def gradient_bytes(self) -> int:
        """The gradients of all windows of one network."""
        learned = [self.images, self.labels] if self.config.learn_labels else [self.images]
        return self.count * sum(part.nbytes for part in learned)

    def execute(self, report: Callable[[int, Records], None]) -> dict[str, Any]:
        """Measure the networks that are not done yet, and return the result.

        Args:
            report: called after each network with its number and its records.

        Raises:
            UserError: another process measures the same, or a file is damaged.
        """
        make_folder(self.folder.path, "results folder")
        with self.folder.lock():
            if self.options.force:
                self.folder.clear()
            measured = load_checkpoint(self.folder.path) or {"records": [], "sums": None}
            done = len(measured["records"]) // self.count
            # An extension that was interrupted has more networks than the result.
            result = self.folder.read("result")
            if done >= self.options.networks and result and result["networks"] == done:
                return result
            return self._measure(measured, done, report)

    def _measure(
        self, measured: dict[str, Any], done: int, report: Callable[[int, Records], None]
    ) -> dict[str, Any]:
        """Measure the networks from `done` on.

        Args:
            measured: the checkpoint: "records" of the networks that are done, "sums" of their
                gradients [windows, D], and their "seconds".
        """
        measurer = self._measurer(done)
        records, seconds = measured["records"], measured.get("seconds", 0.0)
        sums = measured["sums"]
        sums = None if sums is None else sums.to(self.images)
        for k in range(done, self.options.networks):
            since = time.perf_counter()
            own, gradients = measurer.network(k)
            sums = gradients if sums is None else sums.add_(gradients)
            records += own
            seconds += time.perf_counter() - since
            state = {"records": records, "sums": sums.cpu(), "seconds": seconds}
            save_checkpoint(self.folder.path, state)
            report(k, own)
        assert sums is not None
        squared_norms = sums.double().square().sum(dim=1).tolist()
        rows = summary.windows(records, STATES[self.config.inner_optimizer], squared_norms)
        result = {
            "finished": now(),
            "networks": len(records) // self.count,
            "variance_networks": min(self.options.variance_networks, len(records) // self.count),
            "seconds": seconds,
            "windows": rows,
        }
        self.folder.write_finished(records, result)
        (self.folder.path / CHECKPOINT_BEFORE).unlink(missing_ok=True)
        return result

    def _measurer(self, done: int) -> Measurer:
        """Write settings and manifest, and return what measures a network."""
        device = self.images.device
        manifest = self.folder.read("manifest") or {}
        # As a run does: resumed with the same number of threads, compiled or not.
        if manifest:
            torch.set_num_threads(manifest["threads"])
            compiled = manifest["compiled"]
        else:
            compiled = compiles(self.config, self.environment, device)
        target_set = self.subject.target_set
        self.folder.write(
            "settings",
            {
                "distilled": self.subject.options.distilled,
                "what": self.subject.what,
                **self.subject.set_checksum(),
                "notes": list(self.subject.notes),
                "options": asdict(self.options),
                "starts": self.starts,
                "stops": self.stops,
                "state": list(STATES[self.config.inner_optimizer]),
                "config": asdict(self.config),
            },
        )
        start = {
            "time": now(),
            "networks_done": done,
            "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
            "versions": versions.versions(),
            "hardware": versions.hardware(device),
            **git.commit(),
        }
        self.folder.write(
            "manifest",
            {
                "data": {"source": target_set.source, "fingerprint": target_set.fingerprint},
                "threads": torch.get_num_threads(),
                "compiled": compiled,
                "starts": [*manifest.get("starts", []), start],
            },
        )
        git.record_uncommitted_diff(self.folder.path)
        return Measurer(
            *(self.config, target_set, self.images, self.labels, self.starts, self.stops),
            variance_networks=self.options.variance_networks,
            activation_budget=activation_budget(self.environment, device),
            compiled=compiled,
        )


def prepare(subject: Subject, options: AnatomyOptions, environment: Environment) -> Anatomy:
    """The anatomy of a distilled set; writes nothing.

    Raises:
        UserError: `distilled=real_images`, and some class has too few.
    """
    config = replace(subject.config, engine="exact")  # it changes no number but by rounding
    images, labels = subject.images, subject.labels
    if images is None or labels is None:
        classes = len(subject.target_set.classes)
        images = random_real_images(config, subject.target_set, [config.ipc] * classes, 0)
        labels = torch.eye(classes).repeat_interleave(config.ipc, dim=0).to(images)
    determining = {
        "identity": identity(config),
        "set": digest(images, labels),
        "data": subject.target_set.fingerprint,
        "stops": options.stops,
        "starts": options.starts,
        "variance_networks": options.variance_networks,
    }
    stem = Path(name_of(subject.options.distilled)).stem
    root = Path(environment.results_root) / FOLDER
    return Anatomy(
        *(subject, options, environment, config),
        AnatomyFolder(root / named(stem or "set", determining)),
        *(images, labels),
        starts_of(config.unroll_length, options.starts),
        stops_of(config.unroll_length, options.stops),
    )


def digest(*tensors: Tensor) -> str:
    """A hash of tensors, of whatever floating point type."""
    combined = hashlib.sha256()
    for tensor in tensors:
        combined.update(tensor.detach().cpu().double().numpy().tobytes())
    return combined.hexdigest()[:16]
