"""The launcher of a cluster: it submits runs, and waits for them if the user wants to watch."""

from collections.abc import Sequence

from bench.config.run_config import Environment
from bench.runs.run_folder import RunFolder
from bench.sweeps.launcher import PlannedRun
from bench.sweeps.options import SweepOptions, is_wanted
from bench.system.errors import UserError
from slurm.job_status import is_active, statuses
from slurm.profile import Profile
from slurm.scheduler import Scheduler
from slurm.submit import preview, submit


class SlurmLauncher:
    """A `Launcher` whose runs are jobs.

    Args:
        folders: all runs of the grid; those that have a job already are waited for too.
        resume_command, status_command: for the user.
    """

    poll_seconds = 2.0
    redraws = True

    def __init__(
        self,
        grid: str,
        folders: Sequence[RunFolder],
        profile: Profile,
        environment: Environment,
        options: SweepOptions,
        scheduler: Scheduler,
        resume_command: str,
        status_command: str,
    ) -> None:
        self.grid, self.folders, self.profile = grid, folders, profile
        self.environment, self.options, self.scheduler = environment, options, scheduler
        self.resume_command, self.status_command = resume_command, status_command

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
