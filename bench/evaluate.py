"""`python -m bench.evaluate distilled=PATH`: the accuracy of a distilled set, ours or others'."""

from functools import partial
from typing import TYPE_CHECKING, Any

from bench.config.command_line import command, parse
from bench.config.protocol import ProtocolOptions
from bench.config.read_settings import EvaluationSettings
from bench.config.run_config import Environment
from bench.evaluation.interpretation import SubjectOptions
from bench.runs.subject import Subject, set_up, training_text
from bench.system.errors import resumes_after
from bench.system.text import accuracy_text, count, percent

if TYPE_CHECKING:
    from bench.evaluation.evaluation import Evaluation

USAGE = """
python -m bench.evaluate distilled=PATH [key=value ...]   train fresh networks on a distilled set
python -m bench.evaluate distilled=real_images            the same on random real images
  the same command resumes after the last saved network
"""


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    subject = set_up(parse(argv, SubjectOptions, ProtocolOptions, EvaluationSettings, Environment))

    config = subject.config
    print(f"training: {training_text(config, subject.protocol)}", flush=True)
    with resumes_after("the last saved network"):
        evaluation = evaluated(subject)
    summary = evaluation.summary(config.selection)
    print(f"{subject.what}: {subject.options.distilled}")
    print_table(evaluation, summary)
    print(f"recorded in {subject.record('', {'evaluation': summary})}")
    return 0


def evaluated(subject: Subject) -> "Evaluation":
    """Evaluate as a run's final evaluation does, and print progress. On a distilled set the
    networks are the same, too; on random real images they are others."""
    from bench.evaluation.dd_ranking import PURPOSE
    from bench.evaluation.fresh_networks import evaluate, evaluate_real_images
    from bench.system.choices import OWN

    config, target_set = subject.config, subject.target_set
    how: dict[str, Any] = {
        "networks": config.evaluation_networks,
        "steps": config.evaluation_steps,
        "purpose": PURPOSE,
    }

    def report(trained: int) -> None:
        print(f"trained {trained} of {count(config.evaluation_networks, 'network')}", flush=True)

    if subject.images is None or subject.labels is None:
        make = partial(evaluate_real_images, config, target_set, **how)
    else:
        make = partial(evaluate, config, target_set, subject.images, subject.labels, **how)
    return subject.saved("").evaluation(OWN, make, report)


def print_table(evaluation: "Evaluation", summary: dict[str, Any]) -> None:
    """Print the accuracies at every number of steps, and the selected one."""
    n = summary["n"]
    parts = {"validation": evaluation.validation, "test": evaluation.test}
    if evaluation.train is not None:
        parts = {"train": evaluation.train, **parts}
    names = " ".join(f"{name:>16}" for name in parts)
    print(f"{'steps':>8} {names}   (mean ± standard deviation, n={n})")
    for column, steps in enumerate(evaluation.steps):
        cells = " ".join(
            f"{percent(each.mean().item(), each.std().item() if n > 1 else None):>16}"
            for values in parts.values()
            for each in [values[:, column]]
        )
        chosen = f"   <- selected by {summary['selection']}" if steps == summary["steps"] else ""
        print(f"{steps:>8} {cells}{chosen}")
    print(f"test accuracy {accuracy_text(summary)}")


if __name__ == "__main__":
    command(main, USAGE, SubjectOptions, ProtocolOptions, EvaluationSettings, Environment)
