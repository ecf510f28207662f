"""Commands in processes of their own, as on this processor or as on another one."""

import subprocess
import sys
from pathlib import Path

# Without the vector instructions of torch's own loops, its convolutions, its matrix products.
OTHER_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
}


def printed(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    """What `python *arguments` prints. Torch reads the environment when it is imported."""
    done = subprocess.run(
        [sys.executable, *arguments],
        # Threads that wait for each other in a loop are slow on busy cores.
        env={**environment, "OMP_WAIT_POLICY": "passive"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
