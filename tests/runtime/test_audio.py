from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from submission.errors import UserError
from submission.runtime.audio import channel_count, channel_sound, checked_length, read_audio, read_slice


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


def write_two_channels(path: Path, rate: int) -> None:
    """Write a file in which channel 0 is a tone of 440 Hz and channel 1 one of 1 kHz."""
    voices = np.stack([tone(0.5, rate), tone(0.5, rate, 1000)], axis=1)
    soundfile.write(path, voices, rate, subtype="FLOAT" if path.suffix == ".wav" else None)


@pytest.mark.parametrize(("name", "rate"), [("a.wav", 16_000), ("a.flac", 16_000), ("a.wav", 8_000)])
def test_channels_are_mixed_to_their_mean_unless_one_is_requested(tmp_path: Path, name: str, rate: int) -> None:
    path = tmp_path / name
    write_two_channels(path, rate)
    inner = slice(1000, 7000)
    first, second = tone(0.5, 16_000), tone(0.5, 16_000, 1000)
    for channel, expected in ((None, (first + second) / 2), (0, first), (1, second)):
        samples = read_audio(path, channel)
        assert samples.dtype == np.float32 and len(samples) == checked_length(path) == 8000
        assert np.abs(samples[inner] - expected[inner]).max() < 2e-3
        assert np.array_equal(read_slice(path, 1000, 7000, channel), samples[inner])
    assert channel_count(path) == 2


@pytest.mark.parametrize("gain", [0.1, 0.5, 1.0])
def test_sound_beside_the_first_channel_counts_from_ten_decibels_over_it(tmp_path: Path, gain: float) -> None:
    voices = np.stack([gain * tone(3, 8_000), tone(3, 8_000, 1000)], axis=1)
    soundfile.write(tmp_path / "a.wav", voices, 8_000, subtype="FLOAT")
    sound = channel_sound(tmp_path / "a.wav")
    assert sound.seconds == pytest.approx(3) and sound.cancelled == 0
    assert sound.beside_first == pytest.approx((0, 3 if gain == 0.1 else 0))


def test_a_constant_offset_and_faint_noise_are_no_sound(tmp_path: Path) -> None:
    noise = 1e-4 * np.random.default_rng(0).standard_normal((32_000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise + np.array([0, 0.5], np.float32), 16_000, subtype="FLOAT")
    assert channel_sound(tmp_path / "a.wav").seconds == 0


def test_a_mono_recording_has_no_sound_beside_what_is_heard(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1, 16_000), 16_000)
    assert channel_sound(tmp_path / "a.wav").beside_first == ()


def test_channels_of_what_pyav_reads_are_measured_in_the_decoding_that_gives_their_length(tmp_path: Path) -> None:
    write_m4a(tmp_path / "a.m4a", tone(3, 48_000), 48_000)  # the second channel is silent
    sound = channel_sound(tmp_path / "a.m4a")
    assert sound.seconds == pytest.approx(3, abs=0.2)
    assert sound.beside_first == (0, 0) and sound.cancelled == 0


def test_channels_of_what_pyav_reads_are_mixed_as_well(tmp_path: Path) -> None:
    write_m4a(tmp_path / "a.m4a", tone(1.0, 16_000), 16_000)  # its second channel is silent
    assert channel_count(tmp_path / "a.m4a") == 2
    peaks = [np.abs(read_audio(tmp_path / "a.m4a", channel)[2000:14_000]).max() for channel in (None, 0, 1)]
    assert peaks == pytest.approx([0.25, 0.5, 0.0], abs=0.05)


@pytest.mark.parametrize("channel", [1, 7, -1])
def test_a_channel_that_a_recording_lacks_is_refused_by_its_number(tmp_path: Path, channel: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.1, 16_000), 16_000)
    for read in (lambda path: read_audio(path, channel), lambda path: read_slice(path, 0, 1, channel)):
        with pytest.raises(UserError, match=f"has 1 channel, channel {channel} "):
            read(tmp_path / "a.wav")


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
    assert 0.2 < np.abs(samples[2000:14_000]).max() < 0.3  # the mean with a silent channel


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


def test_a_name_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    for suffix in ("wav", "flac"):
        soundfile.write(tmp_path / f"a.{suffix}", tone(1, 16_000), 16_000)
        path = (tmp_path / f"a.{suffix}").rename(tmp_path / os.fsdecode(b"gespr\xe4ch." + suffix.encode()))
        assert checked_length(path) == len(read_audio(path)) == 16_000
        assert len(read_slice(path, 100, 200)) == 100
