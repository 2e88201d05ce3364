"""Run commands one after the other: time, peak memory, what they built; killed midway where that is wanted.

A command runs in a process group of its own, so that a kill takes what it started with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from submission.errors import UserError
from submission.store.records import ArtifactRecord, read_record

POLL_SECONDS = 0.02
BUILDING = ": building"
"""What the store prints behind the name of a stage that it begins to build."""
SHOWN_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """When a command is killed."""

    seconds: float
    building: bool
    """Whether the seconds count from the first stage that it builds, not from its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRun:
    """One command that has ended."""

    words: tuple[str, ...]
    """What follows `python -m`."""
    seconds: float
    cpu_seconds: float
    """Of all processors, and of the processes that it waited for."""
    peak_bytes: int
    """Of the command itself, or of the largest process that it waited for."""
    status: int
    """Its exit status; negative the signal that ended it."""
    errors: str
    """What it printed to stderr."""

    @property
    def title(self) -> str:
        """Package and verb."""
        return " ".join(self.words[:2])

    @property
    def built(self) -> tuple[str, ...]:
        """The stages that it began to build."""
        lines = self.errors.splitlines()
        return tuple(line.removesuffix(BUILDING) for line in lines if line.endswith(BUILDING))


def end_on_sigterm() -> None:
    """Make SIGTERM end this process as an interrupt does, so that the command which it runs ends with it."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def run_command(words: Sequence[str], log: Path, kill: Kill | None = None) -> CommandRun:
    """Run `python -m <words>`; what it prints goes to files beside `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    errors = log.with_suffix(".err")
    begun = time.monotonic()
    with log.with_suffix(".out").open("wb") as stdout, errors.open("wb") as stderr:
        command, nothing = [sys.executable, "-m", *words], subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=nothing, stdout=stdout, stderr=stderr, start_new_session=True)
        try:
            if kill is not None:
                _kill_midway(process.pid, errors, kill)
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return CommandRun(
        words=tuple(words),
        seconds=time.monotonic() - begun,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        status=process.returncode,
        errors=errors.read_text(encoding="utf-8", errors="replace"),
    )


def _kill_midway(pid: int, errors: Path, kill: Kill) -> None:
    """Kill a process group when its time has come, unless it has ended by then; the process is not waited for."""
    begun = None if kill.building else time.monotonic()
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if begun is None and BUILDING in errors.read_text(encoding="utf-8", errors="replace"):
            begun = time.monotonic()
        if begun is not None and time.monotonic() - begun >= kill.seconds:
            os.killpg(pid, signal.SIGKILL)
            return
        time.sleep(POLL_SECONDS)


def require(run: CommandRun, log: Path) -> CommandRun:
    """Return a run that has succeeded; UserError with the end of what it printed for any other."""
    if run.status:
        printed = log.with_suffix(".out").read_text(encoding="utf-8", errors="replace") + run.errors
        tail = "\n".join(f"  {line}" for line in printed.splitlines()[-SHOWN_LINES:])
        what = f"ended with status {run.status}:\n{tail}\n"
        raise UserError(f"python -m {' '.join(run.words)}", what, f"all that it printed is in {log}.out and .err")
    return run


def records_of(store: Path) -> dict[str, ArtifactRecord]:
    """Return key -> record of every artifact of a store."""
    records = [read_record(folder) for folder in sorted((store / "objects").glob("*"))]
    return {record.key: record for record in records if record is not None}
