"""Cases of a fuzzer: bounded in time, compared for writes, run by their numbers, resumed after a kill."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from submission.store.digests import write_text

HoldCase = Callable[[int, Path], None]
"""(number of a case, empty folder) -> nothing; AssertionError where it does not hold."""
SHOWN_SECONDS = 60.0


class Hang(BaseException):
    """A case took too long; no `except Exception` in what is tested may swallow it."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise Hang in the block after so many seconds of the processor, or six times as many by the clock."""

    def interrupt(*_: object) -> None:
        raise Hang

    timers = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, 6 * seconds))
    before = [signal.signal(number, interrupt) for _, number, _ in timers]
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def state(folder: Path) -> list[tuple[str, int, int, int]]:
    """Return what writing anything below a folder would change."""
    found = ((str(p), p.lstat()) for p in sorted(folder.rglob("*")))
    return [(name, s.st_mode, s.st_size, s.st_mtime_ns) for name, s in found]


def run_cases(name: str, begin: Callable[[Path], HoldCase]) -> int:
    """Run the cases that the command line names; return 1 where one fails.

    begin: makes in a folder what all cases share. `WORK/<name>.json` says which case is next and which have failed.
    """
    parser = argparse.ArgumentParser(description=f"Fuzz {name}. A killed run resumes.")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the journal is")
    parser.add_argument("--cases", type=int, default=100_000, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first (default: %(default)s)")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    journal, until = args.work / f"{name}.json", args.first + args.cases
    known = json.loads(journal.read_text(encoding="utf-8")) if journal.is_file() else {}
    resumed = known.get("first") == args.first
    done = known if resumed else {"first": args.first, "next": args.first, "failed": []}
    print(f"{name}: cases {done['next']:,} to {until - 1:,}, {len(done['failed'])} have failed before", flush=True)
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as scratch:
        place = Path(scratch)
        (place / "shared").mkdir()
        hold, shown = begin(place / "shared"), time.monotonic()
        for number in range(done["next"], until):
            case = place / "case"
            case.mkdir()
            try:
                hold(number, case)
            except AssertionError as error:
                done["failed"].append(number)
                print(f"{name}: {error}; again: --first {number} --cases 1", flush=True)
            shutil.rmtree(case, ignore_errors=True)
            done["next"] = number + 1
            write_text(journal, json.dumps(done))
            if time.monotonic() - shown > SHOWN_SECONDS:
                shown = time.monotonic()
                print(f"{name}: {number + 1:,} of {until:,}", flush=True)
    print(
        f"{name}: {done['next'] - args.first:,} cases, {len(done['failed'])} failed: {done['failed'][:20]}", flush=True
    )
    return int(bool(done["failed"]))
