"""Progress on stderr: one live line in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIVE_SECONDS = 0.1
PLAIN_SECONDS = 10.0
FEW = 100


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def progress(
    label: str, total: float, unit: str = "items", note: Callable[[float], str] | None = None
) -> Iterator[Callable[[float], None]]:
    """Show the progress of a piece of work; yield the function that adds to the amount done.

    total and the amounts are in `unit`; those of a small total that is no whole number, 2.5 millions, have
    decimals. A live line (rate and time to go) replaces itself in a terminal; otherwise a line every ten seconds.
    `NO_COLOR` and `TERM=dumb` turn the live line off too, since it needs escape codes. Work shorter than two
    seconds prints nothing outside a terminal. note: seconds since the start -> further text of a line.
    """
    started = time.monotonic()
    live = sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    state = {"done": 0.0, "printed": started}
    digits = 0 if total >= FEW or total == int(total) else 2

    def line(now: float) -> str:
        seconds = max(now - started, 1e-9)
        rate = state["done"] / seconds
        left = f"{_clock((total - state['done']) / rate)} left" if rate > 0 else "? left"
        share = f"{state['done'] / total:4.0%}" if total else "100%"
        more = f", {note(seconds)}" if note else ""
        speed = f"{rate:,.{digits or 1}f} {unit}/s, {left}{more}"
        return f"{label}: {share} {state['done']:,.{digits}f}/{total:,.{digits}f} {unit}, {speed}"

    def tick(amount: float = 1) -> None:
        state["done"] += amount
        now = time.monotonic()
        if now - state["printed"] < (LIVE_SECONDS if live else PLAIN_SECONDS):
            return
        state["printed"] = now
        print(
            f"\r{line(now)}\x1b[K" if live else line(now),
            end="" if live else "\n",
            file=sys.stderr,
            flush=True,
        )

    try:
        yield tick
    finally:
        seconds = time.monotonic() - started
        end = f"{label}: {state['done']:,.{digits}f}/{total:,.{digits}f} {unit} in {_clock(seconds)}"
        if live:
            print(f"\r{end}\x1b[K", file=sys.stderr, flush=True)
        elif seconds > 2:
            print(end, file=sys.stderr, flush=True)
