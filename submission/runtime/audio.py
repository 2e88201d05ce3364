"""Read recordings as float32 mono at 16 kHz, sliced by integer samples, by the same rules for every package.

`checked_length` says whether a recording is usable and how long it is: decoded to its end, not shorter or other than
codec or container state, finite, scaled to ±1. Several channels become one signal (`submission.runtime.channels`):
their mean, or the one that is requested. Other rates are resampled to 16 kHz by soxr at its best quality and sliced
afterwards: a slice has the same samples however it is requested. Files are decoded and resampled block by block, so
that no more than the result is ever in memory.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from submission.errors import UserError
from submission.runtime.audio_decoding import (
    check_bounds,
    decode_blocks,
    is_exact,
    open_container,
    plain_info,
    stated_seconds,
    stream_channels,
)
from submission.runtime.audio_header import COPY_AGAIN, UnusableAudio, read_header
from submission.runtime.channels import Channel, ChannelMeter, ChannelSound, as_mono
from submission.text.segments import SAMPLE_RATE

PEAK_LIMIT = 4.0
"""Above this the samples are not scaled to ±1 (resampling a full-scale signal overshoots by far less)."""


def read_audio(path: Path, channel: Channel = None) -> np.ndarray:
    """Return a recording as one signal, float32 [samples] at 16 kHz, full scale ±1.

    channel: which one, by default the mean of all. Raises UserError for a missing file or channel and for a file that
    is not usable (see `checked_length`).
    """
    joined = bytearray()  # grows in place: a list of blocks would be in memory twice when it is joined
    for block in audio_blocks(path, channel):
        joined += block.tobytes()
    return np.frombuffer(joined, np.float32)


def audio_blocks(path: Path, channel: Channel = None) -> Iterator[np.ndarray]:
    """Yield a recording as `read_audio` returns it, float32 [some samples] at a time."""
    _need_file(path)
    _need_channel(path, channel)
    yield from _signal(path, lambda block, _: as_mono(block, channel))


def _signal(path: Path, mono: Callable[[np.ndarray, int], np.ndarray]) -> Iterator[np.ndarray]:
    """Yield a recording at 16 kHz; mono: (float32 [frames, channels], rate) -> one signal."""
    position = 0
    for rate, blocks in itertools.groupby(decode_blocks(path), key=lambda block: block.rate):
        for samples in _to_16_khz((mono(block.samples, block.rate) for block in blocks), rate):
            _check_values(path, samples, position)
            position += len(samples)
            yield samples


def checked_length(path: Path) -> int:
    """Return a recording's samples at 16 kHz, decoded to its end; once for a file while it does not change.

    Raises UserError where it is missing, no audio, empty, damaged, longer or shorter than codec or container state,
    not finite, or not scaled to ±1.
    """
    return _measured(path)[0]


def channel_sound(path: Path) -> ChannelSound:
    """Return how long a recording has sound that one signal of its channels lacks, measured with `checked_length`."""
    return _measured(path)[1]


def seeks(path: Path) -> bool:
    """Return whether `read_slice` reads only the slice; if not, it decodes the whole file and caches the last one."""
    _need_file(path)
    return _exact_frames(path) is not None


def read_slice(path: Path, start: int, end: int | None = None, channel: Channel = None) -> np.ndarray:
    """Return samples [start, end) of a recording, float32 at 16 kHz; end=None means to its end.

    Equals `read_audio(path, channel)[start:end]`, but seeks where the file is at 16 kHz already.
    Raises UserError when the slice does not lie within the recording.
    """
    _need_file(path)
    _need_channel(path, channel)
    frames = _exact_frames(path)
    samples = _whole(path, channel) if frames is None else None
    length = len(samples) if samples is not None else frames or 0
    stop = length if end is None else end
    if not 0 <= start < stop <= length:
        raise UserError(
            str(path),
            f"expected a slice within its {length} samples at 16 kHz, got start {start}, end {stop}",
            "check that the positions are samples at 16 kHz and belong to this recording",
        )
    sliced = samples[start:stop].copy() if samples is not None else _sought(path, start, stop, channel)
    _check_values(path, sliced, start)
    return sliced


def channel_count(path: Path) -> int:
    """Return the number of a recording's channels; UserError for a missing file and for what is no audio."""
    _need_file(path)
    info = plain_info(path, read_header(path))
    return int(info.channels) if info is not None else stream_channels(path)


