"""Prepare recordings for reading by segment: a file that is not seekable is decoded once, not once a segment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import soundfile

from segment.testset import TestSetFolder
from submission.progress import progress
from submission.runtime.audio import audio_blocks, seeks
from submission.text.segments import SAMPLE_RATE, Segment


def readable_in_pieces(folder: TestSetFolder, segments: Sequence[Segment], aside: Path) -> dict[str, Path]:
    """Return recording -> a file whose segments can be read without decoding the whole file.

    A batch has segments of similar length from many recordings. Of recordings that are compressed or of another rate
    only one is kept decoded at a time; where there are several, each is decoded once into a file in `aside`.
    """
    used = {segment.recording for segment in segments}
    paths = {recording.name: recording.path for recording in folder.recordings}
    slow = [name for name, path in paths.items() if name in used and not seeks(path)]
    if len(slow) > 1:
        aside.mkdir(exist_ok=True)
        with progress("decode the recordings", len(slow), "recordings") as tick:
            for number, name in enumerate(slow):
                decoded = aside / f"{number:04d}.w64"
                with soundfile.SoundFile(decoded, "w", SAMPLE_RATE, 1, "FLOAT") as file:
                    for samples in audio_blocks(paths[name]):
                        file.write(samples)
                paths[name] = decoded
                tick(1)
    return paths
