"""Prepare recordings for reading by segment: a file that is not seekable is decoded once, not once a segment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from segment.testset import TestSetFolder
from submission.progress import progress
from submission.runtime.audio import read_audio, seeks
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
                samples, paths[name] = _samples(paths[name], used[name]), aside / f"{number:04d}.w64"
                soundfile.write(paths[name], samples, SAMPLE_RATE, subtype="FLOAT")
                tick(1)
    return paths


def _samples(path: Path, used: set[Channel]) -> np.ndarray:
    """Return a recording, float32 at 16 kHz: [samples] of the mean, or [samples, channels] up to the last one used."""
    last = max((channel for channel in used if channel is not None), default=None)
    if last is None:
        return read_audio(path)
    return np.stack([read_audio(path, channel) for channel in range(last + 1)], axis=1)
