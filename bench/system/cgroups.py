"""Limits of memory and processor time that a container or batch job sets, from Linux's cgroups.

Supported are version 1, version 2 and both at once, on a host and inside a container, where the
folder of the process's group may be missing and its limits are at the root. A limit applies to all
groups below it, so every group from the process's to the root is read. Without cgroups, or if a
file cannot be read or parsed, there is no limit.
"""

from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def memory_limit(membership: Path = MEMBERSHIP, root: Path = ROOT) -> int | None:
    """The smallest memory limit in bytes; None without a limit."""
    return min((limit for limit, _ in _memory(membership, root)), default=None)


def memory_left(membership: Path = MEMBERSHIP, root: Path = ROOT) -> int | None:
    """Bytes left below the memory limits; None without a limit. Page cache counts as free, because
    the system reclaims it when memory is needed."""
    return min((max(0, limit - used) for limit, used in _memory(membership, root)), default=None)


def cpu_quota(membership: Path = MEMBERSHIP, root: Path = ROOT) -> float | None:
    """The limit of processor time, in processors (1.5 for `docker run --cpus=1.5`); None without a
    limit."""
    quotas = []
    for version, folder in _groups("cpu", membership, root):
        if version == 2:
            quota, _, period = (_text(folder / "cpu.max") or "max").partition(" ")
        else:
            quota, period = (_text(folder / f"cpu.cfs_{it}_us") or "" for it in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period):  # "max" and -1: no limit
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def out_of_memory_kills(membership: Path = MEMBERSHIP, root: Path = ROOT) -> int:
    """How many processes of this process's group the system has killed so far for lack of memory; 0
    where the system does not count them."""
    names = {1: "memory.oom_control", 2: "memory.events"}
    groups = _groups_of_process("memory", membership, root)
    return sum(_facts(folder / names[version]).get("oom_kill", 0) for version, folder in groups)


def _memory(membership: Path, root: Path) -> Iterator[tuple[int, int]]:
    """(limit, bytes in use without the page cache) of each group that has a limit."""
    for version, folder in _groups("memory", membership, root):
        if version == 2:
            # Above `high` nothing is killed, but processes are throttled almost to a halt.
            limits, usage, prefix = ("memory.max", "memory.high"), "memory.current", ""
        else:
            limits, usage = ("memory.limit_in_bytes",), "memory.usage_in_bytes"
            prefix = "total_"
        stated = [int(text) for name in limits if (text := _text(folder / name)).isdigit()]
        used = _text(folder / usage)
        if stated and used.isdigit():
            facts = _facts(folder / "memory.stat")
            cache = sum(facts.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
            yield min(stated), max(0, int(used) - cache)


def _groups(controller: str, membership: Path, root: Path) -> Iterator[tuple[int, Path]]:
    """(version, folder) of each group that holds this process, the innermost first."""
    for version, innermost in _groups_of_process(controller, membership, root):
        top = _top(version, controller, root)
        above = [folder for folder in innermost.parents if folder.is_relative_to(top)]
        yield from ((version, folder) for folder in [innermost, *above])


def _groups_of_process(controller: str, membership: Path, root: Path) -> Iterator[tuple[int, Path]]:
    """(version, folder) of the innermost groups of this process, or of the nearest groups above
    them that are visible from here."""
    for line in (_text(membership) or "0::/").splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        top = _top(version, controller, root)
        outside = group.startswith("/..")  # of what is visible in a container
        folder = top if outside else top / group.lstrip("/")
        while folder != top and not folder.is_dir():
            folder = folder.parent
        yield version, folder


def _top(version: int, controller: str, root: Path) -> Path:
    """The folder of the root group. If version 1 is there too, version 2 has a separate folder."""
    if version == 1:
        return root / controller  # a link, where controllers share a folder
    unified = root / "unified"
    return unified if unified.is_dir() else root


def _text(path: Path) -> str:
    """The file's text; empty if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _facts(path: Path) -> dict[str, int]:
    """The numbers of a file of `name number` lines."""
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
