"""A real SLURM on this host alone, for tests: controller and nodes of its own, nothing installed.

`python -m tests.slurm.lab start`, or `with Lab(folder, nodes=2) as lab:`. Seen with SLURM
22.05 on Debian 12. What it cannot show: several hosts and their file systems, other users, real
GPUs, accounting (sacct answers "disabled" here, as on many sites).
"""

from tests.slurm.lab.lab import Lab, LabFailed
from tests.slurm.lab.packages import missing_packages

__all__ = ["Lab", "LabFailed", "missing_packages"]
