"""The detectors that a recipe's method needs; a model is loaded when the first recording needs it."""

from __future__ import annotations

import functools
from importlib.metadata import version
from pathlib import Path

import numpy as np

from segment.classifier.compatibility import original_probabilities
from segment.classifier.model import Classifier, load_classifier
from segment.probabilities.speech_probabilities import Detectors
from segment.probabilities.vad import load_vad
from segment.probabilities.windows import frame_probabilities
from submission.store.digests import canonical_json
from submission.store.launch import assigned_device
from submission.system.recipe.decoding_options import SegmentOptions


def vad_detectors(revision: int) -> Detectors:
    """Return the voice-activity detector alone; revision: of the stage `segment`."""
    key = canonical_json({"detector": f"silero-vad {version('silero-vad')}", "revision": revision})
    return Detectors(vad=functools.cache(load_vad), vad_key=key)


def make_detectors(options: SegmentOptions, classifier: Path, digest: str, revision: int) -> Detectors:
    """Return the detectors that a method needs.

    classifier: the classifier's folder, digest: of its contents; neither counts where the method does not classify.
    revision: of the stage `segment`, so that probabilities of an older one are computed again.
    """
    vad = vad_detectors(revision)
    if not options.about.needs_classifier:
        return vad

    @functools.cache
    def load() -> Classifier:
        return load_classifier(classifier, assigned_device())

    def predict(windows: np.ndarray) -> np.ndarray:
        return load().probabilities(windows)

    times, size = options.inference_times, options.batch_size
    key = {"classifier": digest, "inference_times": times, "revision": revision}
    if options.original_batching:
        classify = functools.partial(original_probabilities, classifier=load, inference_times=times, batch_size=size)
        key["original_batching"] = size
    else:
        classify = functools.partial(frame_probabilities, predict=predict, inference_times=times, batch_size=size)
    return Detectors(vad=vad.vad, vad_key=vad.vad_key, classify=classify, classifier_key=canonical_json(key))
