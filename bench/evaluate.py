"""`python -m bench.evaluate distilled=PATH`: the accuracy of a distilled set, ours or others'."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import (
    Place,
    RunConfig,
    experiment_identity,
    refuse_size_of_one_size,
    resolve,
)
from bench.errors import UserError
from bench.files import make_folder, write_json
from bench.grids import choose_scale, merge, single_run
from bench.settings import command, only, parse, setting, typed
from bench.status import accuracy_text

if TYPE_CHECKING:
    from torch import Tensor

    from bench.data import TargetSet
    from bench.data.distilled_set import DistilledSet
    from bench.evaluation import Evaluation

USAGE = """
python -m bench.evaluate distilled=PATH [key=value ...]   train fresh networks on a distilled set
python -m bench.evaluate distilled=real_images            the same with random real images
"""

REAL_IMAGES = "real_images"


@dataclass(frozen=True)
class EvaluateOptions:
    """What this command is asked to do."""

    distilled: str = setting(
        "", f"a .safetensors or .npz file, a run folder, or {REAL_IMAGES}: ipc of them a class"
    )
    scale: str = setting(
        "auto", "auto, quick, cpu or paper, where the file states no configuration"
    )
    space: str = setting(
        "auto",
        "what the images in the file are: whitened like the target set, or pixels in [0, 1];"
        " auto: what the file says, else preprocessed",
        ("auto", "preprocessed", "pixels"),
    )


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, EvaluateOptions, RunConfig, Place)
    options = typed(EvaluateOptions, only(given, EvaluateOptions))
    place = typed(Place, only(given, Place))
    overrides = {key: value for key, value in only(given, RunConfig).items() if key != "scale"}
    if not options.distilled:
        raise UserError(f"name a distilled set: distilled=PATH or distilled={REAL_IMAGES}")
    out = make_folder(Path(place.results_root) / "evaluations", "results folder")

    import torch

    from bench import manifest
    from bench.evaluation import evaluate, evaluate_real_images
    from bench.ingredients import choose_device, load_data, settle_process

    settle_process()
    device = choose_device(place.device)
    if place.threads:
        torch.set_num_threads(place.threads)
    found = None
    if options.distilled != REAL_IMAGES:
        found = load(Path(options.distilled))
    config = configuration(found, options, overrides)
    target_set = load_data(config, place, device)
    print(
        f"{network_text(config)} tested on {target_set.source},"
        f" fingerprint {target_set.fingerprint}, {device}",
        flush=True,
    )
    if found is None:
        what = f"{config.ipc} random real images a class"
        evaluation = evaluate_real_images(config, target_set, **protocol(config))
    else:
        images, labels, what = prepared(found, config, options, target_set)
        evaluation = evaluate(config, target_set, images, labels, **protocol(config))
    summary = evaluation.summary(config.selection)
    print(f"{what}: {options.distilled}")
    print_table(evaluation, summary)
    record = {
        "distilled": options.distilled,
        "what": what,
        "data": {"source": target_set.source, "fingerprint": target_set.fingerprint},
        "config": asdict(config),
        "evaluation": summary,
        "versions": manifest.versions(),
        **manifest.commit(),
    }
    content = f"{options.distilled} {experiment_identity(config)} {config.seed}"
    name = f"{Path(options.distilled).stem}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    write_json(out / f"{name}.json", record)
    print(f"recorded in {out / name}.json")
    return 0


def load(path: Path) -> "DistilledSet":
    """The distilled set at `path`, which may be a run folder."""
    from bench.data.distilled_set import load_distilled_set

    return load_distilled_set(path / "distilled.safetensors" if path.is_dir() else path)


def configuration(
    found: "DistilledSet | None", options: EvaluateOptions, overrides: dict[str, Any]
) -> RunConfig:
    """The setting to evaluate in: what the file states of itself, else the scale; the command line
    over both. Only the parts that an evaluation uses matter."""
    stated = found.metadata.get("config") if found else None
    if stated:
        # A file of another version may state settings that are no more; what is left is filled in.
        config = resolve(merge(only(stated, RunConfig), overrides))
        refuse_size_of_one_size(config, overrides)
        return config
    scale, why = choose_scale(options.scale)
    print(f"scale={scale} ({why})")
    return single_run(scale, overrides)


def prepared(
    found: "DistilledSet", config: RunConfig, options: EvaluateOptions, target_set: "TargetSet"
) -> tuple["Tensor", "Tensor", str]:
    """The images, preprocessed like the target set, their labels as probabilities, and a
    description.

    Raises:
        UserError: the set does not fit the target set.
    """
    import torch
    import torch.nn.functional as F

    images, labels = found.images, found.labels
    if tuple(images.shape[1:]) != target_set.image_shape:
        raise UserError(
            f"the distilled images are {'x'.join(map(str, images.shape[1:]))}, those of"
            f" {target_set.name} {'x'.join(map(str, target_set.image_shape))}; name the"
            " dataset=... and image_size=... that they were distilled at"
        )
    space = (
        found.metadata.get("space", "preprocessed") if options.space == "auto" else options.space
    )
    if space == "pixels":
        images = target_set.whitening.apply(images)
    classes = len(target_set.classes)
    if labels.dim() == 1:
        if labels.min() < 0 or labels.max() >= classes:
            raise UserError(f"labels from {labels.min()} to {labels.max()}, but {classes} classes")
        labels = F.one_hot(labels.long(), classes)
    if labels.shape[1] != classes:
        raise UserError(f"the labels are for {labels.shape[1]} classes, not {classes}")
    stated = found.metadata.get("fingerprint")
    if stated and stated != target_set.fingerprint:
        print(f"note: distilled from other data ({stated}) than it is tested on")
    if "config" not in found.metadata:  # made elsewhere: in any order, of any number a class
        order = torch.argsort(labels.argmax(dim=1), stable=True)
        images, labels = images[order], labels[order]
        counts = labels.argmax(dim=1).bincount(minlength=classes)
        if (config.inner_classes or config.inner_ipc) and len(counts.unique()) > 1:
            raise UserError(
                "inner_classes and inner_ipc draw batches class by class, but the classes have"
                f" {counts.min()} to {counts.max()} distilled images"
            )
    what = f"{len(images)} distilled images ({space})"
    like = target_set.train.images
    return images.to(like), labels.to(like), what


def network_text(config: RunConfig) -> str:
    """Which network, and of what size where that can be chosen."""
    size = f" (width {config.width}, depth {config.depth})" if config.depth else ""
    return f"{config.arch}{size}"


def protocol(config: RunConfig) -> dict[str, Any]:
    """The final evaluation of a run, told as it goes: the same networks as there."""

    def report(trained: int) -> None:
        print(f"trained {trained} of {config.evaluation_networks} networks", flush=True)

    return {
        "networks": config.evaluation_networks,
        "steps": config.evaluation_steps,
        "purpose": "evaluation",
        "report": report,
    }


def print_table(evaluation: "Evaluation", summary: dict[str, Any]) -> None:
    """Accuracies at every number of steps, and which of them counts."""
    n = summary["n"]
    print(f"{'steps':>8} {'validation':>16} {'test':>16}   (mean ± standard deviation, n={n})")
    for column, steps in enumerate(evaluation.steps):
        cells = []
        for values in (evaluation.validation[:, column], evaluation.test[:, column]):
            spread = f" ± {100 * values.std().item():.1f}" if n > 1 else ""
            cells.append(f"{100 * values.mean().item():.1f}{spread}")
        chosen = f"   <- selected by {summary['selection']}" if steps == summary["steps"] else ""
        print(f"{steps:>8} {cells[0]:>16} {cells[1]:>16}{chosen}")
    print(f"test accuracy {accuracy_text(summary)}")


if __name__ == "__main__":
    command(main, USAGE, EvaluateOptions, RunConfig, Place)
