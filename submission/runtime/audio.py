"""Read recordings as float32 mono at 16 kHz, sliced by integer samples.

soundfile reads what libsndfile knows (wav, flac, ogg, mp3); PyAV reads the rest (m4a, mp4, webm). Several channels
become one signal (`submission.runtime.channels`): their mean, or the one that is requested. Other rates are resampled
to 16 kHz by soxr at its best quality and sliced afterwards: a slice has the same samples however it is requested. Files
are decoded and resampled block by block, so that no more than the result is ever in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile
import soxr

from submission.errors import UserError
from submission.runtime.channels import Channel, as_mono
from submission.text.segments import SAMPLE_RATE

EXACT_FORMATS = ("WAV", "WAVEX", "FLAC", "AIFF", "AU", "CAF", "RF64", "W64", "NIST")
"""libsndfile formats whose header gives the exact length and in which seeking lands on the exact sample."""

BLOCK_FRAMES = 1 << 20
"""Frames that are decoded at a time."""


class _Header(NamedTuple):
    """Length and rate from a file's header, where they are exact."""

    frames: int
    rate: int


def _resampled_length(frames: int, rate: int) -> int:
    """Return the samples at 16 kHz that `frames` at `rate` become, half a sample rounded up."""
    return (2 * frames * SAMPLE_RATE + rate) // (2 * rate)


def _to_16_khz(blocks: Iterable[np.ndarray], rate: int) -> np.ndarray:
    """Join blocks, float32 [frames] each, to float32 [_resampled_length]; soxr itself may be off by one sample."""
    if rate == SAMPLE_RATE:
        return np.concatenate([*blocks, np.zeros(0, np.float32)])
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ")
    frames, pieces = 0, []
    for block in blocks:
        frames += len(block)
        pieces.append(resampler.resample_chunk(block))
    pieces.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    length = _resampled_length(frames, rate)
    resampled = np.concatenate(pieces)[:length]
    missing = length - len(resampled)
    return np.pad(resampled, (0, missing)) if missing else resampled  # padding by nothing would copy


def _exact_header(path: Path) -> _Header | None:
    """Return a file's length and rate, or None where its length or its seeking may be inexact."""
    try:
        info = soundfile.info(str(path))
    except soundfile.SoundFileError:
        return None
    return _Header(info.frames, info.samplerate) if info.format in EXACT_FORMATS else None


def _decode_by_soundfile(path: Path, channel: Channel) -> np.ndarray:
    """Return a recording as one signal, float32 [samples] at 16 kHz."""

    def mono(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
        # Not file.blocks(): of a truncated file it returns as many frames as the header declares.
        while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            yield as_mono(block, channel)

    with soundfile.SoundFile(str(path)) as file:
        return _to_16_khz(mono(file), file.samplerate)


def _decode_by_av(path: Path, channel: Channel) -> np.ndarray:
    """Return the first audio stream as one signal, float32 [samples] at 16 kHz."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise ValueError("no audio stream")
        stream = container.streams.audio[0]
        planar = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)  # the sample format only
        frames = itertools.chain(container.decode(stream), [None])  # None: flushes the resampler
        blocks = (as_mono(out.to_ndarray().T, channel) for frame in frames for out in planar.resample(frame))
        return _to_16_khz(blocks, stream.rate)


def _decode(path: Path, channel: Channel) -> np.ndarray:
    """Return a whole recording as one signal, float32 [samples] at 16 kHz."""
    try:
        return _decode_by_soundfile(path, channel)
    except soundfile.SoundFileError:
        try:
            return _decode_by_av(path, channel)
        except (av.FFmpegError, ValueError) as error:
            raise UserError(
                str(path), f"is not audio that soundfile or PyAV can read ({error})", "replace or remove it"
            ) from error


@lru_cache(maxsize=1)
def _decoded_once(path: Path, channel: Channel, size_bytes: int, modified_ns: int) -> np.ndarray:
    """Cache the last recording that had to be decoded whole, so that its slices do not decode it again."""
    samples = _decode(path, channel)
    samples.flags.writeable = False
    return samples


def _need_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(str(path), "no such audio file", "check the data folder and the file's name")


def channel_count(path: Path) -> int:
    """Return the number of a recording's channels; UserError for a missing file and for one that no decoder knows."""
    _need_file(path)
    try:
        return int(soundfile.info(str(path)).channels)
    except soundfile.SoundFileError:
        try:
            with av.open(str(path)) as container:
                return container.streams.audio[0].channels if container.streams.audio else 0
        except (av.FFmpegError, ValueError) as error:
            what = f"is not audio that soundfile or PyAV can read ({error})"
            raise UserError(str(path), what, "replace or remove it") from error


def _need_channel(path: Path, channel: Channel) -> None:
    count = 0 if channel is None else channel_count(path)
    if channel is not None and not 0 <= channel < count:
        what = f"has {count} channel{'s' if count != 1 else ''}, channel {channel} (from 0) is requested"
        raise UserError(str(path), what, "check that the segments belong to this recording")


def read_audio(path: Path, channel: Channel = None) -> np.ndarray:
    """Return a recording as one signal, float32 [samples] at 16 kHz, full scale ±1.

    channel: which one, by default the mean of all. Raises UserError for a missing file or channel and for a file that
    no decoder knows.
    """
    _need_file(path)
    _need_channel(path, channel)
    return _decode(path, channel)


def duration_samples(path: Path) -> int:
    """Return the length of `read_audio(path)`, from the header alone where that is exact."""
    _need_file(path)
    header = _exact_header(path)
    if header is not None:
        return _resampled_length(header.frames, header.rate)
    return len(_whole(path, None))


def seeks(path: Path) -> bool:
    """Return whether `read_slice` reads only the slice; if not, it decodes the whole file and caches the last one."""
    _need_file(path)
    header = _exact_header(path)
    return header is not None and header.rate == SAMPLE_RATE


def _whole(path: Path, channel: Channel) -> np.ndarray:
    stat = path.stat()
    return _decoded_once(path, channel, stat.st_size, stat.st_mtime_ns)


def read_slice(path: Path, start: int, end: int | None = None, channel: Channel = None) -> np.ndarray:
    """Return samples [start, end) of a recording, float32 at 16 kHz; end=None means to its end.

    Equals `read_audio(path, channel)[start:end]`, but seeks where the file is at 16 kHz already.
    Raises UserError when the slice does not lie within the recording.
    """
    _need_file(path)
    _need_channel(path, channel)
    header = _exact_header(path)
    if header is not None and header.rate == SAMPLE_RATE:
        samples, length = None, header.frames
    else:
        samples = _whole(path, channel)
        length = len(samples)
    stop = length if end is None else end
    if not 0 <= start < stop <= length:
        raise UserError(
            str(path),
            f"expected a slice within its {length} samples at 16 kHz, got start {start}, end {stop}",
            "check that the positions are samples at 16 kHz and belong to this recording",
        )
    if samples is not None:
        return samples[start:stop].copy()
    try:
        block, _ = soundfile.read(str(path), start=start, stop=stop, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        what = f"cannot be decoded from sample {start} to {stop} ({error})"
        raise UserError(str(path), what, "it may be truncated or damaged: get it again") from error
    if len(block) < stop - start:
        what = f"holds {len(block)} of the samples {start} to {stop} that its header promises"
        raise UserError(str(path), what, "it may be truncated or damaged: get it again")
    return as_mono(block, channel)
