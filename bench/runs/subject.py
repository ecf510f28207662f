"""The distilled set that `bench.evaluate`, `bench.scores` and `bench.anatomy` are about, and the
configuration that its networks are trained with."""

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.command_line import converted, only
from bench.config.evaluation_optimizer import optimizer_text, refuse_unused
from bench.config.grid import choose_scale, merge, single_run
from bench.config.identity import experiment_identity, images_per_class, values_before
from bench.config.objectives import UNROLLED
from bench.config.protocol import ProtocolOptions
from bench.config.resolve import NOT_OF_AN_EVALUATION, refuse_size_of_one_size, resolve
from bench.config.run_config import Environment, RunConfig
from bench.config.values import shown
from bench.config.without_effect import refuse_without_effect
from bench.evaluation.interpretation import REAL_IMAGES, WARNING, SubjectOptions, prepared
from bench.runs.json_files import OF_A_RUN, read_whole, with_checksum
from bench.runs.run_folder import SET_FILE, RunFolder
from bench.system.errors import Unwritable, UserError
from bench.system.files import checksum, exists, make_folder, remove_orphans, write_json
from bench.system.machine import cpu_cores
from bench.system.text import count

if TYPE_CHECKING:
    from torch import Tensor

    from bench.data import TargetSet
    from bench.evaluation.distilled_set import DistilledSet
    from bench.runs.saved_evaluations import SavedEvaluations

UNFINISHED = ".part"  # in place of ".json"
STEM_LENGTH = 100  # of the set in the name of a record; file names have at most 255 bytes
# A run needs another setting to read these; scores and anatomies always do.
READ_ALONE = ("full_train_batch_size", "full_train_steps", "variance_samples")


@dataclass(frozen=True)
class Subject:
    """A distilled set with all that it takes to train networks on it.

    Attributes:
        images: [n, C, H, W], preprocessed like `target_set`; None for random real images.
        labels: [n, classes], not negative; None for random real images.
        classes: of each image [n] in a set of ours, which is ordered by class; else None.
        what: a description, such as "10 distilled images (pixels)".
        notes: what was assumed.
        protocol: whose, in words; "" for that of the set or the scale.
    """

    options: SubjectOptions
    config: RunConfig
    target_set: "TargetSet"
    out: Path
    images: "Tensor | None"
    labels: "Tensor | None"
    classes: "Tensor | None"
    what: str
    notes: tuple[str, ...]
    protocol: str = ""

    def saved(self, kind: str) -> "SavedEvaluations":
        """Evaluations in a file beside the record, with which the same command goes on; `record`
        removes it. Where it cannot be written, nothing is saved."""
        from bench.runs.saved_evaluations import FILE, SavedEvaluations, hash_of, hash_of_code

        path = self._path(kind).with_suffix(UNFINISHED)
        sets = [part for part in (self.images, self.labels) if part is not None]
        code = hash_of_code(self.target_set.test.images.device)

        def write(content: dict[str, Any]) -> None:
            with suppress(Unwritable):  # `record` will say so, after the result was printed
                write_json(path, with_checksum(content))

        return SavedEvaluations(
            hash_of(*sets, self.target_set.fingerprint, code),
            code,
            self.config.selection,
            lambda: read_whole(path, OF_A_RUN[FILE]),
            write,
        )

    def record(self, kind: str, content: dict[str, Any]) -> Path:
        """Write a JSON file of this evaluation and return its path.

        Args:
            kind: part of the file's name, such as "-scores"; the rest follows from the settings.
        """
        from bench.system import git, versions

        record = {
            "distilled": self.options.distilled,
            "what": self.what,
            "read_as": asdict(self.options),
            "notes": list(self.notes),
            **({"protocol": self.protocol} if self.protocol else {}),
            "data": {
                "source": self.target_set.source,
                "fingerprint": self.target_set.fingerprint,
            },
            "config": asdict(self.config),
            **self.set_checksum(),
            **content,
            "versions": versions.versions(),
            **git.commit(),
        }
        path = self._path(kind)
        remove_orphans(self.out, by_others=None)
        write_json(path, with_checksum(record))
        path.with_suffix(UNFINISHED).unlink(missing_ok=True)
        return path

    def set_checksum(self) -> dict[str, int]:
        """For a record, by which its reader tells whether a rerun has replaced the set since;
        nothing for what is no single file."""
        file = file_of(self.options.distilled)
        return {"set_checksum": checksum(file)} if file.is_file() else {}

    def _path(self, kind: str) -> Path:
        named_by = f"{self.options} {experiment_identity(self.config)} {self.config.seed}"
        digest = hashlib.sha256(named_by.encode()).hexdigest()[:12]
        stem = os.fsencode(Path(self.options.distilled).stem)[:STEM_LENGTH].decode(errors="ignore")
        return self.out / f"{stem}{kind}-{digest}.json"


