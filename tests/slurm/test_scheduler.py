"""What SLURM's commands say when something is wrong, and what is made of it."""

import pytest

from slurm.scheduler import Job, error_message, is_certain

# As seen with SLURM 22.05.
PARTITION = """\
sbatch: error: invalid partition specified: nosuch
sbatch: error: Batch job submission failed: Invalid partition name specified
"""
PARTITION_TESTED = """\
sbatch: error: invalid partition specified: nosuch
allocation failure: Invalid partition name specified
"""
FEATURE = "sbatch: error: Batch job submission failed: Invalid feature specification\n"
FEATURE_TESTED = "allocation failure: Invalid feature specification\n"
TWICE = "sbatch: error: Invalid generic resource (gres) specification\n" * 2
OPTION = "sbatch: unrecognized option '--bogus'\nTry \"sbatch --help\" for more information\n"
OF_THE_SITE = """\
sbatch: name your project: --account=...
sbatch: error: Batch job submission failed: Unspecified error
"""


@pytest.mark.parametrize(
    ("stderr", "told"),
    [
        (PARTITION, "invalid partition specified: nosuch"),
        (PARTITION_TESTED, "invalid partition specified: nosuch"),
        (FEATURE, "Invalid feature specification"),
        (FEATURE_TESTED, "Invalid feature specification"),
        (TWICE, "Invalid generic resource (gres) specification"),
        (OPTION, "unrecognized option '--bogus'"),
        (OF_THE_SITE, "name your project: --account=... Unspecified error"),
        ("", ""),
    ],
)
def test_what_sbatch_says_twice_is_told_once(stderr: str, told: str) -> None:
    assert error_message("sbatch", stderr) == told


@pytest.mark.parametrize(
    ("told", "certain"),
    [
        ("sbatch: invalid partition specified: nosuch", True),
        ("sbatch: Invalid feature specification", True),
        ("sbatch: Requested node configuration is not available", False),
        ("sbatch: Required node not available (down, drained or reserved)", False),
        ("sbatch: Requested nodes are busy", False),
    ],
)
def test_what_no_node_can_give_now_is_not_taken_for_a_refusal(told: str, certain: bool) -> None:
    assert is_certain(told) == certain


@pytest.mark.parametrize(
    ("state", "reason", "told"),
    [
        ("PENDING", "None", "pending"),
        ("REQUEUE_HOLD", "None", "requeue hold"),
        ("PENDING", "Resources", "Resources"),
    ],
)
def test_a_job_without_a_reason_yet_is_told_by_its_state(
    state: str, reason: str, told: str
) -> None:
    assert Job("7", state, reason).why == told
