"""The published way of batching: equal to the recorded results of the published code."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from segment.classifier.compatibility import original_probabilities
from segment.classifier.convert import convert
from segment.classifier.model import Classifier, load_classifier
from segment.probabilities.windows import AudioSource, frame_probabilities
from submission.errors import UserError
from tests.segment.tiny import speak, write_checkpoint, write_wav2vec2

RATE = 16_000
GOLDEN = sorted((Path(__file__).parent / "golden" / "probabilities").glob("*.json"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Classifier:
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint = write_checkpoint(folder / "shas.pt", str(write_wav2vec2(folder / "wav2vec2")))
    convert(checkpoint, None, folder / "classifier")
    return load_classifier(folder / "classifier")


def source(seconds: float, seed: int) -> AudioSource:
    audio = speak(seconds, seed).astype(np.float32) / 32768
    return AudioSource(read=lambda start, end: audio[start:end], samples=len(audio))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_probabilities_are_those_of_the_published_code(path, classifier):
    record = json.loads(path.read_text(encoding="utf-8"))
    (probabilities,) = original_probabilities(
        [source(record["seconds"], record["seed"])],
        lambda: classifier,
        inference_times=record["inference_times"],
        batch_size=record["batch_size"],
    )
    assert len(probabilities) == len(record["probabilities"])
    assert np.abs(probabilities - record["probabilities"]).max() < 1e-4


def test_the_golden_probabilities_are_there_and_not_flat():
    assert len(GOLDEN) == 3
    assert all(np.ptp(json.loads(p.read_text(encoding="utf-8"))["probabilities"]) > 0.1 for p in GOLDEN)


def test_the_published_way_depends_on_the_batch_and_ours_does_not(classifier):
    recording = source(43, 0)
    published = [original_probabilities([recording], lambda: classifier, batch_size=n)[0] for n in (1, 3)]
    ours = [frame_probabilities([recording], classifier.probabilities, batch_size=n)[0] for n in (1, 3)]
    assert np.abs(published[0] - published[1]).max() > 1e-3
    assert np.array_equal(*ours)
    # alone in its batch no window is padded, and both ways are one
    assert np.abs(published[0] - ours[0]).max() < 1e-5


@pytest.mark.parametrize("seconds", [0.01, 0.5, 1.9, 20, 30, 70])
@pytest.mark.parametrize("loud", [0.0, 1.0])
def test_lengths_at_which_the_published_code_fails_have_probabilities(seconds, loud, classifier):
    audio = loud * speak(seconds, 3).astype(np.float32) / 32768
    recording = AudioSource(read=lambda start, end: audio[start:end], samples=len(audio))
    (probabilities,) = original_probabilities([recording], lambda: classifier)
    assert len(probabilities) == round(len(audio) * 49.95 / RATE)
    assert np.isfinite(probabilities).all() and (loud or not probabilities.any())


def test_a_classifier_whose_probabilities_are_not_finite_is_refused(classifier):
    damaged = copy.deepcopy(classifier)
    damaged.head.classification_layer.bias.data.fill_(float("nan"))
    with pytest.raises(UserError, match="frames a probability that is not a number"):
        original_probabilities([source(3, 0)], lambda: damaged)


def test_progress_adds_up_to_the_recording(classifier):
    seconds = []
    original_probabilities([source(43, 0)], lambda: classifier, inference_times=2, tick=seconds.append)
    assert sum(seconds) == pytest.approx(43)
