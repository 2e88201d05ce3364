"""Plan the stages that a report needs of each system, and build the missing ones.

Models must be packed beforehand by `quantize`; a missing one is an error before any other work. All other stages
(segments, loss, hypotheses, scores) are built here where they are missing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluate import system_stages
from segment.stages import segmented, shared_detectors
from submission.counting import counted
from submission.store.store import Stage, Store
from submission.system.campaign import Pair
from submission.system.data_folder import OPEN_TESTSET
from submission.system.system import System

PairAndTestSet = tuple[Pair, str]
"""A pair and a test set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemPlan:
    """One system, and the measurements that a report needs of it."""

    system: System
    store: Store
    scored: tuple[PairAndTestSet, ...]
    """Pairs and test sets to decode and score."""
    testsets: tuple[str, ...] = ()
    """Blind test sets whose segments are needed."""
    loss: bool = False
    without_references: tuple[PairAndTestSet, ...] = ()
    """Pairs and test sets that are not scored for lack of references."""
    comet: Path | None = None
    """A COMET checkpoint, whose scores are shown where they are built; None for the one of the data folder."""
    labelled: bool = False
    """Whether pictures name the system wherever it lies."""

    def stages(self) -> list[Stage]:
        """Return every stage that the system needs, in building order."""
        system = self.system
        return [
            *(system.stage("segment", name) for name in self.testsets),
            *([system.loss_stage()] if self.loss else []),
            *(stage for pair, name in self.scored for stage in self.scoring_stages(pair, name)),
        ]

    def scoring_stages(self, pair: Pair, name: str) -> list[Stage]:
        """Return the stages decode and score of one pair and test set."""
        part = f"{pair.name}/{name}"
        return [self.system.stage("decode", part), self.system.stage("score", part)]

    def comet_stage(self, pair: Pair, name: str) -> Stage | None:
        """Return the stage comet of one pair and test set, which the score environment builds; None without a model."""
        folder = self.comet or self.system.comet_model()
        return self.system.comet_stage(folder, f"{pair.name}/{name}") if folder else None

    def missing(self) -> list[Stage]:
        """Return the stages that are not built yet, in the order of building."""
        return [stage for stage in self.stages() if self.store.record(stage) is None]


def on_the_open_set(system: System, store: Store, comet: Path | None, *, labelled: bool) -> SystemPlan:
    """Return the plan of a system for Tables 1, 4 and 5: loss on dev, scores of ACL 60/60 eval."""
    scored, without = _by_references(system, store, [(pair, OPEN_TESTSET) for pair in system.campaign.pairs])
    return SystemPlan(
        system=system,
        store=store,
        scored=scored,
        without_references=without,
        loss=True,
        comet=comet,
        labelled=labelled,
    )


def on_the_blind_sets(system: System, store: Store, comet: Path | None, *, every_segmentation: bool) -> SystemPlan:
    """Return the plan of a system for Table 6 or the segmentations: scores of every blind test set with references.

    every_segmentation: whether to segment the test sets without references too; these have no gold segments.
    """
    requested = [(pair, name) for pair in system.campaign.pairs for name in pair.testsets]
    scored, without = _by_references(system, store, requested)
    segmented_sets = requested if every_segmentation and system.recipe.segment.method != "gold" else scored
    testsets = tuple(dict.fromkeys(name for _, name in segmented_sets))
    return SystemPlan(
        system=system, store=store, scored=scored, without_references=without, testsets=testsets, comet=comet
    )


def _by_references(
    system: System, store: Store, requested: Sequence[PairAndTestSet]
) -> tuple[tuple[PairAndTestSet, ...], tuple[PairAndTestSet, ...]]:
    """Return those with references, and the others."""
    data = system.data_path(store)
    having = [one for one in requested if system_stages.has_references(data, *one)]
    return tuple(having), tuple(one for one in requested if one not in having)


def need_packed(plans: Iterable[SystemPlan]) -> None:
    """Raise UserError, naming the command, unless every model is packed."""
    for plan in plans:
        plan.store.need(plan.system.model_stage())


def announcement(plans: Sequence[SystemPlan]) -> str:
    """Return the numbers of stages that a report needs and has to build, as one line."""
    every = {stage.key: stage for plan in plans for stage in plan.stages()}
    missing = {stage.key: stage for plan in plans for stage in plan.missing()}
    counts = {name: sum(s.name == name for s in missing.values()) for name in sorted({s.name for s in every.values()})}
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"
    return f"report: {counted(len(plans), 'system')}, {counted(len(every), 'stage')}, {len(missing)} to build ({text})"


def build(plans: Sequence[SystemPlan], device: str) -> None:
    """Build every stage that is missing, one model in memory at a time."""
    for number, plan in enumerate(plans, 1):
        missing = {stage.key for stage in plan.missing()}  # computed now: systems share stages
        if missing:
            text = f"report: system {number} of {len(plans)}, {plan.system.recipe.name}"
            print(f"{text}: {counted(len(missing), 'stage')} to build", file=sys.stderr, flush=True)
            _build(plan, missing, device)


def _build(plan: SystemPlan, missing: set[str], device: str) -> None:
    system, store = plan.system, plan.store
    load = system_stages.shared_model(device)
    segmentations = [system.stage("segment", name) for name in plan.testsets]
    detectors = shared_detectors(segmentations, system.recipe.segment.batch_size)
    for stage in segmentations:
        if stage.key in missing:
            segmented(stage, store, detectors)
    if plan.loss and system.loss_stage().key in missing:
        system_stages.lost(system, store, load)
    for pair, name in plan.scored:
        decode, score = plan.scoring_stages(pair, name)
        if decode.key in missing:
            system_stages.decoded(system, store, pair, name, load)
        if score.key in missing:
            system_stages.scored_testset(system, store, pair, name)
