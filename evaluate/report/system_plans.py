"""What a report needs from the store, and building what is missing of it.

Packing is another room's: a model that is not packed stops the report before its first hour. Everything else (segments,
loss, hypotheses, scores) is a stage that is built here or found built.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluate import system_stages
from segment.stages import segmented, shared_detectors
from submission.store.store import Stage, Store
from submission.system.campaign import Pair
from submission.system.data_folder import OPEN_TESTSET
from submission.system.system import System

Cell = tuple[Pair, str]
"""A pair and a test set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One system, and what is to be measured of it."""

    system: System
    store: Store
    cells: tuple[Cell, ...]
    """What is decoded and scored."""
    testsets: tuple[str, ...] = ()
    """Blind test sets whose segments are needed."""
    loss: bool = False
    without_references: tuple[Cell, ...] = ()
    """What would be measured if there were references."""
    comet: Path | None = None
    """A COMET checkpoint whose figures are shown where they are built; None for the one of the data folder."""

    def stages(self) -> list[Stage]:
        """Return every stage that is built for it, in building order."""
        system = self.system
        return [
            *(system.stage("segment", name) for name in self.testsets),
            *([system.loss_stage()] if self.loss else []),
            *(stage for pair, name in self.cells for stage in self.cell_stages(pair, name)),
        ]

    def cell_stages(self, pair: Pair, name: str) -> list[Stage]:
        """Return the stages of one cell: its hypotheses and their scores."""
        part = f"{pair.name}/{name}"
        return [self.system.stage("decode", part), self.system.stage("score", part)]

    def comet_stage(self, pair: Pair, name: str) -> Stage | None:
        """Return the stage of COMET's figures of one cell, which another environment builds; None without a model."""
        folder = self.comet or self.system.comet_model()
        return self.system.comet_stage(folder, f"{pair.name}/{name}") if folder else None

    def missing(self) -> list[Stage]:
        return [stage for stage in self.stages() if self.store.record(stage) is None]


def on_the_open_set(system: System, store: Store, comet: Path | None) -> Work:
    """Return what Tables 1, 4 and 5 need of a system: loss on dev, scores of ACL 60/60 eval."""
    cells, without = _by_references(system, store, [(pair, OPEN_TESTSET) for pair in system.campaign.pairs])
    return Work(system=system, store=store, cells=cells, without_references=without, loss=True, comet=comet)


def on_the_blind_sets(system: System, store: Store, comet: Path | None, *, every_cut: bool) -> Work:
    """Return what Table 6 and the table of segmentations need: scores of every blind test set with references.

    every_cut: whether the segments of the others are asked for too; there are no gold ones.
    """
    asked = [(pair, name) for pair in system.campaign.pairs for name in pair.testsets]
    cells, without = _by_references(system, store, asked)
    cut = asked if every_cut and system.recipe.segment.method != "gold" else cells
    testsets = tuple(dict.fromkeys(name for _, name in cut))
    return Work(system=system, store=store, cells=cells, without_references=without, testsets=testsets, comet=comet)


def _by_references(system: System, store: Store, asked: Sequence[Cell]) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
    """Return those that have references, and the others."""
    data = system.data_path(store)
    having = [cell for cell in asked if system_stages.has_references(data, *cell)]
    return tuple(having), tuple(cell for cell in asked if cell not in having)


def need_packed(works: Iterable[Work]) -> None:
    """Raise UserError, naming the command, unless every model is packed."""
    for work in works:
        work.store.need(work.system.stage("quantize"))


def announcement(works: Sequence[Work]) -> str:
    """Return what a report will build and what it finds built, as one line."""
    every = {stage.key: stage for work in works for stage in work.stages()}
    missing = {stage.key: stage for work in works for stage in work.missing()}
    counts = {name: sum(s.name == name for s in missing.values()) for name in sorted({s.name for s in every.values()})}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"
    return f"report: {len(works)} systems, {len(every)} stages, {len(missing)} to build ({told})"


def build(works: Sequence[Work], device: str) -> None:
    """Build every stage that is missing, one model in memory at a time."""
    for number, work in enumerate(works, 1):
        missing = {stage.key for stage in work.missing()}  # asked now: systems share stages
        if missing:
            told = f"report: system {number} of {len(works)}, {work.system.recipe.name}: {len(missing)} stages to build"
            print(told, file=sys.stderr, flush=True)
            _build(work, missing, device)


def _build(work: Work, missing: set[str], device: str) -> None:
    system, store = work.system, work.store
    load = system_stages.shared_model(device)
    segmentations = [system.stage("segment", name) for name in work.testsets]
    detectors = shared_detectors(segmentations, system.recipe.segment.batch_size)
    for stage in segmentations:
        if stage.key in missing:
            segmented(stage, store, detectors)
    if work.loss and system.loss_stage().key in missing:
        system_stages.lost(system, store, load)
    for pair, name in work.cells:
        decode, score = work.cell_stages(pair, name)
        if decode.key in missing:
            system_stages.decoded(system, store, pair, name, load)
        if score.key in missing:
            system_stages.scored_cell(system, store, pair, name)
