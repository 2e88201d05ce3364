"""Make the table of speed and memory: what `evaluate efficiency` measured of the systems' bundles, by batch size."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from evaluate.report.results import Results, SystemResult
from evaluate.report.system_plans import SystemPlan
from evaluate.report.table import Cell, Column, Group, Row, Table, marked
from submission.bundle.efficiency import (
    EFFICIENCY_FILE,
    BatchEfficiency,
    EfficiencyRecord,
    efficiency_lines,
    parse_efficiency,
)
from submission.bundle.manifest import NAME
from submission.counting import counted
from submission.errors import UserError
from submission.model.sizes import GIB

FIGURES = ("real-time factor", "segments/s", "tokens/s", "s with loading", "GiB")
"""Of one size of batches."""


def read_measured(dist: Path, plan: SystemPlan) -> EfficiencyRecord | None:
    """Return what was measured of a system's bundle; None where it was not, or on another model, which is printed."""
    system, folder = plan.system, dist / plan.system.name
    if not (folder / EFFICIENCY_FILE).is_file():
        return None
    try:
        record = parse_efficiency(json.loads((folder / EFFICIENCY_FILE).read_text(encoding="utf-8")))
        stages = json.loads((folder / NAME).read_text(encoding="utf-8"))["stages"]
        same = stages.get(system.model_stage().id) == system.model_stage().key
    except (OSError, ValueError, KeyError, AttributeError, UserError):
        same = False
    if not same:
        what = "cannot be read, or is of another model than the store's, and is left out"
        print(f"report: {folder / EFFICIENCY_FILE} {what}", file=sys.stderr, flush=True)
        return None
    return record


def measured_systems(results: Results) -> dict[str, tuple[SystemResult, EfficiencyRecord]]:
    """Return name -> system and record of all that were measured, each once."""
    every = (*results.systems, *results.uploads)
    return {system.name: (system, system.efficiency) for system in every if system.efficiency is not None}


def efficiency_table(results: Results) -> Table | None:
    """Return speed and memory by batch size; None where no bundle was measured."""
    measured = measured_systems(results)
    if not measured:
        return None
    sizes = sorted({size for _, record in measured.values() for size in record.batch_sizes})
    groups: dict[str, list[Row]] = {}
    for name, (_, record) in measured.items():
        cells = tuple(cell for size in sizes for cell in batch_cells(record, size))
        groups.setdefault("; ".join(efficiency_lines(record)[:2]), []).append(Row(head=name, cells=cells))
    better = dict(zip(FIGURES, ("low", "high", "high", "low", "low"), strict=True))
    return marked(
        Table(
            id="efficiency",
            title="Speed and memory",
            caption=f"{counted(len(measured), 'system')}, measured by batch size; "
            "rows under one heading were measured alike.",
            head="system",
            columns=tuple(
                Column(title=title, over=f"batch {size}", better=better[title]) for size in sizes for title in FIGURES
            ),
            groups=tuple(Group(title=title, rows=tuple(rows)) for title, rows in groups.items()),
            notes=(
                "Real-time factor: seconds of work for a second of audio, loading left out; small: the fastest and the "
                "slowest run, not an interval. Tokens: of the hypotheses. With loading: imports, loading, a warm-up "
                "of one segment, one run. GiB: most memory of the process, on a GPU of the device.",
            ),
            command="python -m evaluate efficiency BUNDLE --audio DIR",
        )
    )


def batch_cells(record: EfficiencyRecord, size: int) -> list[Cell]:
    """Return a cell for each of FIGURES of one size of batches."""
    batch = next((one for one in record.batches if one.batch_size == size), None)
    if batch is not None:
        return list(_figures(record, batch))
    unfit = next((one for one in record.did_not_fit if one.batch_size == size), None)
    missing = "not measured" if unfit is None else f"does not fit: memory of the {unfit.memory}"
    return [Cell(missing=missing)] * len(FIGURES)


def _figures(record: EfficiencyRecord, batch: BatchEfficiency) -> Iterator[Cell]:
    low, high = (seconds / record.audio_seconds for seconds in (min(batch.seconds), max(batch.seconds)))
    yield Cell(value=record.real_time_factor(batch), decimals=4, low=low, high=high)
    yield Cell(value=record.segment_rate(batch), decimals=2)
    yield Cell(value=batch.tokens / batch.median_seconds)
    yield Cell(value=batch.seconds_with_loading)
    peak = batch.peak_bytes if batch.device_peak_bytes is None else batch.device_peak_bytes
    yield Cell(value=peak / GIB, decimals=2)
