"""The configuration of a run as its files have it: read, or refused with what to do."""

from dataclasses import asdict, fields
from typing import Any

from bench.config.command_line import only
from bench.config.identity import values_before, written_name
from bench.config.run_config import SCHEMA_VERSION, RunConfig
from bench.system.errors import Damaged, UserError

Content = dict[str, Any]
SCALE_NAMES = next(item for item in fields(RunConfig) if item.name == "scale").metadata["choices"]


def as_written(config: RunConfig) -> Content:
    """A configuration as files have it, with the version of its schema."""
    return {"schema": SCHEMA_VERSION, **asdict(config)}


def read_config(content: Content, name: str, where: str, remedy: str) -> RunConfig:
    """The configuration that `as_written` gave, of this version, of an earlier one, which has fewer
    settings, or of a later one, where all that this version does not know are at the values that
    change nothing.

    Args:
        content: may have further keys that are no settings ("command").
        name: of the run; it has the hash of the configuration.
        where: the file, for error messages.
        remedy: what to do if it is damaged.

    Raises:
        Damaged: it is not the configuration that the run is named after.
        UserError: it was written by a version whose runs this version cannot continue.
    """
    settings = {key: value for key, value in content.items() if key != "command"}
    schema = settings["schema"]
    if schema < SCHEMA_VERSION:
        raise UserError(
            f"{where} was written by an earlier version (schema {schema}, now {SCHEMA_VERSION}):"
            " the same settings make the run again, in another folder; CHANGELOG.md says how the"
            " results of earlier schemas can be used"
        )
    if schema > SCHEMA_VERSION:
        raise UserError(
            f"{where} was written by a later version (schema {schema}, here {SCHEMA_VERSION});"
            " update this checkout, or give another results_root"
        )
    known = {**values_before(), **only(settings, RunConfig)}
    scale = known.get("scale")  # no part of the name
    if scale not in SCALE_NAMES:
        raise Damaged(
            f"{where} was changed: scale={scale} is not one of {', '.join(SCALE_NAMES)}; {remedy}"
        )
    if written_name({"schema": schema, **known}) == name and not _missing(known):
        return RunConfig(**known)
    unknown = sorted(settings.keys() - {"schema", *known})
    if unknown and not _missing(known):
        raise UserError(
            f"{where} has settings that this version does not know ({', '.join(unknown)}): a later"
            " version wrote it; update this checkout, or give another results_root"
        )
    raise Damaged(
        f"{where} was changed: it is not the configuration that the run is named after (that would"
        f" be {written_name(settings)}); {remedy}"
    )


def _missing(settings: Content) -> list[str]:
    """Settings without a default that they were made with."""
    return [item.name for item in fields(RunConfig) if item.name not in settings]
