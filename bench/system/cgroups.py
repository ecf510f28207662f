"""What Linux's control groups leave a process: the limits of its container or batch job.

The one reader of them. Version 1, version 2 and both at once, in a container as on the host: inside
a container the group's own folder may be missing, and its limits then stand at the root. Limits
hold for all groups below, so each group from the process's own up to the root is looked at.
Where there are no control groups, or a file cannot be read or understood, there is no limit.
"""

from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def memory_limit(membership: Path = MEMBERSHIP, root: Path = ROOT) -> int | None:
    """The smallest memory limit, in bytes; None where there is none."""
    return min((limit for limit, _ in _memory(membership, root)), default=None)


def memory_left(membership: Path = MEMBERSHIP, root: Path = ROOT) -> int | None:
    """Bytes that are left of the memory limits; None where there are none. Page cache counts as
    left: the system takes it back when memory is wanted."""
    return min((max(0, limit - used) for limit, used in _memory(membership, root)), default=None)


def cpu_quota(membership: Path = MEMBERSHIP, root: Path = ROOT) -> float | None:
    """The processors' time that may be used, in processors (`docker run --cpus=1.5`: 1.5); None
    where it is not limited."""
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
    """How many processes of this one's own group the system has killed so far for their memory; 0
    where it does not count them."""
    names = {1: "memory.oom_control", 2: "memory.events"}
    own = _own("memory", membership, root)
    return sum(_facts(folder / names[version]).get("oom_kill", 0) for version, folder in own)


def _memory(membership: Path, root: Path) -> Iterator[tuple[int, int]]:
    """(limit, bytes in use without the page cache) of each group that has a limit."""
    for version, folder in _groups("memory", membership, root):
        if version == 2:
            # Above `high` nothing is killed, but all comes to a halt.
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
    """(version, folder) of each group of this process, its own first."""
    for version, own in _own(controller, membership, root):
        top = _top(version, controller, root)
        above = [folder for folder in own.parents if folder.is_relative_to(top)]
        yield from ((version, folder) for folder in [own, *above])


def _own(controller: str, membership: Path, root: Path) -> Iterator[tuple[int, Path]]:
    """(version, folder) of the groups that this process itself is in, or of the nearest groups
    above them that can be seen from here."""
    for line in (_text(membership) or "0::/").splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        top = _top(version, controller, root)
        outside = group.startswith("/..")  # of what a container may see
        folder = top if outside else top / group.lstrip("/")
        while folder != top and not folder.is_dir():
            folder = folder.parent
        yield version, folder


def _top(version: int, controller: str, root: Path) -> Path:
    """Where the groups begin. Beside version 1, version 2 lies in a folder of its own."""
    if version == 1:
        return root / controller  # a link, where controllers share a folder
    unified = root / "unified"
    return unified if unified.is_dir() else root


def _text(path: Path) -> str:
    """The file's text; empty where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _facts(path: Path) -> dict[str, int]:
    """The numbers of a file of `name number` lines."""
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
