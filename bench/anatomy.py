"""`python -m bench.anatomy distilled=PATH`: what flows through every window of a trajectory."""

import math
from typing import TYPE_CHECKING, Any

from bench.anatomies.options import AnatomyOptions
from bench.config.command_line import command, only, parse, typed
from bench.config.read_settings import AnatomySettings
from bench.config.resolve import check_variance_samples
from bench.config.run_config import Environment
from bench.evaluation.interpretation import SubjectOptions
from bench.runs.subject import set_up
from bench.system.errors import UserError, resumes_after
from bench.system.text import count, duration, mean_std

if TYPE_CHECKING:
    from bench.anatomies.execute import Anatomy

USAGE = """
python -m bench.anatomy distilled=PATH [key=value ...]   the meta-gradient through every window
python -m bench.anatomy distilled=real_images            the same on random real images
  the same command resumes; with more networks it adds those that are missing
"""
ROWS = 12  # of the table that is printed


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, AnatomyOptions, SubjectOptions, AnatomySettings, Environment)
    options = typed(AnatomyOptions, only(given, AnatomyOptions))
    environment = typed(Environment, only(given, Environment))
    subject = set_up(given, "anatomy", evaluates=False)
    if options.variance_networks:
        try:
            check_variance_samples(subject.config)
        except UserError as error:
            raise UserError(f"{error}; variance_networks=0 measures none") from error

    from bench.anatomies.execute import prepare

    anatomy = prepare(subject, options, environment)
    print(f"{subject.what}: {subject.options.distilled}")
    print(plan_text(anatomy), flush=True)

    def report(network: int, records: list[dict[str, Any]]) -> None:
        print(network_text(network, options.networks, records), flush=True)

    with resumes_after("the last network"):
        result = anatomy.execute(report)
    print_table(result, anatomy.stops[-1])
    print(f"recorded in {anatomy.folder.path}")
    print(f"draw it with: python -m analysis.plot figure=anatomy scale={anatomy.config.scale}")
    return 0


def plan_text(anatomy: "Anatomy") -> str:
    """What will be measured."""
    from bench.metagrad.all_windows import step_depends_on_window
    from bench.training.setup import make_inner_optimizer

    config, last = anatomy.config, anatomy.stops[-1]
    text = (
        f"{count(anatomy.count, 'window')} of a trajectory of {count(last, 'inner step')}"
        f" ({config.inner_optimizer}, lr {config.inner_lr:g}, {config.precision}):"
        f" {count(len(anatomy.stops), 'stop')} x {count(len(anatomy.starts), 'start')};"
        f" their gradients take {anatomy.gradient_bytes / 2**20:.1f} MiB"
    )
    if step_depends_on_window(make_inner_optimizer(config), last):
        text += (
            f"\nnote: with inner_eps_form={config.inner_eps_form} the trajectory depends on where"
            " the window starts, so each window has a pass of its own; inner_eps_form=higher (the"
            " form inside the window) needs one for each stop"
        )
    return text


def network_text(network: int, networks: int, records: list[dict[str, Any]]) -> str:
    """One line: the longest window of one network."""
    last = max(record["stop"] for record in records)
    longest = [record for record in records if record["stop"] == last]
    full, shortest = longest[0], longest[-1]
    return (
        f"network {network + 1:>2} of {networks}: outer loss {full['outer_loss']:.3f};"
        f" norm {full['gradient_norm']:.3g} through [0, {last}),"
        f" {shortest['gradient_norm']:.3g} through [{shortest['start']}, {last});"
        f" cotangent of θ {full['cotangent'] / (full['outer_gradient_norm'] or math.nan):.3g} times"
        f" as large at step 0 as at step {last}"
    )


def print_table(result: dict[str, Any], last: int) -> None:
    """Print the windows that end at the last stop."""
    n = result["networks"]
    windows = [window for window in result["windows"] if window["stop"] == last]
    shown = {round(k * (len(windows) - 1) / (ROWS - 1)) for k in range(ROWS)} | {0, 1, 2}
    print(
        f"windows [start, {last}), n = {count(n, 'network')} (variance:"
        f" {result['variance_networks']}) in {duration(result['seconds'])}; norm, growth and"
        " variance: geometric means"
    )
    print(
        "×/÷ one geometric standard deviation; growth: norm of the cotangent of θ_start over that"
        f" of θ_{last}; pure noise has SNR {1 / n:.2f}"
    )
    print(
        f"{'start':>5} {'norm':>16} {'cosine to [0, ' + str(last) + ')':>17} {'SNR':>6}"
        f" {'growth':>14} {'variance':>9} {'seconds':>8}"
    )
    for window in (window for k, window in enumerate(windows) if k in shown):
        cosine = mean_std(window["cosine_to_full_mean"], window["cosine_to_full_std"], ".2f")
        variance = window["normalized_variance_mean"]
        print(
            f"{window['start']:>5} {factor_text(window, 'gradient_norm'):>16} {cosine:>17}"
            f" {window['snr']:>6.2f} {factor_text(window, 'growth'):>14}"
            f" {'-' if math.isnan(variance) else format(variance, '.2g'):>9}"
            f" {window['seconds']:>8.2f}"
        )


def factor_text(window: dict[str, Any], name: str) -> str:
    """A geometric mean with its standard deviation: `0.41 ×/÷ 1.2`."""
    std = window[f"{name}_std"]
    spread = "" if std is None else f" ×/÷ {std:.2g}"
    return f"{window[f'{name}_mean']:.3g}{spread}"


if __name__ == "__main__":
    command(main, USAGE, AnatomyOptions, SubjectOptions, AnatomySettings, Environment)
