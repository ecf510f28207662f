"""The manifest of a run: what produced its numbers, with an entry for every start."""

import os
import sys

import torch

from bench.config.identity import identity
from bench.config.run_config import RunConfig
from bench.runs.lockstep import Setup
from bench.runs.run_folder import RunFolder, now
from bench.system import git, versions
from bench.system.files import write_text


def record_start(folder: RunFolder, config: RunConfig, setup: Setup) -> None:
    """Add this start of the run to its manifest, and store the uncommitted changes of the code."""
    target_set = setup.target_set
    manifest = folder.read("manifest") or {
        "identity": identity(config),
        "seed": config.seed,
        "data": {
            "name": target_set.name,
            "source": target_set.source,
            "fingerprint": target_set.fingerprint,
            "train": len(target_set.train),
            "validation": len(target_set.validation),
            "test": len(target_set.test),
        },
        "threads": torch.get_num_threads(),
        "compiled": setup.compiled,
        "starts": [],
    }
    start = {
        "time": now(),
        "step": setup.distillation.step,
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "versions": versions.versions(),
        "hardware": versions.hardware(setup.device),
        "world_size": len(setup.hosts),
        "processes": [{"host": host["host"], "device": host["device"]} for host in setup.hosts],
        **git.commit(),
    }
    manifest["starts"].append(start)
    folder.write("manifest", manifest)
    if diff := git.uncommitted_diff():
        write_text(folder.path / "uncommitted.diff", diff)
