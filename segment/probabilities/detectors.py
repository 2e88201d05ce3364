"""The listener of a recipe: which models hear a recording, loaded when the first recording needs them."""

from __future__ import annotations

import functools
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from segment.classifier.compatibility import original_tracks
from segment.classifier.model import Classifier, load_classifier
from segment.probabilities.speech_probabilities import Detectors
from segment.probabilities.vad import load_vad
from segment.probabilities.windows import probability_tracks
from submission.store.digests import canonical_json
from submission.system.recipe import SegmentOptions


def voice_listener(revision: int) -> Detectors:
    """Return a listener that asks the voice-activity detector alone."""
    key = canonical_json({"detector": f"silero-vad {version('silero-vad')}", "revision": revision})
    return Detectors(vad=functools.cache(load_vad), vad_key=key)


def make_listener(options: SegmentOptions, classifier: Path, digest: str, revision: int) -> Detectors:
    """Return the listener that a method needs.

    classifier: the classifier's folder, digest: of its contents; neither counts where the method does not classify.
    revision: of the stage, so that what an older one heard is not taken for what this one would.
    """
    voice = voice_listener(revision)
    if not options.about.needs_classifier:
        return voice

    @functools.cache
    def load() -> Classifier:
        return load_classifier(classifier, _device())

    def predict(windows: np.ndarray) -> np.ndarray:
        return load().probabilities(windows)

    times, size = options.inference_times, options.batch_size
    key = {"classifier": digest, "inference_times": times, "revision": revision}
    if options.original_batching:
        classify = functools.partial(original_tracks, classifier=load, inference_times=times, batch_size=size)
        key["original_batching"] = size
    else:
        classify = functools.partial(probability_tracks, predict=predict, inference_times=times, batch_size=size)
    return Detectors(vad=voice.vad, vad_key=voice.vad_key, classify=classify, classifier_key=canonical_json(key))


def _device() -> str:
    """Return the processor, or the GPU that a launcher of several processes means this one to take."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
