"""Prepare recordings for reading by segment: a file that is not seekable is decoded once, not once a segment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from segment.testset import RecordingFile, TestSetFolder
from submission.errors import UserError
from submission.progress import progress
from submission.runtime.audio import audio_blocks, checked_length, rough_seconds, seeks
from submission.runtime.audio_header import read_header
from submission.runtime.channels import Channel
from submission.text.segments import SAMPLE_RATE, Segment

SAMPLE_BYTES = 4


def check_space(recordings: Iterable[RecordingFile], place: Path) -> None:
    """Raise UserError where decoded copies of recordings that are not seekable do not fit on the disk of a folder.

    By the headers' lengths, one channel each, so that it costs nothing before the recordings are segmented.
    """
    slow = [recording.path for recording in recordings if _may_not_seek(recording.path)]
    if len(slow) > 1:
        _need_free(place, sum(round(rough_seconds(path) * SAMPLE_RATE) for path in slow) * SAMPLE_BYTES, len(slow))


def _may_not_seek(path: Path) -> bool:
    try:
        return read_header(path).kind != "flac" and not seeks(path)  # of flac, a whole decoding would tell
    except UserError:
        return False  # what reads it says why


def _need_free(place: Path, needed: int, count: int) -> None:
    free = shutil.disk_usage(place).free
    if free < needed:
        what = f"has {free:,} bytes free, and {count} recordings decoded take {needed:,} while they are translated"
        raise UserError(str(place), what, "free as much, or name a folder on another disk (--out, or TMPDIR)")


def readable_in_pieces(folder: TestSetFolder, segments: Sequence[Segment], aside: Path) -> dict[str, Path]:
    """Return recording -> a file whose segments can be read without decoding the whole file.

    A batch has segments of similar length from many recordings. Of recordings that are compressed or of another rate
    only one channel of one is kept decoded at a time; where there are several, each recording is decoded once into a
    file in `aside`.
    """
    used: dict[str, set[Channel]] = {}
    for segment in segments:
        used.setdefault(segment.recording, set()).add(segment.channel)
    paths = {recording.name: recording.path for recording in folder.recordings}
    slow = [name for name, path in paths.items() if name in used and not seeks(path)]
    if sum(len(used[name]) for name in slow) > 1:
        aside.mkdir(exist_ok=True)
        samples = sum(checked_length(paths[name]) * len(_written_channels(used[name])) for name in slow)
        _need_free(aside, samples * SAMPLE_BYTES, len(slow))
        with progress("decode the recordings", len(slow), "recordings") as tick:
            for number, name in enumerate(slow):
                decoded = aside / f"{number:04d}.w64"
                _write_decoded(paths[name], decoded, used[name])
                paths[name] = decoded
                tick(1)
    return paths


def _write_decoded(path: Path, decoded: Path, used: set[Channel]) -> None:
    """Write a recording at 16 kHz: the mean of its channels, or the channels up to the last one that is used."""
    channels = _written_channels(used)
    try:
        with soundfile.SoundFile(os.fsencode(decoded), "w", SAMPLE_RATE, len(channels), "FLOAT") as file:
            for blocks in zip(*(audio_blocks(path, channel) for channel in channels), strict=True):
                file.write(np.stack(blocks, axis=1))
    except soundfile.LibsndfileError as error:
        free = shutil.disk_usage(decoded.parent).free
        what = f"samples of {path.name} cannot be written ({error}; {free:,} bytes are free)"
        raise UserError(str(decoded.parent), what, "free some space there and run the same command again") from error


def _written_channels(used: set[Channel]) -> Sequence[Channel]:
    last = max((channel for channel in used if channel is not None), default=None)
    return [None] if last is None else range(last + 1)
