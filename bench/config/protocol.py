"""Protocols: how others evaluate distilled sets, as settings (`bench/protocols`)."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.command_line import converted, read_yaml, setting, yaml_names, yaml_path
from bench.config.run_config import RunConfig

PROTOCOLS = Path(__file__).parents[1] / "protocols"
LARGEST_BATCH = 256  # of the authors of all of them


@dataclass(frozen=True)
class ProtocolOptions:
    """Whose protocol an evaluation follows."""

    protocol: str = setting(
        "",
        "settings with which others evaluate, over those of the set or the scale:"
        f" {', '.join(yaml_names(PROTOCOLS))}, or a path to your own .yaml",
    )

    def settings(self, dataset: str = "") -> dict[str, Any]:
        """The protocol's settings; none without a protocol.

        Args:
            dataset: digits are not mirrored, as DSA's authors do not mirror theirs.

        Raises:
            UserError: there is no such protocol, or its file is invalid.
        """
        if not self.protocol:
            return {}
        found = converted(RunConfig, read_yaml(yaml_path(self.protocol, PROTOCOLS, "protocol")))
        if dataset == "digits" and self._is_published() and "dsa" in found["augment_evaluation"]:
            found["augment_evaluation"] += "_no_flip"
        return found

    def notes(self, images: int) -> tuple[str, ...]:
        """What differs from the authors' training on so many images."""
        if not self._is_published() or images <= LARGEST_BATCH:
            return ()
        batches = math.ceil(images / LARGEST_BATCH)
        return (
            f"the authors of protocol={self.protocol} train on {images} images in {batches} batches"
            f" an epoch, here an epoch is one step on all of them: {batches} times fewer updates",
        )

    def _is_published(self) -> bool:
        return self.protocol in yaml_names(PROTOCOLS)

    def text(self, given: dict[str, Any], dataset: str = "") -> str:
        """`protocol dc, but inner_lr=0.1`; "" without a protocol.

        Args:
            given: settings of the user, which come before the protocol's.
            dataset: as in `settings`.
        """
        if not self.protocol:
            return ""
        own = self.settings(dataset)
        other = [f"{key}={given[key]}" for key in own if key in given and given[key] != own[key]]
        return f"protocol {self.protocol}" + (f", but {' '.join(other)}" if other else "")
