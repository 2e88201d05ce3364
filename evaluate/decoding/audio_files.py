"""Prepare recordings for reading by segment: a file that is not seekable is decoded once, not once a segment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from segment.testset import TestSetFolder
from submission.progress import progress
from submission.runtime.audio import audio_blocks, seeks
from submission.runtime.channels import Channel
from submission.text.segments import SAMPLE_RATE, Segment


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
        with progress("decode the recordings", len(slow), "recordings") as tick:
            for number, name in enumerate(slow):
                decoded = aside / f"{number:04d}.w64"
                _write_decoded(paths[name], decoded, used[name])
                paths[name] = decoded
                tick(1)
    return paths


def _write_decoded(path: Path, decoded: Path, used: set[Channel]) -> None:
    """Write a recording at 16 kHz: the mean of its channels, or the channels up to the last one that is used."""
    last = max((channel for channel in used if channel is not None), default=None)
    channels: Sequence[Channel] = [None] if last is None else range(last + 1)
    with soundfile.SoundFile(decoded, "w", SAMPLE_RATE, len(channels), "FLOAT") as file:
        for blocks in zip(*(audio_blocks(path, channel) for channel in channels), strict=True):
            file.write(np.stack(blocks, axis=1))
