"""Recordings of every kind, read or refused by name."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from submission.errors import UserError
from submission.runtime.audio import checked_length, read_slice, rough_seconds
from tests.support.audio_files import write_encoded

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
    piece = read_slice(path, RATE, 2 * RATE)
    assert piece.shape == (RATE,) and np.abs(piece).max() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.m4a", "24bit.wav"])
def test_a_truncated_file_is_refused_by_name(name, tmp_path):
    path = write(tmp_path / name, **({"subtype": "PCM_24"} if name == "24bit.wav" else {}))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UserError) as error:
        checked_length(path)
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


def reheaded(path: Path, at: int, value: bytes) -> Path:
    """Overwrite bytes of a file."""
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)
    return path


def data_size_at(path: Path) -> int:
    """Return where a wav counts its bytes of samples."""
    return path.read_bytes().index(b"data") + 4


def test_a_wav_of_a_recorder_that_crashed_is_whole(tmp_path):
    """Such a header counts no samples; as many as follow are there."""
    path = write(tmp_path / "a.wav")
    reheaded(path, data_size_at(path), bytes(4))
    assert checked_length(path) == SECONDS * RATE
    assert np.abs(read_slice(path, RATE, 2 * RATE)).max() == pytest.approx(0.3, abs=0.01)


def test_a_header_that_counts_less_than_is_there_is_refused_with_both_counts(tmp_path):
    path = write(tmp_path / "a.wav")
    reheaded(path, data_size_at(path), struct.pack("<I", 2 * RATE))
    with pytest.raises(UserError, match=r"counts 32,000 bytes of samples, and 96,000 are there") as error:
        checked_length(path)
    assert "write the header again" in error.value.fix
    with pytest.raises(UserError, match="32,000"):
        read_slice(path, 0, 10)


@pytest.mark.parametrize("name", ["a.aiff", "a.w64", "a.rf64"])
def test_other_containers_with_a_count_of_zero_are_refused_by_name(name, tmp_path):
    how = {"format": name.partition(".")[2].upper()}
    path = write(tmp_path / name, **how, subtype="PCM_16")
    assert checked_length(path) == SECONDS * RATE
    content = path.read_bytes()
    at = content.index(b"SSND") + 4 if name == "a.aiff" else content.index(b"data") + (16 if name == "a.w64" else 4)
    if name == "a.rf64":
        at = content.index(b"ds64") + 16
    reheaded(path, at, bytes(8 if name != "a.aiff" else 4))
    with pytest.raises(UserError, match=r"counts no samples, and 9\d,\d{3} bytes follow: it was not finished"):
        checked_length(path)


def test_a_flac_that_was_written_to_a_pipe_is_whole(tmp_path):
    path = write(tmp_path / "a.flac")
    head = path.read_bytes()[18:26]
    bits = int.from_bytes(head, "big") >> 36 << 36
    reheaded(path, 18, bits.to_bytes(8, "big"))
    assert soundfile.info(path).frames > 1 << 40  # libsndfile's word for an unknown length
    assert checked_length(path) == SECONDS * RATE
    assert len(read_slice(path, 7, RATE)) == RATE - 7


def test_an_mp3_of_variable_rate_without_a_count_is_heard_to_its_end(tmp_path):
    quiet, loud = np.zeros(SECONDS * RATE, np.float32), np.random.default_rng(3).normal(0, 0.2, SECONDS * RATE)
    samples = np.concatenate([quiet, loud.astype(np.float32)])
    path = write_encoded(tmp_path / "a.mp3", samples, RATE, "libmp3lame", write_xing="0")
    assert checked_length(path) == pytest.approx(len(samples), abs=2500)
    assert np.abs(read_slice(path, len(samples) - RATE, len(samples))).max() > 0.3


def test_a_playlist_opens_no_other_file(tmp_path):
    write(tmp_path / "secret.wav")
    for name, text in (
        ("list.m4a", f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{tmp_path / 'secret.wav'}\n#EXT-X-ENDLIST\n"),
        ("concat.m4a", f"ffconcat version 1.0\nfile '{tmp_path / 'secret.wav'}'\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match="is not audio"):
            checked_length(tmp_path / name)


@pytest.mark.parametrize("rate", [1, 1999])
def test_a_rate_that_no_speech_has_is_refused_before_anything_is_resampled(rate, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100_000), rate)
    with pytest.raises(UserError, match=r"samples a second, expected 2,000 to 768,000"):
        checked_length(tmp_path / "a.wav")
    with pytest.raises(UserError, match=r"samples a second"):
        read_slice(tmp_path / "a.wav", 0, 1)


def test_more_audio_than_is_read_is_refused_by_its_header(tmp_path):
    path = write(tmp_path / "a.flac")
    bits = int.from_bytes(path.read_bytes()[18:26], "big") >> 36 << 36 | 23_400 * RATE
    reheaded(path, 18, bits.to_bytes(8, "big"))
    with pytest.raises(UserError, match=r"6\.5 h long, at most 6 h are read"):
        checked_length(tmp_path / "a.flac")


def test_samples_that_are_not_scaled_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone() * 32768, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"samples of up to 9,\d{3}\.\d, first at .*; divide its samples"):
        checked_length(tmp_path / "a.wav")


def test_cover_art_before_the_frames_hides_no_length(tmp_path):
    path = write_encoded(tmp_path / "a.mp3", tone().T[0].astype(np.float32), RATE, "libmp3lame")
    stream = path.read_bytes()[10 + sum(b << 7 * (3 - i) for i, b in enumerate(path.read_bytes()[6:10])) :]
    picture = 300_000
    size = bytes(picture >> 7 * (3 - i) & 0x7F for i in range(4))
    path.write_bytes(b"ID3\x04\0\0" + size + bytes(picture) + stream)
    assert checked_length(path) == pytest.approx(SECONDS * RATE, abs=1200)
    path.write_bytes(path.read_bytes()[: -len(stream) // 3])
    with pytest.raises(UserError, match="was cut off"):
        checked_length(path)


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a", "flac", "ogg", "webm", "aac", "mov", "sph"])
def test_an_empty_file_of_any_suffix_is_refused_by_name(suffix, tmp_path):
    (tmp_path / f"a.{suffix}").touch()
    with pytest.raises(UserError, match=rf"a\.{suffix}: is not audio"):
        checked_length(tmp_path / f"a.{suffix}")


def test_a_truncated_sphere_file_is_refused_with_what_it_lacks(tmp_path):
    path = write(tmp_path / "a.sph", format="NIST", subtype="PCM_16", channels=2)
    assert checked_length(path) == SECONDS * RATE
    path.write_bytes(path.read_bytes()[:-50_000])
    with pytest.raises(UserError, match="lacks 50,000 of the bytes that its header counts"):
        checked_length(path)
