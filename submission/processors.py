"""How many processors this process was given: its affinity and the quota of its control groups, not those it sees."""

from __future__ import annotations

import math
import os
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
MOUNTED = Path("/sys/fs/cgroup")
THREADS = "OMP_NUM_THREADS"
"""Variable from which torch takes its number of threads when it is imported."""


def given_processors() -> int:
    """Return the number of processors that this process may use at once, at least 1.

    A container that is capped at two processors of a machine with 64 shows all 64; as many threads would wait for each
    other most of the time. A fraction counts as a whole processor.
    """
    return max(1, min([_allowed(), *(math.ceil(quota) for quota in quotas(GROUPS, MOUNTED))]))


def _allowed() -> int:
    """Return how many processors the affinity of this process allows, which OpenMP follows by itself."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quotas(groups: Path, mounted: Path) -> list[float]:
    """Return the processors that each control group above this process grants; groups without a quota are left out.

    groups: a list of control groups as /proc/self/cgroup has it; mounted: where their hierarchies are mounted. Reads
    version 2 (cpu.max) and version 1 (cpu.cfs_quota_us).
    """
    found = []
    for line in _text(groups).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number == "0" and not controllers:
            found += [quota for folder in _upwards(mounted, name) if (quota := _version_2(folder)) is not None]
        elif "cpu" in controllers.split(","):
            for mount in (mounted / controllers, mounted / "cpu"):
                found += [quota for folder in _upwards(mount, name) if (quota := _version_1(folder)) is not None]
    return found


def set_thread_defaults() -> None:
    """Let torch run no more threads than a quota grants processors, and let idle ones wait passively.

    Both are read when torch is imported. Idle threads that spin take the processors of those that work: on two cores
    beside other processes, decoding takes ten times as long (docs/log.md). What the user or a launcher set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = given_processors()
    if given < _allowed():
        os.environ.setdefault(THREADS, str(given))


def threads_text() -> str:
    """Return how many threads a stage runs at most, as its first line says it: `up to 2 threads`."""
    count = os.environ.get(THREADS, "").partition(",")[0] or str(given_processors())
    return "1 thread" if count == "1" else f"up to {count} threads"


def _upwards(mount: Path, name: str) -> list[Path]:
    """Return the folders of a control group and of all above it; within a container its name may not be mounted."""
    group = mount / name.lstrip("/")
    return [folder for folder in (group, *group.parents) if folder.is_relative_to(mount)]


def _version_2(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _version_1(folder: Path) -> float | None:
    return _ratio(_text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    """Return quota over period; None where there is no quota (`max`, -1) or the files are not there."""
    if not quota.isdecimal() or not period.isdecimal():
        return None
    return int(quota) / int(period) if int(quota) and int(period) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
