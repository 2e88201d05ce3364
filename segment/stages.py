"""The stage `segment:<NAME>`: the segments of one test set, built where they are not in the store."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from submission.store.store import Store
from submission.system.campaign import TestSet
from submission.system.system import REVISIONS, System

if TYPE_CHECKING:
    from segment.probabilities.speech_probabilities import Detectors, ProbabilityCache

DetectorsOf = Callable[[TestSet], "Detectors"]
"""Test set -> the detectors that its stage needs; each is made once, when the first stage needs it."""


def detectors_of(system: System, data: Path) -> DetectorsOf:
    """Return the detectors of every test set: where segments are given, the voice-activity detector alone."""
    make = functools.cache(functools.partial(_detectors, system, data))
    return lambda testset: make(reads_given_segments(system, testset))


def reads_given_segments(system: System, testset: TestSet) -> bool:
    """Say whether a test set's segments are read from a file: its own, or the references' with the method `gold`."""
    return testset.segmentation == "given" or system.recipe.segment.method == "gold"


def _detectors(system: System, data: Path, given: bool) -> Detectors:
    from segment.probabilities.detectors import make_detectors, vad_detectors

    revision = REVISIONS["segment"]
    if given:
        return vad_detectors(revision)
    free = next(t.name for t in system.campaign.testsets if t.segmentation == "free")
    digest = system.stage("segment", free).inputs.get("classifier", "")
    return make_detectors(system.recipe.segment, data / "models" / "shas", digest, revision)


def probability_cache(store: Store) -> ProbabilityCache:
    """Return the cache of frame probabilities: beside the store's artifacts, since several stages share them."""
    from segment.probabilities.speech_probabilities import ProbabilityCache

    return ProbabilityCache(folder=store.root / "frame_probabilities")


def segmented(system: System, store: Store, testset: TestSet, detectors: DetectorsOf) -> Path:
    """Return the folder of the stage segment:<NAME>: segments.yaml, segmentation_report.json."""
    data = system.data_path(store)
    folder, label = data / system.testset_part(testset.name), f"segment:{testset.name}"

    def make(out: Path) -> None:
        from segment.segmentation import SEGMENTS, segment_testset, write_given_segmentation

        if reads_given_segments(system, testset):
            seconds = system.campaign.model.window_seconds
            gold = testset.segmentation == "free"
            file = data / system.reference_part(testset.name) / SEGMENTS if gold else None
            write_given_segmentation(folder, seconds, detectors(testset), probability_cache(store), label, out, file)
        else:
            segment_testset(folder, system.recipe.segment, detectors(testset), probability_cache(store), label, out)

    return store.obtain(system.stage("segment", testset.name), make)
