"""`python -m bench.run method=rat_bptt dataset=digits seed=0`: one run."""

import math
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.command_line import (
    command,
    discard_output,
    keys_of,
    only,
    parse,
    say,
    setting,
    typed,
)
from bench.config.grid import choose_scale, single_run
from bench.config.identity import identity
from bench.config.run_config import Environment, RunConfig
from bench.config.without_effect import refuse_without_effect
from bench.distillation.process_group import ProcessGroup, ProcessGroupBroken
from bench.distillation.rank import find_rank
from bench.runs.repetition import FirstRun, report
from bench.runs.run_folder import PICTURE, RunFolder, Store
from bench.runs.run_lock import RunIsTaken, await_silence, lock
from bench.system import garbage
from bench.system.errors import INTERRUPTED, SUPERSEDED, UserError
from bench.system.stop_signals import interrupt_on_stop_signals
from bench.system.text import count, not_finite_text, percent

if TYPE_CHECKING:
    import torch

    from bench.data import TargetSet
    from bench.distillation.outer_loop import OuterStep

USAGE = """
python -m bench.run [key=value ...]     one run; resumes from its checkpoint if it was killed
python -m bench.run from=FOLDER         the run of a folder once more; says what differs
torchrun --nproc-per-node=4 -m bench.run replicas=4 [key=value ...]     its replicas on four GPUs
"""


@dataclass(frozen=True)
class RunOptions:
    """Options of this command."""

    scale: str = setting("auto", "auto, quick, cpu or paper: the settings to start from")
    folder: str = setting("", "an existing run folder to run to completion, instead of settings")
    from_: str = setting(
        "",
        "a run folder, or a manifest.json: make that run again in results_root/repeats, with the"
        " same settings, threads and data, and say what differs from the first time",
    )
    force: bool = setting(False, "start over even if the run is finished or started")
    takeover: str = setting(
        "", "unique token; takes the run over from the process that is running it"
    )
    dry_run: bool = setting(False, "print the configuration and stop")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, RunOptions, RunConfig, Environment)
    options = typed(RunOptions, only(given, RunOptions))
    environment = typed(Environment, only(given, Environment))
    overrides = {key: value for key, value in only(given, RunConfig).items() if key != "scale"}
    first, lines = None, []
    for key, value in (("folder", options.folder), ("from", options.from_)):
        if key in given and not value:
            raise UserError(f"{key}= names no run folder")
    if options.folder or options.from_:
        named = "folder" if options.folder else "from"
        if overrides or "scale" in given or (options.folder and options.from_):
            raise UserError(f"{named}=... has its own configuration; give no other run settings")
    if options.from_:
        first = FirstRun.read(Path(options.from_))
        environment = first.environment(environment, given)
        config, folder = first.config, first.second(environment)
    elif options.folder:
        folder = RunFolder(Path(options.folder).resolve())
        config = folder.config()
    else:
        scale, why = choose_scale(options.scale)
        lines = [f"scale={scale} ({why})"]
        config = single_run(scale, overrides)
        refuse_without_effect([config], overrides)
        folder = Store(Path(environment.results_root)).run(config)
    rank = find_rank(os.environ, config.replicas)
    if options.dry_run:
        lines += [f"  {key}={value}" for key, value in vars(config).items()]
        lines += [f"would run in {folder.path}"]
    if rank.is_leader and lines:
        say("\n".join(lines))
    if options.dry_run:
        return 0
    try:
        with rank.process_group(identity(config)) as group:
            if group.is_leader:
                status = lead(folder, config, options, environment, group, first)
                if first and status in (0, 1):  # a run may fail again, as the first one did
                    print("\n".join(report(first, folder)))
                return status
            with garbage.imports():
                from bench.runs.follower import follow

            follow(folder, config, environment, group)
            return 0  # however the run ended: the leader reports that
    except ProcessGroupBroken as error:  # the other process prints its traceback itself
        print(f"error: {error}", file=sys.stderr)
        return 1


