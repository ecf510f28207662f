"""`python -m bench.scores distilled=PATH`: a distilled set compared with random real images and the
full training set, and the scores of DD-Ranking."""

from typing import TYPE_CHECKING

from bench.config.command_line import command, parse
from bench.config.protocol import ProtocolOptions
from bench.config.read_settings import ScoreSettings
from bench.config.run_config import Environment
from bench.evaluation.interpretation import SubjectOptions
from bench.runs.subject import Subject, set_up, training_text
from bench.system.choices import FULL, HARD, OWN, RANDOM, RANDOM_HARD
from bench.system.errors import UserError, resumes_after
from bench.system.text import SELECTION_LABELS, accuracy_text, count

if TYPE_CHECKING:
    from bench.evaluation.dd_ranking import Difference, Scores

USAGE = """
python -m bench.scores distilled=PATH [key=value ...]   HLR, IOR and the accuracies behind them
  the same command resumes after the last saved network
"""


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    subject = set_up(parse(argv, SubjectOptions, ProtocolOptions, ScoreSettings, Environment))
    if subject.images is None or subject.labels is None:
        raise UserError(
            "scores need a distilled set; random real images are what it is compared with"
        )
    if subject.classes is None:
        largest = subject.labels == subject.labels.amax(dim=1, keepdim=True)
        if ties := int((largest.sum(dim=1) > 1).sum()):
            print(f"note: {ties} images have several largest labels; the first is their hard label")

    from bench.evaluation.dd_ranking import score

    config = subject.config
    print(protocol_text(subject), flush=True)

    def report(name: str, trained: int) -> None:
        print(
            f"{name}: trained {trained} of {count(config.evaluation_networks, 'network')}",
            flush=True,
        )

    with resumes_after("the last saved network"):
        scores = score(
            config,
            subject.target_set,
            subject.images,
            subject.labels,
            classes=subject.classes,
            report=report,
            save=subject.saved("-scores").evaluation,
        )
    print(f"{subject.what}: {subject.options.distilled}")
    print_scores(scores)
    print(f"recorded in {subject.record('-scores', scores.figures())}")
    return 0


def protocol_text(subject: Subject) -> str:
    """The protocol of all evaluations, in one line."""
    config, images = subject.config, len(subject.target_set.train)
    size = min(config.full_train_batch_size, images)
    most = max(config.full_train_steps or config.evaluation_steps)
    held_out = len(subject.target_set.validation)
    return (
        f"training: {training_text(config, subject.protocol)}; distilled and random images for up"
        f" to {max(config.evaluation_steps)} steps; the full training set ({images} images,"
        f" {held_out} more held out) for up to {most} steps of {size}"
        f" = {most * size / images:.1f} epochs (full_train_batch_size=... full_train_steps=[...])"
    )


def print_scores(scores: "Scores") -> None:
    """Print the accuracies and the scores."""
    print("test accuracy in per cent (mean ± standard deviation over n networks, the same initial")
    print("networks in every row), at the selected number of steps")
    soft = scores.evaluations[HARD] is not scores.evaluations[OWN]
    for name in (FULL, OWN, HARD, RANDOM, RANDOM_HARD) if soft else (FULL, HARD, RANDOM_HARD):
        summary = scores.evaluations[name].summary(scores.selection)
        print(f"  {name:<37} {accuracy_text(summary):<28} {summary['steps']:>6} steps")
    full = scores.evaluations[FULL]
    if full.steps[full.selected(scores.selection)] == full.steps[-1]:
        print(
            "  the full training set is best at its last step count and may need longer training:"
        )
        print("  full_train_steps=[...]")
    if soft:
        print("  hard labels: 1 for the image's class, else 0. The same labels: a random image has")
        print("  those of a distilled image of its class (DD-Ranking uses a teacher). The class of")
        print("  a distilled image is given by its place in a set of ours, else its largest label")
    for name, difference, better in (
        ("HLR, full - distilled, hard labels", scores.hard_label_recovery, "lower"),
        ("IOR, distilled - random, same labels", scores.improvement_over_random, "higher"),
    ):
        text = difference_text(difference, scores.selection)
        print(f"  {name:<37} {text:<28} {better} is better")
    label = SELECTION_LABELS.get(scores.selection, "")
    print(
        f"  {'DD-Ranking score, w = 0.5':<37} {scores.score():.3f}{f' ({label})' if label else ''}"
    )


def difference_text(difference: "Difference", selection: str) -> str:
    """Mean, standard deviation over networks and n, in percentage points, with the label of the
    selection."""
    summary = {
        "test_accuracy_mean": difference.mean,
        "test_accuracy_std": difference.std,
        "n": len(difference.each),
        "selection": selection,
    }
    return accuracy_text(summary)


if __name__ == "__main__":
    command(main, USAGE, SubjectOptions, ProtocolOptions, ScoreSettings, Environment)
