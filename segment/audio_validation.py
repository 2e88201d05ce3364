"""Validation of recordings: the length and samples of a file, or an error that names it and what is wrong.

A file that was truncated while it was copied still opens where it is a wav or mp3, and is merely shorter. Its header
declares its length, so it is refused. (An ogg file has no such header, so a truncated one passes.)
"""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import soundfile

from segment.probabilities.windows import Read
from submission.errors import UserError
from submission.runtime.audio import duration_samples, read_slice
from submission.runtime.channels import Channel
from submission.text.segments import SAMPLE_RATE

COPY_AGAIN = "it may have been truncated while it was copied: copy it again"
UNKNOWN_BYTES = 0x7FFF0000
"""Sizes from here on in a wav header are written by streaming encoders, which do not know the size."""
TOLERATED_SECONDS = 0.5
"""By how much a compressed file may be shorter than its header declares: encoders pad, and some count the padding."""


def checked_length(path: Path) -> int:
    """Return a recording's samples at 16 kHz.

    Raises UserError where it is missing, no audio, empty, or shorter than its header declares.
    """
    samples = duration_samples(path)
    if not samples:
        raise UserError(str(path), "has no samples", "replace it or take it out of FILE_ORDER")
    missing = _missing_wav_bytes(path)
    if missing:
        raise UserError(str(path), f"lacks {missing:,} of the bytes that its header counts", COPY_AGAIN)
    claimed, seconds = rough_seconds(path), samples / SAMPLE_RATE
    if claimed - seconds > TOLERATED_SECONDS:
        raise UserError(str(path), f"holds {seconds:.2f} s, its header declares {claimed:.2f} s", COPY_AGAIN)
    return samples


def rough_seconds(path: Path) -> float:
    """Return how long a recording is by its header alone; 0 where it has none."""
    try:
        return float(soundfile.info(str(path)).duration)
    except soundfile.SoundFileError:
        pass
    try:
        with av.open(str(path)) as container:
            return (container.duration or 0) / av.time_base
    except (av.FFmpegError, OSError, ValueError):
        return 0.0


def _missing_wav_bytes(path: Path) -> int:
    """Return how many bytes of samples a RIFF wav lacks; 0 for other files and where its header does not count them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            if name == b"data":
                return max(0, file.tell() + length - size) if length < UNKNOWN_BYTES else 0
            file.seek(length + length % 2, 1)
    return 0


def checked_reader(path: Path, channel: Channel = None) -> Read:
    """Return a reader of a recording's samples that refuses damage: too short, undecodable, or not finite."""

    def read(start: int, end: int) -> np.ndarray:
        where = f"at {start / SAMPLE_RATE:.2f} s"
        try:
            samples = read_slice(path, start, end, channel)
        except soundfile.SoundFileError as error:
            raise UserError(str(path), f"cannot be read {where} ({error})", COPY_AGAIN) from error
        if len(samples) != end - start:
            raise UserError(str(path), f"ends {where} or soon after, before the end that its header gives", COPY_AGAIN)
        if not np.isfinite(samples).all():
            second = (start + int(np.flatnonzero(~np.isfinite(samples))[0])) / SAMPLE_RATE
            raise UserError(
                str(path), f"has samples that are not finite numbers, first at {second:.2f} s", "convert it again"
            )
        return samples

    return read
