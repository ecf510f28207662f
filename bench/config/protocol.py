"""Protocols: how others evaluate distilled sets, as settings (`bench/protocols`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.command_line import converted, read_yaml, setting, yaml_names, yaml_path
from bench.config.run_config import RunConfig

PROTOCOLS = Path(__file__).parents[1] / "protocols"


@dataclass(frozen=True)
class ProtocolOptions:
    """Whose protocol an evaluation follows."""

    protocol: str = setting(
        "",
        "settings with which others evaluate, over those of the set or the scale:"
        f" {', '.join(yaml_names(PROTOCOLS))}, or a path to your own .yaml",
    )

    def settings(self) -> dict[str, Any]:
        """The protocol's settings; none without a protocol.

        Raises:
            UserError: there is no such protocol, or its file is invalid.
        """
        if not self.protocol:
            return {}
        return converted(RunConfig, read_yaml(yaml_path(self.protocol, PROTOCOLS, "protocol")))

    def text(self, given: dict[str, Any]) -> str:
        """`protocol dc, but inner_lr=0.1`; "" without a protocol.

        Args:
            given: settings of the user, which come before the protocol's.
        """
        if not self.protocol:
            return ""
        own = self.settings()
        other = [f"{key}={given[key]}" for key in own if key in given and given[key] != own[key]]
        return f"protocol {self.protocol}" + (f", but {' '.join(other)}" if other else "")
