"""The stage of this room: the segments of one test set, found built or built."""

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
"""Gives what listens to a test set; each is made once, when the first stage needs it."""


def listeners(system: System, data: Path) -> DetectorsOf:
    """Return what gives the listener of a test set: where segments are given, the voice-activity detector alone."""
    make = functools.cache(functools.partial(_listener, system, data))
    return lambda testset: make(takes_given(system, testset))


def takes_given(system: System, testset: TestSet) -> bool:
    """Say whether a test set's segments are read from a file: its own, or the references' with the method `gold`."""
    return testset.segmentation == "given" or system.recipe.segment.method == "gold"


def _listener(system: System, data: Path, given: bool) -> Detectors:
    from segment.probabilities.detectors import make_listener, voice_listener

    revision = REVISIONS["segment"]
    if given:
        return voice_listener(revision)
    free = next(t.name for t in system.campaign.testsets if t.segmentation == "free")
    digest = system.stage("segment", free).inputs.get("classifier", "")
    return make_listener(system.recipe.segment, data / "models" / "shas", digest, revision)


def memory(store: Store) -> ProbabilityCache:
    """Return where tracks are remembered: beside the store's artifacts, since they are not one stage's."""
    from segment.probabilities.speech_probabilities import ProbabilityCache

    return ProbabilityCache(folder=store.root / "heard")


def segmented(system: System, store: Store, testset: TestSet, listener: DetectorsOf) -> Path:
    """Return the folder of the stage segment:<NAME>: segments.yaml, report.json."""
    data = system.data_path(store)
    folder, label = data / system.testset_part(testset.name), f"segment:{testset.name}"

    def make(out: Path) -> None:
        from segment.segmentation import SEGMENTS, normalise_given, segment_freely

        if takes_given(system, testset):
            seconds = system.campaign.model.window_seconds
            gold = testset.segmentation == "free"
            file = data / system.reference_part(testset.name) / SEGMENTS if gold else None
            normalise_given(folder, seconds, listener(testset), memory(store), label, out, file)
        else:
            segment_freely(folder, system.recipe.segment, listener(testset), memory(store), label, out)

    return store.obtain(system.stage("segment", testset.name), make)
