"""A call with a speaker in each channel, translated by `--channels each`: every segment of both, merged by time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluate.__main__ import make_parser
from evaluate.recordings.recording_folder import ListedSegments
from segment.probabilities.detectors import make_detectors, vad_detectors
from segment.probabilities.speech_probabilities import ProbabilityCache
from segment.segmentation import TestSetOptions, segment_testset, write_given_segmentation
from segment.testset import read_folder
from submission.cli import run
from submission.miniature.recordings import SentencePool, Session, SyntheticRecording, quiet, record
from submission.store.digests import tree_digest
from submission.system.data_folder import SHIPPED
from submission.system.recipe.recipe_files import read_recipe
from submission.system.revisions import REVISIONS
from submission.text.segments import SAMPLE_RATE, Segment, read_segments

SPEAKERS = ("alice", "bruno")


@pytest.fixture(scope="module")
def speakers() -> list[SyntheticRecording]:
    """Return what each speaker says, with pauses in which the other one speaks, or both at once."""
    pool = SentencePool(1)
    plan = {"domains": ("talks",), "lines": 2, "environment": quiet, "split": "train", "pauses_seconds": (1.5, 3.0)}
    return [record(Session(name=name, voices=(name,), **plan), pool, 1, lambda done: None) for name in SPEAKERS]


@pytest.fixture(scope="module")
def call(speakers, tmp_path_factory) -> Path:
    """Return a folder with the call, a speaker in each channel, and one with a mono recording of each speaker."""
    place = tmp_path_factory.mktemp("call")
    longest = max(len(speaker.samples) for speaker in speakers)
    channels = np.stack([np.pad(s.samples, (0, longest - len(s.samples))) for s in speakers], axis=1)
    for folder in ("both", "apart"):
        (place / folder).mkdir()
    soundfile.write(place / "both" / "call.flac", channels, SAMPLE_RATE)
    for channel, speaker in enumerate(SPEAKERS):
        soundfile.write(place / "apart" / f"{speaker}.wav", channels[:, channel], SAMPLE_RATE)
    (place / "both" / "FILE_ORDER").write_text("call\n", encoding="utf-8")
    return place


def translate(audio: Path, out: Path) -> list[tuple[Segment, str]]:
    """Return the segments of a folder with their lines, by the shipped miniature and its classifier."""
    system = ["--campaign", "miniature", "--recipe", "primary", "--model", str(SHIPPED["base"]), "--pair", "en-de"]
    how = ["--method", "shas", "--classifier", str(SHIPPED["shas"]), "--channels", "each"]
    status = run(make_parser(), ["translate", *system, *how, "--audio", str(audio), "--out", str(out)])
    assert status == 0
    lines = (out / "en-de.txt").read_text(encoding="utf-8").split("\n")
    segments = read_segments(out / "segments.yaml")
    assert len(lines) == len(segments) + 1 and not lines[-1]
    return list(zip(segments, lines[:-1], strict=True))


def test_both_speakers_of_a_call_are_segmented_and_translated_as_each_alone(call, speakers, tmp_path):
    both, apart = translate(call / "both", tmp_path / "both"), translate(call / "apart", tmp_path / "apart")
    starts = [segment.start for segment, _ in both]
    channels = [segment.channel for segment, _ in both]
    assert starts == sorted(starts) and channels not in (sorted(channels), sorted(channels, reverse=True))  # merged
    for channel, (name, speaker) in enumerate(zip(SPEAKERS, speakers, strict=True)):
        heard = [(s.start, s.end, line) for s, line in both if s.channel == channel]
        assert heard == [(s.start, s.end, line) for s, line in apart if s.recording == f"{name}.wav"]
        assert all(line for _, _, line in heard)
        for sentence in speaker.lines:  # nothing that is said is left out
            middle = (sentence.start + sentence.end) // 2
            assert any(start < middle < end for start, end, _ in heard)
    options = read_recipe("primary", "miniature").segment
    detectors = make_detectors(options, SHIPPED["shas"], tree_digest(SHIPPED["shas"]), REVISIONS["segment"])
    cache = ProbabilityCache(folder=tmp_path / "cache")
    (tmp_path / "alone").mkdir()
    about = TestSetOptions(channels="each")
    segment_testset(call / "both", options, detectors, cache, "CALL", tmp_path / "alone", about)
    assert read_segments(tmp_path / "alone" / "segments.yaml") == [segment for segment, _ in both]


def test_listed_segments_of_the_first_channel_are_split_as_the_stage_splits_them(call, speakers, tmp_path):
    seconds = len(speakers[0].samples) / SAMPLE_RATE
    listed = tmp_path / "listed.yaml"
    listed.write_text(f"- {{wav: call.flac, offset: 0.0, duration: {seconds:.3f}}}\n", encoding="utf-8")
    cache, detectors = ProbabilityCache(folder=tmp_path / "cache"), vad_detectors(REVISIONS["segment"])
    about, out = TestSetOptions(channels="first"), tmp_path / "stage"
    out.mkdir()
    write_given_segmentation(call / "both", 4, detectors, cache, "CALL", out, listed, about)
    source = ListedSegments(path=listed, window_seconds=4, channels="first")
    segments, counts = source(read_folder(call / "both"), cache)
    assert segments == read_segments(out / "segments.yaml")
    assert counts["split"] == 1 and len(segments) > 1 and {segment.channel for segment in segments} == {0}


def test_a_re_run_translates_both_speakers_of_a_call(bundled, call, tmp_path):
    out = tmp_path / "out"
    arguments = [*bundled.arguments(), "--audio", str(call / "both"), "--out", str(out), "--channels", "each"]
    assert run(make_parser(), arguments) == 0
    segments = read_segments(out / "segments.yaml")
    assert [s.start for s in segments] == sorted(s.start for s in segments)
    places = [[(s.start, s.end) for s in segments if s.channel == channel] for channel in (0, 1)]
    assert places[0] == places[1]  # stretches of one length, whatever is said
    lines = (out / "en-de.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(segments)
