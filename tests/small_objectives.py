"""Options of each objective that make an outer step short."""

from typing import Any

TRAJECTORIES = {
    **{"experts": 2, "expert_epochs": 2, "expert_batch": 500, "expert_lr": 0.1},
    **{"start_epochs": 2, "matched_epochs": 1, "student_steps": 3, "student_batch": 7},
    "lr_lr": 1e-3,
}
SMALL: dict[str, dict[str, Any]] = {
    "dm": {"real_ipc": 7},
    "dc": {"real_ipc": 7, "outer_steps_per_network": 3, "network_steps": 2},
    "dsa": {"real_ipc": 7, "outer_steps_per_network": 3, "network_steps": 2},
    "frepo": {"networks": 2, "online_steps": 2},
    "kip": {"depth": 2},
    "rfad": {"networks": 2, "width": 4, "depth": 2},
    "rcig": {
        **{"networks": 2, "online_steps": 3, "most_updates": 2},
        # What makes it exact: all is solved, which takes fewer steps with a larger ridge.
        **{"ridge": 1.0, "inner_steps": 12, "inverse_steps": 12, "limit_implicit": False},
    },
    "mtt": TRAJECTORIES,
    "ftd": TRAJECTORIES,
}


def completed(arguments: list[str]) -> list[str]:
    """Arguments of a run, with small options of the objective they name, and no window then."""
    named = [one.partition("=")[2] for one in arguments if one.startswith("objective=")]
    if not named or named[-1] not in SMALL:
        return arguments
    kept = [one for one in arguments if not one.startswith(("unroll_length=", "window_size="))]
    return kept + [f"objective_options.{key}={value}" for key, value in SMALL[named[-1]].items()]
