"""Recordings of every kind, read or refused by name."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from segment.audio_validation import checked_length, checked_reader, rough_seconds
from submission.errors import UserError

RATE = 16_000
SECONDS = 3


def tone(rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Return float64 [samples, channels], the same tone in every channel."""
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(SECONDS * rate) / rate)
    return np.repeat(wave[:, np.newaxis], channels, axis=1)


def write_m4a(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone().T.astype(np.float32), format="fltp", layout="mono")
        frame.rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def write(path: Path, **how) -> Path:
    if path.suffix == ".m4a":
        write_m4a(path)
    else:
        rate = how.pop("rate", RATE)
        soundfile.write(path, tone(rate, how.pop("channels", 1)), rate, **how)
    return path


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.wav", {}),
        ("stereo.wav", {"channels": 2}),
        ("8k.wav", {"rate": 8000}),
        ("44k.wav", {"rate": 44_100}),
        ("48k.wav", {"rate": 48_000}),
        ("float.wav", {"subtype": "FLOAT"}),
        ("24bit.wav", {"subtype": "PCM_24"}),
        ("a.flac", {}),
        ("a.ogg", {}),
        ("a.mp3", {}),
        ("a.m4a", {}),
        ("Gespräch mit 电话.wav", {}),
    ],
)
def test_every_kind_of_audio_is_read(name, how, tmp_path):
    path = write(tmp_path / name, **how)
    samples = checked_length(path)
    assert samples == pytest.approx(SECONDS * RATE, abs=4000)  # mp3 and aac pad
    assert rough_seconds(path) == pytest.approx(SECONDS, abs=0.25)
    piece = checked_reader(path)(RATE, 2 * RATE)
    assert piece.shape == (RATE,) and np.abs(piece).max() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.m4a", "24bit.wav"])
def test_a_truncated_file_is_refused_by_name(name, tmp_path):
    path = write(tmp_path / name, **({"subtype": "PCM_24"} if name == "24bit.wav" else {}))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UserError) as error:
        samples = checked_length(path)
        read = checked_reader(path)
        for start in range(0, samples, RATE):
            read(start, min(start + RATE, samples))
    assert name in str(error.value)


@pytest.mark.parametrize("content", [b"", b"hello" * 1000, b"RIFF\x24\x00\x00\x00WAVE"], ids=["zero", "text", "head"])
def test_what_is_no_audio_is_refused_by_name(content, tmp_path):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.wav: "):
        checked_length(tmp_path / "a.wav")
    assert rough_seconds(tmp_path / "a.wav") == 0.0


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"a\.wav: no such audio file"):
        checked_length(tmp_path / "a.wav")
    assert rough_seconds(tmp_path / "a.wav") == 0.0


def test_a_wav_whose_writer_could_not_go_back_is_whole(tmp_path):
    """What is written into a pipe has no length in its header."""
    path = write(tmp_path / "a.wav")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert checked_length(path) == SECONDS * RATE


def test_chunks_before_the_samples_are_stepped_over(tmp_path):
    path = write(tmp_path / "a.wav")
    content = path.read_bytes()
    at = content.index(b"data")
    odd = b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    whole = content[:4] + struct.pack("<I", len(content) + len(odd) - 8) + content[8:at] + odd + content[at:]
    path.write_bytes(whole)
    assert checked_length(path) == SECONDS * RATE
    path.write_bytes(whole[:-2000])
    with pytest.raises(UserError, match="lacks 2,000 of the bytes that its header counts"):
        checked_length(path)
