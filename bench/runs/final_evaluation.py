"""The final evaluation of a run: its distilled set is evaluated, stored and drawn.

Trained networks are saved (`saved_evaluations.py`): a run that is stopped here resumes here.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

from torch import Tensor

from bench.config.resolve import on_network
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.boosting import prefix
from bench.distillation.divergence import Diverged
from bench.distillation.parameterization import budget
from bench.evaluation.dd_ranking import PURPOSE, score
from bench.evaluation.distilled_set import DistilledSet
from bench.evaluation.evaluation import Evaluation
from bench.evaluation.fresh_networks import evaluate
from bench.runs.image_grid import save_picture
from bench.runs.run_folder import PICTURE, SET_FILE, RunFolder
from bench.runs.saved_evaluations import FILE, SavedEvaluations, hash_of, hash_of_code
from bench.system import text
from bench.system.choices import OWN, PICTURE_COLUMNS
from bench.training.batches import classes_by_place


@dataclass(frozen=True)
class FinalSet:
    """The distilled set that a run ends with.

    Attributes:
        images: [classes*ipc, C, H, W], preprocessed like the target set.
        labels: [classes*ipc, classes].
        step: the number of outer steps after which it was chosen.
        storage_floats: numbers that are learned and have to be stored.
    """

    images: Tensor
    labels: Tensor
    step: int
    storage_floats: int


@dataclass(frozen=True)
class FinalEvaluation:
    """All evaluations of the final set of one run.

    Attributes:
        report: called with what is evaluated (such as " on vgg11"; empty for the final set itself)
            and with the number of networks trained.
        check: called after every training step; what it raises ends the evaluation.
    """

    config: RunConfig
    target_set: TargetSet
    folder: RunFolder
    final: FinalSet
    report: Callable[[str, int], None]
    check: Callable[[], None]

    def results(self) -> dict[str, Any]:
        """Evaluate, store and draw the set; returns its part of result.json.

        Raises:
            Diverged: no network trained on the set is finite.
        """
        config, final = self.config, self.final
        evaluation = self._evaluate(OWN, config, final.images, final.labels, "")
        if evaluation.all_not_finite(config.selection):
            networks = text.count(config.evaluation_networks, "network")
            raise Diverged(f"none of {networks} trained on the final set is finite")
        storage = {
            "storage_floats": final.storage_floats,
            "budget_floats": budget(config, self.target_set).floats,
        }
        self._store(storage)
        self._draw()
        results = {
            "distilled_step": final.step,
            "evaluation": evaluation.summary(config.selection),
            **storage,
        }
        if config.boost_block:
            results["prefixes"] = self._prefixes(evaluation)
        if config.transfer_to:
            results["transfers"] = self._transfers()
        if config.scores:
            results["scores"] = self._scores()
        return results

    # --- files

    def _store(self, storage: dict[str, int]) -> None:
        metadata = {
            "dataset": self.config.dataset,
            "fingerprint": self.target_set.fingerprint,
            "classes": self.target_set.classes,
            "space": "preprocessed",
            "zca": self.config.zca,
            "zca_lambda": self.config.zca_lambda,
            "outer_step": self.final.step,
            **storage,
            "config": asdict(self.config),
        }
        distilled = DistilledSet(self.final.images, self.final.labels, metadata)
        distilled.save(self.folder.path / SET_FILE)

    def _draw(self) -> None:
        """One class a row, or `PICTURE_COLUMNS` images where there is one of each."""
        per_class = len(self.final.images) // len(self.target_set.classes)
        columns = per_class if per_class > 1 else PICTURE_COLUMNS
        picture = self.folder.path / PICTURE
        save_picture(picture, self.final.images, self.target_set.whitening, columns)

    # --- evaluations

    def _prefixes(self, whole: Evaluation) -> list[dict[str, Any]]:
        """The accuracy of the first block, of the first two, ... of a boosted set, evaluated like
        the whole set and with the same networks; the last one is the whole set."""
        config, prefixes = self.config, []
        for count in range(config.boost_block, config.ipc + 1, config.boost_block):
            evaluation = self._evaluate_prefix(count) if count < config.ipc else whole
            prefixes.append({"ipc": count, **evaluation.summary(config.selection)})
        return prefixes

    def _evaluate_prefix(self, count: int) -> Evaluation:
        classes = len(self.target_set.classes)
        images, labels = (
            prefix(part, classes, count) for part in (self.final.images, self.final.labels)
        )
        name, what = f"{count} images a class", f" {text.count(count, 'image')} a class"
        return self._evaluate(name, self.config, images, labels, what)

    def _transfers(self) -> dict[str, Any]:
        """The evaluation with each network of `transfer_to`, as in `bench.evaluate arch=`."""
        return {
            arch: self._evaluate_on(arch).summary(self.config.selection)
            for arch in self.config.transfer_to
        }

    def _evaluate_on(self, arch: str) -> Evaluation:
        other = on_network(self.config, arch)
        return self._evaluate(arch, other, self.final.images, self.final.labels, f" on {arch}")

    def _scores(self) -> dict[str, Any]:
        """What `bench.scores` records of the set, whose own evaluation is saved already."""
        final = self.final
        return score(
            self.config,
            self.target_set,
            final.images,
            final.labels,
            classes=classes_by_place(final.labels),
            report=lambda name, trained: self.report(f" {name}", trained),
            check=self.check,
            save=self._saved.evaluation,
        ).figures()

    def _evaluate(
        self, name: str, config: RunConfig, images: Tensor, labels: Tensor, what: str
    ) -> Evaluation:
        make = partial(
            evaluate,
            config,
            self.target_set,
            images,
            labels,
            networks=config.evaluation_networks,
            steps=config.evaluation_steps,
            purpose=PURPOSE,
            check=self.check,
        )
        return self._saved.evaluation(name, make, partial(self.report, what))

    @cached_property
    def _saved(self) -> SavedEvaluations:
        # On a GPU a resumed run may choose another set.
        return SavedEvaluations(
            hash_of(self.final.images, self.final.labels),
            hash_of_code(self.final.images.device),
            self.config.selection,
            partial(self.folder.read, FILE),
            partial(self.folder.write, FILE),
        )
