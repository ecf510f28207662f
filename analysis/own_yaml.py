"""The YAML files of this package: claims, the paper's numbers, where its settings come from."""

from pathlib import Path
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times as fast


def entries(path: Path) -> Any:
    """What one of these files holds."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