def lead(
    folder: RunFolder,
    config: RunConfig,
    options: RunOptions,
    environment: Environment,
    group: ProcessGroup,
    first: FirstRun | None,
) -> int:
    """Execute the run and print its progress; returns the exit status."""
    interrupt_on_stop_signals()  # until the outer steps begin there is nothing to save
    folder.create(config, command_again(config))

    with garbage.imports():  # of torch: only once the settings are checked
        from bench.runs.execute import Interrupted, Superseded, execute
        from bench.runs.failure import describe_error

    say(f"{folder.path}")
    console = Console(config)
    try:
        if options.force:
            with lock(folder, options.takeover):
                await_silence(folder, options.takeover)
                folder.request_rerun()
        data = first.fingerprint if first else ""
        result = execute(folder, environment, console, group, options.takeover, data)
    except RunIsTaken as error:
        print(f"error: {error}", file=sys.stderr)
        return SUPERSEDED
    except Superseded as interruption:
        console.bar.stop()
        print(interruption, file=sys.stderr)
        return SUPERSEDED
    except Interrupted as interruption:
        console.bar.stop()  # the line below must not be drawn over
        print(f"{interruption}; the same command resumes the run", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        console.bar.stop()
        described = describe_error(error)
        if described["kind"] == "error":  # a bug: show its traceback
            raise
        print(f"{described['kind']}: {described['message']}", file=sys.stderr)
        return 1
    print(final_line(result))
    print(f"distilled images: {folder.path / PICTURE}")
    return 0


def command_again(config: RunConfig) -> str:
    """The command that resumes a run."""
    left_out = set(keys_of(RunOptions)) - {"from"}
    settings = [text for text in sys.argv[1:] if text.partition("=")[0] not in left_out]
    return shlex.join(["python", "-m", "bench.run", *settings, f"scale={config.scale}"])


def final_line(result: dict[str, Any]) -> str:
    """The accuracy of a finished run, with its n and how it was selected."""
    evaluation = result["evaluation"]
    spread = evaluation["test_accuracy_std"]
    not_finite = not_finite_text(evaluation)
    return (
        f"test accuracy {percent(evaluation['test_accuracy_mean'], spread)} %"
        f" (mean{' ± standard deviation' if spread is not None else ''} over n={evaluation['n']}"
        f" fresh network{'s' if evaluation['n'] > 1 else ''}, {count(evaluation['steps'], 'step')},"
        f"{f' {not_finite},' if not_finite else ''}"
        f" selected by {evaluation['selection']};"
        f" {result['data']['source']}, fingerprint {result['data']['fingerprint']})"
    )


class Console:
    """Prints the progress of a run: a progress bar in a terminal, and a line per measurement."""

    def __init__(self, config: RunConfig) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.config = config
        self.out = RichConsole(highlight=False, soft_wrap=True)
        # Of a reader that has gone (`| head`). Rich would exit without a checkpoint.
        self.out.on_broken_pipe = discard_output
        self.last_loss = ""
        self.bar = Progress(
            TextColumn("outer step"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self.out,
            transient=True,
            disable=not self.out.is_terminal,
        )
        self.task = self.bar.add_task("", total=config.outer_steps)

    def started(self, target_set: "TargetSet", device: "torch.device", resumed_at: int) -> None:
        self.out.print(
            f"{self.config.method} on {target_set.source} ({len(target_set.train)} train,"
            f" {len(target_set.validation)} validation, {len(target_set.test)} test),"
            f" fingerprint {target_set.fingerprint}, {device}"
        )
        if resumed_at:
            self.out.print(f"resuming at outer step {resumed_at}")
        self.bar.update(self.task, completed=resumed_at)
        self.bar.start()

    def stepped(self, record: "OuterStep") -> None:
        self.last_loss = f"  outer loss {record.outer_loss:.3f}"
        self.bar.update(
            self.task, completed=record.step + 1, description=f"{record.outer_loss:.3f}"
        )

    def measured(self, measurement: dict[str, Any]) -> None:
        step = f"outer step {measurement['step']:>6}"
        if "variance" in measurement:
            variance = measurement["normalized_variance_whole_batch"]
            self.out.print(f"{step}  normalized variance {variance:.3g}")
        else:
            parts = {
                part: measurement.get(f"{part}_accuracy_mean", math.nan)
                for part in ("train", "validation", "test")
            }
            accuracies = "".join(
                f"  {part} {100 * value:5.1f}%"
                for part, value in parts.items()
                if not math.isnan(value)
            )
            self.out.print(f"{step}{self.last_loss:<19}{accuracies}  (n={measurement['n']})")

    def evaluating(self, what: str, trained: int, networks: int) -> None:
        self.bar.stop()
        self.out.print(f"evaluating{what}: {trained} of {networks} networks")


if __name__ == "__main__":
    command(main, USAGE, RunOptions, RunConfig, Environment)
