"""Frame probabilities: computed once per recording, in batches across recordings, the same in any order of runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from segment.classifier.model import load_classifier
from segment.probabilities.detectors import make_detectors, vad_detectors
from segment.probabilities.speech_probabilities import Detectors, FrameProbabilities, ProbabilityCache, detect_speech
from segment.probabilities.vad import load_vad
from segment.recording_parts import RecordingPart
from segment.testset import RecordingFile
from submission.errors import UserError
from submission.system.recipe.decoding_options import SegmentOptions
from tests.segment.support import LoudnessDetector, loudness_detectors
from tests.segment.tiny import speak

RATE = 16_000
SHIPPED = Path(__file__).parents[2] / "submission" / "miniature" / "shas"
OPTIONS = SegmentOptions(method="shas", max_seconds=7, min_seconds=0.2, threshold=0.5)


@pytest.fixture
def recordings(tmp_path) -> list[RecordingFile]:
    """Return five recordings of 3 to 47 s."""
    made = []
    for i, seconds in enumerate((47.0, 3.0, 20.0, 5.5, 41.0)):
        path = tmp_path / f"r{i}.wav"
        soundfile.write(path, speak(seconds, i), RATE)
        made.append(RecordingFile(name=path.name, path=path))
    return made


def detected(
    recordings: list[RecordingFile], detectors: Detectors, cache: ProbabilityCache
) -> dict[str, FrameProbabilities | UserError]:
    parts = [RecordingPart(recording=recording) for recording in recordings]
    return {part.recording.name: result for part, result in detect_speech(parts, detectors, cache)}


def assert_equal(one: dict[str, FrameProbabilities], other: dict[str, FrameProbabilities]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name].vad, other[name].vad)
        assert np.array_equal(one[name].classifier, other[name].classifier)


def test_the_probabilities_of_a_recording_are_computed_once(recordings, cache):
    first = detected(recordings, loudness_detectors(), cache)

    def silence(*_, **__):
        raise AssertionError("computed again")

    broken = replace(loudness_detectors(), vad=silence, classify=lambda sources, tick: [silence() for _ in sources])
    assert_equal(detected(recordings, broken, cache), first)


def test_cached_probabilities_belong_to_the_bytes_and_not_to_the_name(recordings, cache, tmp_path):
    detected(recordings, loudness_detectors(), cache)
    kept = len(list(cache.folder.iterdir()))
    moved = recordings[0].path.rename(tmp_path / "moved.wav")
    detected([RecordingFile(name="moved.wav", path=moved)], loudness_detectors(), cache)
    assert len(list(cache.folder.iterdir())) == kept
    soundfile.write(moved, speak(4, 99), RATE)
    detected([RecordingFile(name="moved.wav", path=moved)], loudness_detectors(), cache)
    assert len(list(cache.folder.iterdir())) == kept + 2


def test_an_interrupted_run_resumes_with_the_recordings_that_are_left(recordings, cache, tmp_path, monkeypatch):
    """The third recording's detector is interrupted; groups of 40 s let the first be finished by then."""
    monkeypatch.setattr("segment.probabilities.speech_probabilities.GROUP_SECONDS", 40)
    calls = []

    class Interrupted(LoudnessDetector):
        def probabilities(self, read, samples):
            calls.append(samples)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return super().probabilities(read, samples)

    with pytest.raises(KeyboardInterrupt):
        detected(recordings, replace(loudness_detectors(), vad=Interrupted), cache)
    resumed = detected(recordings, replace(loudness_detectors(), vad=Interrupted), cache)
    assert len(calls) == 3 + 3  # the first two recordings are not computed again
    assert_equal(resumed, detected(recordings, loudness_detectors(), ProbabilityCache(folder=tmp_path / "fresh")))


def test_damaged_probabilities_are_computed_again(recordings, cache):
    first = detected(recordings, loudness_detectors(), cache)
    for path in cache.folder.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert_equal(detected(recordings, loudness_detectors(), cache), first)


def test_a_damaged_recording_costs_no_other(recordings, cache, tmp_path):
    damaged = speak(30, 1) / 32768.0
    damaged[20 * RATE] = np.inf
    soundfile.write(recordings[2].path, damaged, RATE, subtype="FLOAT")
    recordings[1].path.write_bytes(b"no audio")
    results = detected(recordings, loudness_detectors(), cache)
    assert [name for name, result in results.items() if isinstance(result, UserError)] == ["r1.wav", "r2.wav"]
    good = [recordings[i] for i in (0, 3, 4)]
    alone = detected(good, loudness_detectors(), ProbabilityCache(folder=tmp_path / "fresh"))
    assert_equal({r.name: results[r.name] for r in good}, alone)


def test_the_real_models_give_the_same_bits_alone_and_together_in_any_batch(recordings, cache, tmp_path):
    alone = {}
    detectors = make_detectors(replace(OPTIONS, batch_size=1), SHIPPED, "digest", 1)
    for recording in recordings:
        alone |= detected([recording], detectors, ProbabilityCache(folder=tmp_path / recording.name.replace(".", "")))
    for size in (2, 14):
        detectors = make_detectors(replace(OPTIONS, batch_size=size), SHIPPED, "digest", 1)
        assert_equal(detected(recordings, detectors, ProbabilityCache(folder=tmp_path / f"size{size}")), alone)
    assert 0 < np.mean(alone["r0.wav"].classifier) < 1


def test_cache_keys_differ_where_the_probabilities_do():
    keys = {
        make_detectors(replace(OPTIONS, **changed), SHIPPED, digest, revision).classifier_key
        for changed in ({}, {"inference_times": 2}, {"original_batching": True})
        for digest in ("a", "b")
        for revision in (1, 2)
    }
    assert len(keys) == 12
    sizes = [make_detectors(replace(OPTIONS, batch_size=n), SHIPPED, "a", 1).classifier_key for n in (1, 2)]
    assert sizes[0] == sizes[1]
    original = {
        make_detectors(replace(OPTIONS, batch_size=n, original_batching=True), SHIPPED, "a", 1).classifier_key
        for n in (1, 2)
    }
    assert len(original) == 2


def test_only_methods_that_classify_load_the_classifier(recordings, cache, tmp_path):
    for method in ("vad", "fixed"):
        detectors = make_detectors(replace(OPTIONS, method=method), tmp_path / "nowhere", "", 1)
        assert detected(recordings[:1], detectors, cache)["r0.wav"].classifier is None
    assert vad_detectors(1).classify is None


def test_progress_adds_up_to_the_recordings(recordings, cache):
    for _ in range(2):  # computed, then read from the cache
        seconds = []
        list(
            detect_speech([RecordingPart(recording=r) for r in recordings], loudness_detectors(), cache, seconds.append)
        )
        assert sum(seconds) == pytest.approx(116.5)


def test_probabilities_equal_those_of_the_models_by_themselves(recordings, cache):
    audio = soundfile.read(recordings[1].path, dtype="float32")[0]
    result = detected([recordings[1]], make_detectors(OPTIONS, SHIPPED, "digest", 1), cache)["r1.wav"]
    assert np.array_equal(result.vad, load_vad().probabilities(lambda a, b: audio[a:b], len(audio)))
    expected = load_classifier(SHIPPED).probabilities(audio[None])[0]
    assert np.allclose(result.classifier[: len(expected)], expected[: len(result.classifier)], atol=1e-6)
