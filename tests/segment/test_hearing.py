"""Listening: once per recording, in batches across recordings, in any order of runs the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from segment.classifier.model import load_classifier
from segment.probabilities.detectors import make_listener, voice_listener
from segment.probabilities.speech_probabilities import Detectors, FrameProbabilities, ProbabilityCache, listen
from segment.probabilities.vad import load_vad
from segment.testset import Recording
from submission.errors import UserError
from submission.system.recipe import SegmentOptions
from tests.segment.conftest import LoudnessDetector, loudness_listener
from tests.segment.tiny import speak

RATE = 16_000
SHIPPED = Path(__file__).parents[2] / "submission" / "miniature" / "shas"
OPTIONS = SegmentOptions(method="shas", max_seconds=7, min_seconds=0.2, threshold=0.5)


@pytest.fixture
def recordings(tmp_path) -> list[Recording]:
    """Return five recordings of 3 to 47 s."""
    made = []
    for i, seconds in enumerate((47.0, 3.0, 20.0, 5.5, 41.0)):
        path = tmp_path / f"r{i}.wav"
        soundfile.write(path, speak(seconds, i), RATE)
        made.append(Recording(name=path.name, path=path))
    return made


def heard(
    recordings: list[Recording], listener: Detectors, memory: ProbabilityCache
) -> dict[str, FrameProbabilities | UserError]:
    return {recording.name: result for recording, result in listen(recordings, listener, memory)}


def assert_equal(one: dict[str, FrameProbabilities], other: dict[str, FrameProbabilities]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name].voice, other[name].voice)
        assert np.array_equal(one[name].track, other[name].track)


def test_a_recording_is_listened_to_once(recordings, memory):
    first = heard(recordings, loudness_listener(), memory)

    def silence(*_, **__):
        raise AssertionError("listened again")

    deaf = replace(loudness_listener(), vad=silence, classify=lambda sources, tick: [silence() for _ in sources])
    assert_equal(heard(recordings, deaf, memory), first)


def test_what_was_heard_depends_on_the_bytes_and_not_on_the_name(recordings, memory, tmp_path):
    heard(recordings, loudness_listener(), memory)
    kept = len(list(memory.folder.iterdir()))
    moved = recordings[0].path.rename(tmp_path / "moved.wav")
    heard([Recording(name="moved.wav", path=moved)], loudness_listener(), memory)
    assert len(list(memory.folder.iterdir())) == kept
    soundfile.write(moved, speak(4, 99), RATE)
    heard([Recording(name="moved.wav", path=moved)], loudness_listener(), memory)
    assert len(list(memory.folder.iterdir())) == kept + 2


def test_an_interrupted_run_goes_on_with_the_recordings_that_are_left(recordings, memory, tmp_path, monkeypatch):
    """The third recording's detector is interrupted; groups of 40 s let the first be finished by then."""
    monkeypatch.setattr("segment.probabilities.speech_probabilities.TOGETHER_SECONDS", 40)
    calls = []

    class Interrupted(LoudnessDetector):
        def track(self, read, samples):
            calls.append(samples)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return super().track(read, samples)

    with pytest.raises(KeyboardInterrupt):
        heard(recordings, replace(loudness_listener(), vad=Interrupted), memory)
    resumed = heard(recordings, replace(loudness_listener(), vad=Interrupted), memory)
    assert len(calls) == 3 + 3  # the first two recordings are not heard again
    assert_equal(resumed, heard(recordings, loudness_listener(), ProbabilityCache(folder=tmp_path / "fresh")))


def test_a_torn_track_is_heard_again(recordings, memory):
    first = heard(recordings, loudness_listener(), memory)
    for path in memory.folder.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert_equal(heard(recordings, loudness_listener(), memory), first)


def test_a_damaged_recording_costs_no_other(recordings, memory, tmp_path):
    damaged = speak(30, 1) / 32768.0
    damaged[20 * RATE] = np.inf
    soundfile.write(recordings[2].path, damaged, RATE, subtype="FLOAT")
    recordings[1].path.write_bytes(b"no audio")
    results = heard(recordings, loudness_listener(), memory)
    assert [name for name, result in results.items() if isinstance(result, UserError)] == ["r1.wav", "r2.wav"]
    good = [recordings[i] for i in (0, 3, 4)]
    alone = heard(good, loudness_listener(), ProbabilityCache(folder=tmp_path / "fresh"))
    assert_equal({r.name: results[r.name] for r in good}, alone)


def test_the_real_models_hear_the_same_bits_alone_and_together_in_any_batch(recordings, memory, tmp_path):
    alone = {}
    listener = make_listener(replace(OPTIONS, batch_size=1), SHIPPED, "digest", 1)
    for recording in recordings:
        alone |= heard([recording], listener, ProbabilityCache(folder=tmp_path / recording.name.replace(".", "")))
    for size in (2, 14):
        listener = make_listener(replace(OPTIONS, batch_size=size), SHIPPED, "digest", 1)
        assert_equal(heard(recordings, listener, ProbabilityCache(folder=tmp_path / f"size{size}")), alone)
    assert 0 < np.mean(alone["r0.wav"].track) < 1


def test_keys_tell_apart_what_makes_a_track_another_one():
    keys = {
        make_listener(replace(OPTIONS, **changed), SHIPPED, digest, revision).classifier_key
        for changed in ({}, {"inference_times": 2}, {"original_batching": True})
        for digest in ("a", "b")
        for revision in (1, 2)
    }
    assert len(keys) == 12
    sizes = [make_listener(replace(OPTIONS, batch_size=n), SHIPPED, "a", 1).classifier_key for n in (1, 2)]
    assert sizes[0] == sizes[1]
    original = {
        make_listener(replace(OPTIONS, batch_size=n, original_batching=True), SHIPPED, "a", 1).classifier_key
        for n in (1, 2)
    }
    assert len(original) == 2


def test_only_methods_that_classify_ask_for_the_classifier(recordings, memory, tmp_path):
    for method in ("vad", "fixed"):
        listener = make_listener(replace(OPTIONS, method=method), tmp_path / "nowhere", "", 1)
        assert heard(recordings[:1], listener, memory)["r0.wav"].track is None
    assert voice_listener(1).classify is None


def test_progress_adds_up_to_the_recordings(recordings, memory):
    for _ in range(2):  # listening, then remembering
        seconds = []
        list(listen(recordings, loudness_listener(), memory, seconds.append))
        assert sum(seconds) == pytest.approx(116.5)


def test_hearing_equals_what_the_models_say_by_themselves(recordings, memory):
    audio = soundfile.read(recordings[1].path, dtype="float32")[0]
    result = heard([recordings[1]], make_listener(OPTIONS, SHIPPED, "digest", 1), memory)["r1.wav"]
    assert np.array_equal(result.voice, load_vad().track(lambda a, b: audio[a:b], len(audio)))
    expected = load_classifier(SHIPPED).probabilities(audio[None])[0]
    assert np.allclose(result.track[: len(expected)], expected[: len(result.track)], atol=1e-6)
