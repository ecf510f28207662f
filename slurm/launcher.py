"""The launcher of a cluster: it submits runs, and waits for them if the user wants to watch."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.config.run_config import Environment
from bench.runs.run_folder import RunFolder
from bench.sweeps.launcher import PlannedRun
from bench.sweeps.options import SweepOptions, is_wanted
from bench.system.errors import UserError
from slurm.job_status import is_active, statuses
from slurm.profile import Profile
from slurm.scheduler import Scheduler
from slurm.submit import preview, submit


@dataclass
class SlurmLauncher:
    """A `Launcher` whose runs are jobs.

    Attributes:
        folders: all runs of the grid; those that have a job already are waited for too.
        resume_command, status_command: for the user.
    """

    grid: str
    folders: Sequence[RunFolder]
    profile: Profile
    environment: Environment
    options: SweepOptions
    scheduler: Scheduler
    resume_command: str
    status_command: str
    poll_seconds: float = 2.0
    redraws: bool = True

    def prepare(self, runs: Sequence[PlannedRun]) -> None:
        if self.scheduler.silent and not self.options.scripts_only:
            raise UserError(self.scheduler.silent)
        if runs and self.options.dry_run:
            print(preview(runs, self.profile))

    def start(self, runs: Sequence[PlannedRun]) -> bool:
        options = self.options
        if options.force and any(
            progress.job and not folder.is_rerun_requested()
            for folder, progress in statuses(self.folders, self.scheduler)
        ):
            raise UserError("force=true: some of the runs have jobs; end them with cancel=true")
        if runs:
            lines = submit(
                runs,
                lambda progress: is_wanted(progress, options),
                self.grid,
                self.profile,
                self.environment,
                self.resume_command,
                rerun=options.force,
                script_only=options.scripts_only,
            )
            print("\n".join(lines) or "already submitted by another process")
        if options.scripts_only or not options.wait:
            print(f"check status with: {self.status_command}")
            return False
        return True

    def poll(self) -> bool:
        return any(is_active(progress) for _, progress in statuses(self.folders, self.scheduler))

    def stop(self) -> str:
        return "the jobs continue without this command; cancel=true ends them"