def rough_seconds(path: Path) -> float:
    """Return about how long a recording is, by its header alone; 0 where that does not say."""
    try:
        header = read_header(path)
        info = plain_info(path, header)
        if info is not None:
            return float(info.duration)
        with path.open("rb") as file, open_container(file) as container:
            if not container.streams.audio:
                return 0.0
            return stated_seconds(container, header, path) or (container.duration or 0) / av.time_base
    except (UserError, av.FFmpegError, OSError, ValueError):
        return 0.0


def _measured(path: Path) -> tuple[int, ChannelSound]:
    _need_file(path)
    stat = path.stat()
    return _measured_once(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _measured_once(path: Path, size_bytes: int, modified_ns: int) -> tuple[int, ChannelSound]:
    """Return length and channels of a recording, from one decoding."""
    meter = ChannelMeter()

    def mono(block: np.ndarray, rate: int) -> np.ndarray:
        meter.add(block, rate)
        return as_mono(block, None)

    samples = sum(map(len, _signal(path, mono)))
    if not samples:
        raise UnusableAudio(str(path), "has no samples", "replace it or take it out of FILE_ORDER", "audio empty")
    return samples, meter.total()


@lru_cache(maxsize=1)
def _decoded_once(path: Path, channel: Channel, size_bytes: int, modified_ns: int) -> np.ndarray:
    """Cache the last recording that had to be decoded whole, so that its slices do not decode it again."""
    samples = read_audio(path, channel)
    samples.flags.writeable = False
    return samples


def _whole(path: Path, channel: Channel) -> np.ndarray:
    stat = path.stat()
    return _decoded_once(path, channel, stat.st_size, stat.st_mtime_ns)


def _need_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(str(path), "no such audio file", "check the data folder and the file's name")


def _need_channel(path: Path, channel: Channel) -> None:
    count = 0 if channel is None else channel_count(path)
    if channel is not None and not 0 <= channel < count:
        what = f"has {count} channel{'s' if count != 1 else ''}, channel {channel} (from 0) is requested"
        raise UserError(str(path), what, "check that the segments belong to this recording")


def _exact_frames(path: Path) -> int | None:
    """Return the length of a file in which seeking lands on the exact sample at 16 kHz; None for others."""
    header = read_header(path)
    info = plain_info(path, header)
    if header.kind == "flac" and header.stated_seconds:
        info = soundfile.info(os.fsencode(path))
        if info.samplerate != SAMPLE_RATE or info.frames != checked_length(path):
            return None  # joined of several, of which libsndfile knows the first
        return int(info.frames)
    if info is None or info.samplerate != SAMPLE_RATE or not is_exact(info):
        return None
    check_bounds(path, info.samplerate, info.frames / info.samplerate)
    return int(info.frames)


def _check_values(path: Path, samples: np.ndarray, position: int) -> None:
    """Raise UserError for samples that are not finite or not scaled to ±1; position: that of the first."""
    peak = np.abs(samples).max(initial=0.0)
    if peak <= PEAK_LIMIT:
        return
    second = (position + int(np.argmax(~(np.abs(samples) <= PEAK_LIMIT)))) / SAMPLE_RATE
    if not np.isfinite(samples).all():
        what = f"has samples that are not finite numbers, first at {second:.2f} s"
        raise UnusableAudio(str(path), what, "convert it again", "audio not finite")
    what = f"has samples of up to {peak:,.1f}, first at {second:.2f} s: expected full scale at 1"
    raise UnusableAudio(
        str(path), what, "divide its samples by their full scale, e.g. 32768 of 16-bit samples", "audio not scaled"
    )


def _to_16_khz(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Resample blocks, float32 [frames] each; in all _resampled_length, from which soxr itself may differ by one."""
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ")
    frames, written = 0, 0
    for block in blocks:
        frames += len(block)
        resampled = resampler.resample_chunk(block)
        written += len(resampled)
        yield resampled
    last = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    missing = _resampled_length(frames, rate) - written
    yield np.pad(last[: max(missing, 0)], (0, max(0, missing - len(last))))


def _resampled_length(frames: int, rate: int) -> int:
    """Return the samples at 16 kHz that `frames` at `rate` become, half a sample rounded up."""
    return (2 * frames * SAMPLE_RATE + rate) // (2 * rate)


def _sought(path: Path, start: int, stop: int, channel: Channel) -> np.ndarray:
    """Return a slice of a file in which seeking is exact."""
    try:
        block, _ = soundfile.read(os.fsencode(path), start=start, stop=stop, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        what = f"cannot be decoded from sample {start} to {stop} ({error})"
        raise UnusableAudio(str(path), what, COPY_AGAIN) from error
    if len(block) < stop - start:
        what = f"holds {len(block)} of the samples {start} to {stop} that its header promises"
        raise UnusableAudio(str(path), what, COPY_AGAIN)
    return as_mono(block, channel)
