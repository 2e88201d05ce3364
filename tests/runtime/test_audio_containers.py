"""A known clip through containers and codecs, joined, cut, renamed: its samples come back, or the cause is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from submission.errors import UserError
from submission.runtime.audio import checked_length, read_audio, read_slice
from tests.support.audio_files import ENCODINGS, REMUXES, remux, speechlike, write_encoded

SECONDS = 3
CLIP = speechlike(SECONDS, 16_000)
CODEC_TOLERANCE = 0.2
"""Largest difference of a sample: AAC at its default rate needs most; another moment of the clip differs by 0.6."""
DELAY_SAMPLES = 2400
"""Encoders begin with up to so many samples of silence, where the container does not tell how many to skip."""
CAUSES = "lacks|cut off|another recording follows|are joined|not finished|counts|damaged|declares|last page"
LENGTHLESS = frozenset({"aac", "ts"})
"""Containers that say nothing of their length: of a cut one only what is there can be heard."""


def holds(samples: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether samples are those expected within the codec's tolerance, after the silence of an encoder."""
    inner = expected[400:-400]
    lags = range(min(DELAY_SAMPLES, len(samples) - len(expected) + 400) + 1)
    return any(np.abs(samples[400 + lag :][: len(inner)] - inner).max() < CODEC_TOLERANCE for lag in lags)


def heard_or_refused(path: Path, expected: np.ndarray) -> np.ndarray | None:
    """Return the samples, which are those expected and of one length for every reader; None for a named refusal."""
    try:
        samples = read_audio(path)
    except UserError as error:
        assert path.name in str(error) and any(cause in str(error) for cause in CAUSES.split("|")), str(error)
        with pytest.raises(UserError):
            checked_length(path)
        return None
    assert checked_length(path) == len(samples)
    assert np.array_equal(read_slice(path, 999, 5_000), samples[999:5_000])
    assert holds(samples, expected), path.name
    return samples


@pytest.fixture(scope="module", params=ENCODINGS, ids=lambda encoding: f"{encoding[1]}.{encoding[0]}")
def encoded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    suffix, codec = request.param
    return write_encoded(tmp_path_factory.mktemp("clip") / f"clip.{suffix}", CLIP, 16_000, codec)


def test_ten_containers_and_eight_codecs_are_tried() -> None:
    assert len({suffix for suffix, _ in ENCODINGS}) >= 10 and len({codec for _, codec in ENCODINGS}) >= 8


def test_the_whole_clip_is_heard(encoded: Path) -> None:
    samples = heard_or_refused(encoded, CLIP)
    assert samples is not None
    assert SECONDS <= len(samples) / 16_000 < SECONDS + 0.15


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a", "flac", "ogg"])
def test_a_wrong_suffix_changes_nothing(encoded: Path, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(encoded.read_bytes())
    assert np.array_equal(read_audio(path), read_audio(encoded))


def test_joined_files_are_heard_to_the_last_or_refused(encoded: Path, tmp_path: Path) -> None:
    path = tmp_path / encoded.name
    path.write_bytes(encoded.read_bytes() * 2)
    samples = heard_or_refused(path, CLIP)
    if samples is not None:
        assert len(samples) >= 2 * SECONDS * 16_000
        assert holds(samples[len(samples) // 2 - DELAY_SAMPLES // 2 :], CLIP)


@settings(max_examples=12, deadline=None)
@given(share=st.floats(0.2, 0.97))
def test_a_cut_file_is_refused_unless_nothing_says_how_long_it_was(encoded: Path, share: float) -> None:
    path = encoded.with_name(f"cut{encoded.suffix}")
    content = encoded.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    samples = heard_or_refused(path, CLIP[: int(len(CLIP) * share * 0.8)])
    if samples is not None:
        assert encoded.suffix[1:] in LENGTHLESS


@pytest.mark.parametrize(("suffix", "codec", "other"), REMUXES)
def test_packets_in_another_container_are_the_same_clip(suffix: str, codec: str, other: str, tmp_path: Path) -> None:
    source = write_encoded(tmp_path / f"source.{suffix}", CLIP, 16_000, codec)
    assert heard_or_refused(remux(source, tmp_path / f"clip.{other}"), CLIP) is not None


def test_an_m4a_whose_audio_begins_late_is_whole(tmp_path: Path) -> None:
    path = write_encoded(tmp_path / "late.m4a", CLIP, 16_000, "aac", first=2.0)
    assert heard_or_refused(path, CLIP) is not None


def test_a_live_recording_without_a_duration_is_whole(tmp_path: Path) -> None:
    for suffix, codec in (("webm", "libopus"), ("mka", "libmp3lame"), ("mka", "pcm_s16le")):
        path = write_encoded(tmp_path / f"live.{suffix}", CLIP, 16_000, codec, live="1")
        assert heard_or_refused(path, CLIP) is not None


def test_joined_parts_of_two_rates_are_both_heard(tmp_path: Path) -> None:
    parts = [
        write_encoded(tmp_path / f"{rate}.mp3", speechlike(SECONDS, rate), rate, "libmp3lame")
        for rate in (16_000, 44_100)
    ]
    (tmp_path / "both.mp3").write_bytes(b"".join(part.read_bytes() for part in parts))
    samples = read_audio(tmp_path / "both.mp3")
    assert 2 * SECONDS <= len(samples) / 16_000 < 2 * SECONDS + 0.2
    assert holds(samples, CLIP) and holds(samples[SECONDS * 16_000 :], CLIP)
