"""The audio of batches: in order, at most one batch ahead, the same as alone."""

from __future__ import annotations

import threading

import pytest
import torch

from evaluate.decoding import audio_batches
from evaluate.decoding.audio_batches import read_batch, read_batches
from submission.errors import UserError
from submission.runtime.prompt import window_samples
from submission.text.segments import segment_ids
from tests.support.launching import HANG_SECONDS


@pytest.fixture
def batches(segments):
    named = list(zip(segment_ids(segments), segments, strict=True))
    return [named[i : i + 3] for i in range(0, len(named), 3)]


def test_batches_come_in_their_order_as_they_are_read_alone(tiny, recordings, batches):
    processor = tiny[1]
    found = list(read_batches(processor, batches, recordings))
    assert [[named for named, _ in batch] for batch in found] == batches
    for batch in found:
        for (named, utterance), (_, alone) in zip(
            batch, read_batch(processor, [n for n, _ in batch], recordings), strict=True
        ):
            assert (utterance is None) == (alone is None)
            if utterance is not None:
                assert utterance.name == named[0]
                assert torch.equal(
                    utterance.features.tensors["input_features"], alone.features.tensors["input_features"]
                )


def test_no_batches_are_none(tiny, recordings):
    assert list(read_batches(tiny[1], [], recordings)) == []


def test_one_batch_is_read_ahead_by_another_thread_and_no_more(tiny, recordings, batches, monkeypatch):
    begun: list[tuple[int, int]] = []
    done = threading.Semaphore(0)

    def noted(processor, batch, recordings):
        begun.append((batches.index(batch), threading.get_ident()))
        done.release()
        return read_batch(processor, batch, recordings)

    monkeypatch.setattr(audio_batches, "read_batch", noted)
    reading = audio_batches.read_batches(tiny[1], batches, recordings)
    for expected in (0, 1):
        next(reading)
        for _ in range(2 if expected == 0 else 1):
            assert done.acquire(timeout=HANG_SECONDS)
        assert [number for number, _ in begun] == list(range(expected + 2))
    reading.close()
    assert threading.get_ident() not in {thread for _, thread in begun}


def test_a_recording_that_cannot_be_read_ends_the_batch_that_needs_it(tiny, recordings, batches, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    last = batches[-1][0][1].recording
    reading = read_batches(tiny[1], batches, recordings | {last: broken})
    with pytest.raises(UserError):
        list(reading)


def test_an_utterance_beyond_the_window_is_cut_and_says_so(tiny, recordings, segments):
    processor = tiny[1]
    window = window_samples(processor)
    for (_, segment), utterance in read_batch(
        processor, list(zip(segment_ids(segments), segments, strict=True)), recordings
    ):
        if utterance is not None:
            assert utterance.clipped == (segment.end - segment.start > window)
            assert len(utterance.waveform) == min(segment.end - segment.start, window)
