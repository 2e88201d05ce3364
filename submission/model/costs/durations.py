"""Turn what a step does into time on a device, and a forecast of all steps into a table.

A step's time is that of its operations at a share of the device's rate for bf16, of its bytes of weights at a share of
the bandwidth of its memory, and of its files at the disk's rate, one after the other. The shares are assumptions until
they are measured on a card.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from submission.model.costs.devices import CORE_BYTES, Device
from submission.model.costs.steps import StepWork
from submission.model.sizes import GIB
from submission.text_table import aligned

PRODUCT_SHARE, TRAINING_SHARE, BANDWIDTH_SHARE = 0.4, 0.35, 0.6
"""Of a card's stated rates, what inference over whole sequences, training, and reading of weights reach. A processor's
rates are measured ones, of which it reaches about all."""
DISK_BYTES_PER_SECOND = 500e6
SOLVER_BYTES = 240
"""Memory traffic of solving one weight by HQQ on a card: twenty iterations over an intermediate of float32."""
SOLVED_PER_CORE_BYTE = 0.004
"""Weights that a processor solves a second, per byte of its memory's bandwidth: 8.4 billion in 106 s on two cores."""


def step_seconds(work: StepWork, device: Device, host: Device) -> float | None:
    """Return how long a step takes on a device, None where its memory is too small.

    host: the processor beside a card, which does what cards do not.
    """
    runs_on = device if work.on_card else host
    if work.memory_bytes > runs_on.memory_bytes:
        return None
    share = (TRAINING_SHARE if work.training else PRODUCT_SHARE) if runs_on.is_card else 1.0
    computing = work.flops / (share * runs_on.flops_per_second)
    reading = work.weight_bytes / ((BANDWIDTH_SHARE if runs_on.is_card else 1.0) * runs_on.bytes_per_second)
    solved = BANDWIDTH_SHARE / SOLVER_BYTES if runs_on.is_card else SOLVED_PER_CORE_BYTE
    solving = work.solved / (solved * runs_on.bytes_per_second)
    cores = max(1.0, host.bytes_per_second / CORE_BYTES)
    return computing + reading + solving + work.core_seconds / cores + work.file_bytes / DISK_BYTES_PER_SECOND


def duration_text(seconds: float | None) -> str:
    """Return a forecast duration with no more digits than it deserves: `40 s`, `12 min`, `3.5 h`, `9 d`."""
    if seconds is None:
        return "too small"
    for unit, size, most in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < most:
            value = seconds / size
            return f"{value:.1f} {unit}" if unit == "h" and value < 10 else f"{max(1, round(value))} {unit}"
    return f"{round(seconds / 86400)} d"


def cost_lines(works: Mapping[str, StepWork], devices: Iterable[Device], host: Device) -> list[str]:
    """Return the forecast as lines: a row a step, a column a device, then memory and disk; the last row sums up."""
    columns = tuple(devices)
    rows = [["step", *(device.name for device in columns), "memory", "disk"]]
    totals: list[float | None] = [0.0 for _ in columns]
    for name, work in works.items():
        seconds = [step_seconds(work, device, host) for device in columns]
        totals = [None if t is None or s is None else t + s for t, s in zip(totals, seconds, strict=True)]
        sizes = [f"{size / GIB:.1f} GiB" if size >= GIB / 20 else "-" for size in (work.memory_bytes, work.disk_bytes)]
        rows.append([name, *map(duration_text, seconds), *sizes])
    disk = sum(work.disk_bytes for work in works.values())
    rows.append(["together", *map(duration_text, totals), "", f"{disk / GIB:.1f} GiB"])
    return aligned(rows).splitlines()
