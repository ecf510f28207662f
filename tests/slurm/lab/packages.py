"""The programs that a lab needs, and the Debian packages that have them."""

import os
import shutil

from bench.system.errors import UserError

PACKAGES = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
}
# Debian's daemons lie where an ordinary user's PATH does not look.
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")


def path_of(program: str) -> str:
    """Where a program lies.

    Raises:
        UserError: it is not installed.
    """
    found = _find(program)
    if found is None:
        raise UserError(f"{program} is not installed")
    return found


def missing_packages() -> list[str]:
    """The Debian packages that must be installed before a lab can start."""
    return sorted({package for program, package in PACKAGES.items() if _find(program) is None})


def require_packages() -> None:
    """Refuse to go on where a program is missing.

    Raises:
        UserError: names the packages and the line that installs them.
    """
    if missing := " ".join(missing_packages()):
        raise UserError(
            f"SLURM's daemons are not installed (missing: {missing}); on Debian or Ubuntu:"
            f" RUNLEVEL=1 apt-get install --no-install-recommends {missing}"
        )


def _find(program: str) -> str | None:
    folders = [os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS]
    return shutil.which(program, path=os.pathsep.join(folders))
