from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from submission.errors import UserError
from submission.runtime.audio import checked_length, read_audio, read_slice


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    """Return a sine of peak 0.5, float32 [samples]."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_m4a(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write float32 [samples] as AAC in two channels, the second silent."""
    stereo = np.stack([samples, np.zeros_like(samples)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate)
        stream.layout = "stereo"
        for start in range(0, len(samples), 1024):
            piece = np.ascontiguousarray(stereo[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_sixteen_bit_samples_are_scaled_to_one(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0, 16384, -32768], np.int16), 16_000)
    assert read_audio(tmp_path / "a.wav").tolist() == [0.0, 0.5, -1.0]
    assert read_audio(tmp_path / "a.wav").dtype == np.float32


def test_of_two_channels_the_first_counts(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.stack([tone(0.1, 16_000), np.zeros(1600)], axis=1), 16_000)
    assert np.abs(read_audio(tmp_path / "a.flac") - tone(0.1, 16_000)).max() < 1e-4


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_other_rates_become_the_same_tone_at_16_khz(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0003, rate), rate, subtype="FLOAT")
    samples = read_audio(tmp_path / "a.wav")
    assert len(samples) == checked_length(tmp_path / "a.wav")
    assert abs(len(samples) - 16_004.8) < 2
    inner = slice(1000, 15_000)  # away from the edges, where the filter has no past
    assert np.abs(samples[inner] - tone(1.0, 16_000)[inner]).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "rate"), [("a.wav", 16_000), ("a.wav", 44_100), ("a.flac", 16_000), ("a.mp3", 48_000)]
)
def test_a_slice_is_what_the_whole_recording_holds_there(tmp_path: Path, name: str, rate: int) -> None:
    path = tmp_path / name
    soundfile.write(path, tone(1.0, rate), rate)
    whole = read_audio(path)
    assert len(whole) == checked_length(path)
    for start, end in ((0, 1), (37, 5_001), (9_999, len(whole))):
        assert np.array_equal(read_slice(path, start, end), whole[start:end])
    assert np.array_equal(read_slice(path, 5), whole[5:])


def test_what_libsndfile_does_not_know_is_read_by_pyav(tmp_path: Path) -> None:
    write_m4a(tmp_path / "a.m4a", tone(1.0, 44_100), 44_100)
    samples = read_audio(tmp_path / "a.m4a")
    assert len(samples) == checked_length(tmp_path / "a.m4a")
    spectrum = np.abs(np.fft.rfft(samples[2000:14_000]))
    assert abs(np.argmax(spectrum) * 16_000 / 12_000 - 440) < 2
    assert 0.4 < np.abs(samples[2000:14_000]).max() < 0.6


def test_a_slice_cannot_be_written_into_the_recording(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5, 8_000), 8_000)
    read_slice(tmp_path / "a.wav", 0, 100)[:] = 9
    assert read_slice(tmp_path / "a.wav", 0, 100).max() < 1


@pytest.mark.parametrize(("start", "end"), [(0, 1601), (-1, 5), (5, 5), (7, 6), (1600, None)])
def test_a_slice_outside_the_recording_is_refused(tmp_path: Path, start: int, end: int | None) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.1, 16_000), 16_000)
    with pytest.raises(UserError, match="1600 samples"):
        read_slice(tmp_path / "a.wav", start, end)


@pytest.mark.parametrize("content", [b"", b"not audio" * 100])
def test_what_is_no_audio_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.wav").write_bytes(content)
    for read in (read_audio, checked_length, lambda path: read_slice(path, 0, 1)):
        with pytest.raises(UserError, match="bad.wav"):
            read(tmp_path / "bad.wav")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.wav.*no such audio file"):
        read_audio(tmp_path / "gone.wav")
