"""The manifest of a run: what produced its numbers, with an entry for every start. It is all that
`bench.run from=` needs to make the run again."""

import os
import sys
from typing import Any

import torch

from bench.config.identity import identity
from bench.config.run_config import RunConfig
from bench.runs.configuration import as_written
from bench.runs.lockstep import Setup
from bench.runs.records import load_checkpoint
from bench.runs.run_folder import RunFolder, now
from bench.system import git, versions
from bench.system.errors import Damaged


def restore_manifest(folder: RunFolder) -> None:
    """If the manifest of a run is damaged or missing, write it again as its checkpoint has it:
    another number of threads would round differently. Without a checkpoint, the run starts from its
    beginning, with a new manifest.

    Raises:
        Damaged: the manifest is, and the checkpoint is of a version that did not have it.
        UserError: the checkpoint is damaged too.
    """
    try:
        if folder.read("manifest") is not None:
            return
        damage = None
    except Damaged as error:
        damage = error
    checkpoint = load_checkpoint(folder.path)
    if checkpoint is None:
        folder.remove("manifest.json")
    elif "manifest" in checkpoint:
        folder.write("manifest", checkpoint["manifest"])
    elif damage:
        raise damage
    what = damage or (checkpoint and f"{folder.path}/manifest.json is missing")
    if what:
        print(f"warning: {str(what).partition(';')[0]}; written again", file=sys.stderr)


def record_start(folder: RunFolder, config: RunConfig, setup: Setup) -> dict[str, Any]:
    """Add this start of the run to its manifest, which is returned, and store the uncommitted
    changes of the code."""
    target_set = setup.target_set
    manifest = folder.read("manifest") or {
        "identity": identity(config),
        "config": as_written(config),
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
    git.record_uncommitted_diff(folder.path)
    return manifest
