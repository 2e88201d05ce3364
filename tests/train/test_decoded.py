"""Recordings that are decoded once: the samples are those of the published files, bit by bit."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import pytest

from submission.errors import UserError
from submission.runtime.audio import read_slice
from tests.train.support import write_audio
from train.corpora import decoded_audio as module
from train.corpora.decoded_audio import DecodedAudio, Place

PLACES = [
    ("speech.m4a", 100, 16_100),
    ("clip.mp3", 0, 16_000),
    ("speech.m4a", 8_000, 30_001),
    ("talk.flac", 0, 9_000),
    ("talk.flac", 9_000, 20_000),
    ("telephone.wav", 5, 7_777),
    ("telephone.wav", 7_777, 24_000),
]


@pytest.fixture
def places(tmp_path: Path) -> list[Place]:
    for name, rate in (("speech.m4a", 44_100), ("clip.mp3", 48_000), ("talk.flac", 16_000), ("telephone.wav", 8_000)):
        write_audio(tmp_path / name, 3, rate)
    return [place for place in PLACES for language in ("de", "zh")]


def decode(decoded: DecodedAudio, processes: int = 1) -> list[float]:
    """Decode in as many threads as there are processes; return what the ticks said."""
    meet, ticks = threading.Barrier(processes), []
    crew = [
        threading.Thread(target=decoded.decode, args=(rank, processes, meet.wait, ticks.append))
        for rank in range(processes)
    ]
    for member in crew:
        member.start()
    for member in crew:
        member.join()
    return ticks


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_what_is_decoded_once_is_bit_by_bit_what_is_read(places: list[Place], tmp_path: Path, processes: int) -> None:
    decoded = DecodedAudio(tmp_path, tmp_path / "decoded.f32", places)
    assert decoded.recordings() == ["speech.m4a", "telephone.wav"]  # the others cost what they are long
    assert sum(decode(decoded, processes)) == 2
    expected = {place: read_slice(tmp_path / place[0], *place[1:]) for place in PLACES}
    size = sum(len(samples) for place, samples in expected.items() if place[0] in decoded.recordings())
    assert (tmp_path / "decoded.f32").stat().st_size == 4 * size
    for name in decoded.recordings():
        (tmp_path / name).unlink()
    for worker in (decoded, pickle.loads(pickle.dumps(decoded))):
        for place, samples in expected.items():
            assert worker.read(*place).tobytes() == samples.tobytes()
        assert len(pickle.dumps(worker)) < 4 * size


def test_a_finished_file_is_not_made_again_and_half_a_one_is(places: list[Place], tmp_path: Path) -> None:
    decoded = DecodedAudio(tmp_path, tmp_path / "decoded.f32", places)
    (tmp_path / "decoded.partial").write_bytes(b"what a kill left")
    assert sum(decode(decoded)) == 2
    assert decode(decoded) == []
    assert not (tmp_path / "decoded.partial").exists()


def test_where_nothing_has_to_be_decoded_whole_there_is_no_file(places: list[Place], tmp_path: Path) -> None:
    decoded = DecodedAudio(tmp_path, tmp_path / "decoded.f32", [place for place in places if place[0] == "talk.flac"])
    assert decode(decoded) == []
    assert decoded.size_samples == 0 and not (tmp_path / "decoded.f32").exists()


def test_a_disk_without_the_room_is_refused_before_it_is_full(
    places: list[Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLE_BYTES", 1 << 50)
    with pytest.raises(UserError, match="bytes free, decoded recordings take"):
        DecodedAudio(tmp_path, tmp_path / "decoded.f32", places).decode(0, 1, lambda: None, lambda amount: None)
    assert list(tmp_path.glob("decoded*")) == []