def set_up(given: dict[str, Any], folder: str = "evaluations", evaluates: bool = True) -> Subject:
    """Load what a command line names, and print what was assumed.

    Args:
        given: as `command_line.parse` returns it; keys of other schemas are ignored.
        folder: of the records, in results_root.
        evaluates: whether networks are trained as in an evaluation, with its own optimizer.

    Raises:
        UserError: no set is named, or it does not fit the data, the network or the settings.
    """
    options = SubjectOptions(**only(given, SubjectOptions))
    environment = Environment(**only(given, Environment))
    protocol = ProtocolOptions(**only(given, ProtocolOptions))
    of_protocol = protocol.settings()
    overrides = {key: value for key, value in only(given, RunConfig).items() if key != "scale"}
    if not options.distilled:
        raise UserError(f"name a distilled set: distilled=PATH or distilled={REAL_IMAGES}")
    if options.distilled == REAL_IMAGES and options != SubjectOptions(
        distilled=REAL_IMAGES, scale=options.scale
    ):
        raise UserError(f"distilled={REAL_IMAGES} allows no settings for reading a file")
    out = make_folder(Path(environment.results_root) / folder, "results folder")

    import torch

    from bench.training.batches import classes_by_place
    from bench.training.setup import choose_device, load_data, settle_process

    settle_process()
    device = choose_device(environment.device)
    # By default torch uses all cores of the machine, even if a container allows fewer.
    torch.set_num_threads(environment.threads or min(torch.get_num_threads(), cpu_cores()))
    distilled = None if options.distilled == REAL_IMAGES else load(options)
    if distilled is not None and distilled.is_ours:
        of_protocol.pop("zca", None)  # the images are whitened or not, whoever evaluates them
    config = configuration(distilled, options, {**of_protocol, **overrides})
    if augmented := protocol.settings(config.dataset).get("augment_evaluation"):
        of_protocol["augment_evaluation"] = augmented
        config = configuration(distilled, options, {**of_protocol, **overrides})
    verb = "tested on" if evaluates else "on"
    if evaluates:
        refuse_unused(config, overrides)
    elif config.objective != UNROLLED:
        raise UserError(
            f"objective={config.objective} has no trajectory: add objective={UNROLLED} method=bptt"
            " unroll_length=N window_size=N"
        )
    read = {key: value for key, value in overrides.items() if key not in READ_ALONE}
    refuse_without_effect([config], read)
    target_set = load_data(config, environment, device)
    print(
        f"{network_text(config)} {verb} {target_set.source},"
        f" fingerprint {target_set.fingerprint}, {device}",
        flush=True,
    )
    followed = protocol.text(overrides, config.dataset)
    if distilled is None:
        what = f"{count(config.ipc, 'random real image')} per class"
        notes = protocol.notes(config.ipc * len(target_set.classes))
        _print_notes(notes)
        return Subject(options, config, target_set, out, None, None, None, what, notes, followed)
    stated_ipc = images_per_class(config) if "ipc" in overrides or distilled.is_ours else 0
    images, labels, what, notes = prepared(distilled, config, options, target_set, stated_ipc)
    notes = (*notes, *protocol.notes(len(images)))
    _print_notes(notes)
    classes = classes_by_place(labels) if distilled.is_ours else None
    parts = images, labels, classes, what, notes
    return Subject(options, config, target_set, out, *parts, followed)


def _print_notes(notes: tuple[str, ...]) -> None:
    for note in notes:
        print(note if note.startswith(WARNING) else f"note: {note}", flush=True)


def load(options: SubjectOptions) -> "DistilledSet":
    """The distilled set in a file or a run folder."""
    from bench.evaluation.distilled_set import load_distilled_set

    for key, named in (("distilled", options.distilled), ("labels", options.labels)):
        if named and not exists(Path(named)):
            raise UserError(f"{key}={shown(named)}: there is no such file or folder")
    path = Path(options.distilled)
    run = RunFolder((path.parent if path.name == SET_FILE else path).resolve())
    if re.fullmatch(r".+-[0-9a-f]{12}", run.name) and (run.path / "config.json").exists():
        run.config()  # raises if it was changed: then the set is not what the folder's name says
        if file_of(options.distilled).name != SET_FILE:
            raise UserError(
                f"{run.path} has no distilled set: the run is not finished, or was published"
                " without it"
            )
    file = file_of(options.distilled)
    if file.name == SET_FILE:
        RunFolder(file.parent).compare(SET_FILE)
    labels = Path(options.labels) if options.labels else None
    return load_distilled_set(
        file,
        index=options.index,
        labels=labels,
        images_key=options.images_key,
        labels_key=options.labels_key,
    )


def file_of(distilled: str) -> Path:
    """The file or folder that a distilled set is read from: of a run, the set in its folder."""
    path = RunFolder(Path(distilled)).with_result.path
    return path / SET_FILE if (path / SET_FILE).exists() else path


def configuration(
    distilled: "DistilledSet | None", options: SubjectOptions, overrides: dict[str, Any]
) -> RunConfig:
    """The configuration to evaluate with: the file's, else that of the scale, with the settings of
    the command line over it. Only the settings of an evaluation matter."""
    if distilled is not None and distilled.is_ours:
        # A file of another version may have fewer settings, or some that no longer exist.
        written = converted(RunConfig, only(distilled.metadata["config"], RunConfig))
        stated = {**values_before(), **written}
        config = resolve(merge({**stated, **NOT_OF_AN_EVALUATION}, overrides))
        refuse_size_of_one_size(config, overrides)
    else:
        scale, why = choose_scale(options.scale)
        print(f"scale={scale} ({why})")
        config = single_run(scale, overrides)
    return config


def training_text(config: RunConfig, protocol: str = "") -> str:
    """How fresh networks are trained: the optimizer, the augmentation, and whose protocol it is."""
    own = f"{optimizer_text(config)}, augmentation {config.augment_evaluation}"
    return f"{own} ({protocol})" if protocol else own


def network_text(config: RunConfig) -> str:
    """The network, with its size if that is a setting, and whether its biases are left out."""
    size = f" (width {config.width}, depth {config.depth})" if config.depth else ""
    biases = "" if config.conv_bias else ", convolutions without biases"
    return f"{config.arch}{size}{biases}"
