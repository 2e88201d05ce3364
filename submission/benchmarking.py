"""Benches: runs the measurements of a package, prints them, and records them with the machine that they ran on.

A bench gets a folder to work in and returns its figures, among them `text`, their printed form, and `passed`, whether
the required values are reached; None where this machine cannot measure it, and `text` says why.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from submission.counting import counted
from submission.errors import UserError
from submission.processors import given_processors
from submission.store.digests import canonical_json, write_text
from submission.store.store import library_versions
from submission.system.schema import nearest

Benches = Mapping[str, Callable[[Path], dict[str, Any]]]

VERDICTS = {True: "passed", False: "NOT passed", None: "not measured"}


def add_bench_arguments(parser: argparse.ArgumentParser, names: str, package: str) -> None:
    """Add the arguments of a package's verb `bench`: which of its benches, listed in `names`, and the output file."""
    parser.add_argument("only", nargs="*", metavar="WHAT", help=f"{names} (default: all of them)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(f"build/bench/{package}.json"),
        metavar="FILE",
        help="where the figures are written (default: %(default)s)",
    )


def run_benches(benches: Benches, only: Sequence[str], out: Path) -> int:
    """Run the named benches, or all; print their figures and write them as JSON to `out`.

    Returns 1 where one is not passed, else 0. Raises UserError for an unknown name, or an `out` that is a folder.
    """
    if unknown := sorted(set(only) - set(benches)):
        raise UserError(f"bench {unknown[0]}", "unknown", nearest(unknown[0], benches))
    if out.is_dir():
        raise UserError(f"--out {out}", "is a folder", "name a file, figures.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        figures = {name: benches[name](Path(work)) for name in only or benches}
    record = {"machine": describe_machine(), "benches": figures}
    write_text(out, canonical_json(record))
    print(f"{bench_text(record)}\nwritten: {out}")
    return 1 if any(bench["passed"] is False for bench in figures.values()) else 0


def bench_text(record: dict[str, Any]) -> str:
    """Return the figures as text."""
    machine = record["machine"]
    lines = [f"{machine['processor']}, {counted(machine['cores'], 'core')}, {machine['memory_bytes'] / 2**30:.0f} GiB"]
    for name, figures in record["benches"].items():
        lines.append(f"{name}: {VERDICTS[figures['passed']]}")
        lines += [f"  {line}" for line in figures["text"].splitlines()]
    return "\n".join(lines)


def describe_machine() -> dict[str, Any]:
    """Return what a measurement depends on: processor, cores, memory, versions of Python and libraries."""
    names = {}
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        lines = cpu.read_text(encoding="utf-8").splitlines()
        names = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in lines if ":" in line}
    return {
        "processor": names.get("model name") or platform.processor() or platform.machine(),
        "cores": given_processors(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "versions": library_versions(),
    }


def peak_of_this_process() -> int:
    """Return the peak resident memory of this process in bytes, without that of its parent.

    On Linux, `getrusage` of a child starts from the memory of its parent at the time of the fork.
    """
    found = _status_bytes("VmHWM")
    if found is not None:
        return found
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes, mapped files included; UserError elsewhere than on Linux."""
    found = _status_bytes("VmRSS")
    if found is None:
        raise UserError("resident memory", "can be measured on Linux only", "run it on Linux")
    return found


def _status_bytes(key: str) -> int | None:
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)
