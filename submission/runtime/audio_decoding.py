"""Decode audio files to blocks of float32 samples with their rate, to the end of what is there.

soundfile decodes uncompressed formats, whose header gives the exact length and in which seeking lands on the exact
sample; PyAV decodes compressed ones. PyAV reads from an opened file, by demuxers on a list: none of them opens another
file, so that a playlist called talk.m4a is no audio. Rate and stated length are bounded before anything is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import av
import numpy as np
import soundfile

from submission.runtime.audio_header import (
    COPY_AGAIN,
    REPAIR,
    SLACK_BYTES,
    AudioHeader,
    UnusableAudio,
    mp3_seconds,
    read_header,
    states_duration,
)
from submission.store.audio_formats import id3_bytes, mp3_frame

PLAIN_KINDS = frozenset({"wav", "w64", "aiff", "au", "caf", "nist"})
PLAIN_BYTES = {
    "PCM_S8": 1,
    "PCM_U8": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
    "ULAW": 1,
    "ALAW": 1,
}
"""libsndfile's names for encodings that have the same number of bytes for each sample, and that number."""
DEMUXERS = (
    "wav,w64,aiff,au,caf,nistsphere,mp3,aac,ac3,eac3,amr,amrnb,amrwb,flac,ogg,matroska,mov,avi,flv,mpegts,mpeg,asf,wv"
)
RATES = range(2_000, 768_001)
"""Rates in Hz that speech is recorded at, with a margin: a file of 1 Hz would become 16,000 times as long."""
LONGEST_SECONDS = 6 * 3600
BLOCK_FRAMES = 1 << 20
"""Frames that are decoded at a time."""
PADDING_SAMPLES = {"flac": 0.5, "mp3": 1152, "": 4096}
"""By how many samples, at its own rate, a format ("": any other) may differ from what it states: encoders pad."""
BAD_SECONDS = 0.25
"""So much may be undecodable, and is silence: at a join of two mp3 files a tag lies between the frames."""
CONTINUED = frozenset({"mp3", "flac", "ogg"})
"""Formats that may be joined end to end: the header's length is that of the first part."""


class DecodedBlock(NamedTuple):
    """Samples in a row."""

    samples: np.ndarray
    """float32 [frames, channels], full scale ±1."""
    rate: int
    """In Hz."""


def plain_info(path: Path, header: AudioHeader) -> Any | None:
    """Return libsndfile's account of an uncompressed file, or None where PyAV decodes it."""
    if header.kind not in PLAIN_KINDS or header.unfinished:
        return None
    try:
        info = soundfile.info(os.fsencode(path))
    except soundfile.SoundFileError:
        return None
    return None if info.subtype.startswith("MPEG") else info


def is_exact(info: Any) -> bool:
    """Return whether seeking in a file that soundfile reads lands on the exact sample."""
    return info.subtype in PLAIN_BYTES


def decode_blocks(path: Path) -> Iterator[DecodedBlock]:
    """Yield a whole recording; UserError where it is no audio, damaged, or of another length than it states."""
    header = read_header(path)
    info = plain_info(path, header)
    if info is not None:
        check_bounds(path, info.samplerate, info.frames / info.samplerate)
        _check_frames(path, info, header)
        yield from _by_soundfile(path, info.frames)
    else:
        yield from _by_av(path, header)


def check_bounds(path: Path, rate: int, seconds: float) -> None:
    """Raise UserError for a rate that no speech is recorded at, and for more audio than is read."""
    if rate not in RATES:
        what = f"has {rate:,} samples a second, expected {RATES.start:,} to {RATES.stop - 1:,}"
        raise UnusableAudio(str(path), what, "check the file's header, or convert it to 16 kHz")
    if seconds > LONGEST_SECONDS:
        what = f"is {seconds / 3600:.1f} h long, at most {LONGEST_SECONDS // 3600} h are read"
        raise UnusableAudio(str(path), what, "split it into recordings")


def _check_frames(path: Path, info: Any, header: AudioHeader) -> None:
    """Raise UserError where the frames that a header counts are fewer than its bytes of samples."""
    counted = info.frames * info.channels * PLAIN_BYTES.get(info.subtype, 0)
    if counted and header.data_bytes and header.data_bytes - counted > SLACK_BYTES:
        seconds = info.frames / info.samplerate
        what = (
            f"its header declares {seconds:.2f} s, and holds {seconds * header.data_bytes / counted:.2f} s of samples"
        )
        raise UnusableAudio(str(path), what, REPAIR)


def _by_soundfile(path: Path, frames: int) -> Iterator[DecodedBlock]:
    """Yield an uncompressed file, every frame that its header counts."""
    read = 0
    with soundfile.SoundFile(os.fsencode(path)) as file:
        # Not file.blocks(): of a truncated file it returns as many frames as the header declares.
        while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            read += len(block)
            yield DecodedBlock(block, file.samplerate)
        if read < frames:
            what = f"holds {read / file.samplerate:.2f} s, its header declares {frames / file.samplerate:.2f} s"
            raise UnusableAudio(str(path), what, COPY_AGAIN)


def _refuse_neighbour(*_: object) -> NoReturn:
    raise PermissionError("an audio file must not open other files")


def open_container(file: Any) -> Any:
    """Return an opened file as a container of one of DEMUXERS; av.FFmpegError for anything else."""
    return av.open(file, options={"format_whitelist": DEMUXERS}, io_open=_refuse_neighbour)


def stated_seconds(container: Any, header: AudioHeader, path: Path) -> float | None:
    """Return the length that codec or container state, or None; what a bit rate suggests is none."""
    stream = container.streams.audio[0]
    if header.kind in ("mov", "caf") and stream.duration:
        return float(stream.duration * stream.time_base)
    container_states = header.kind == "asf" or (header.kind == "flv" and "duration" in container.metadata)
    if container.duration and (container_states or (header.kind == "matroska" and states_duration(path))):
        return float(container.duration) / av.time_base
    return header.stated_seconds


@contextmanager
def _opened(path: Path, header: AudioHeader) -> Iterator[Any]:
    """Open a file with PyAV; UserError where it has no audio, or none that can be decoded."""
    try:
        with path.open("rb") as file, open_container(file) as container:
            if not container.streams.audio:
                raise UnusableAudio(str(path), "has no audio stream", "replace or remove it")
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:  # OSError: seeking in a file too short for its suffix
        cause = " ".join(str(error).split())
        if header.kind:
            what = f"is damaged, or not the {header.kind} that it begins as: it cannot be decoded ({cause})"
            raise UnusableAudio(str(path), what, COPY_AGAIN) from error
        what = f"is not audio that soundfile or PyAV can read ({cause})"
        raise UnusableAudio(str(path), what, "replace or remove it") from error


def stream_channels(path: Path) -> int:
    """Return the number of channels of a file that PyAV decodes."""
    with _opened(path, read_header(path)) as container:
        return int(container.streams.audio[0].channels)


def _by_av(path: Path, header: AudioHeader) -> Iterator[DecodedBlock]:
    """Yield the first audio stream, in blocks of BLOCK_FRAMES or the frames of one rate and layout."""
    with _opened(path, header) as container:
        stated = stated_seconds(container, header, path)
        check_bounds(path, container.streams.audio[0].rate or 0, stated or 0.0)
        counter = _Counter(path, header.kind, stated)
        yield from _gathered(counter.frames(container))
        counter.check()


class _Counter:
    """Counts what a stream's packets decode to, and what cannot be decoded."""

    def __init__(self, path: Path, kind: str, stated: float | None) -> None:
        self._path, self._kind, self._stated = path, kind, stated
        self._seconds = 0.0
        self._bad_seconds = 0.0
        self._cut_at_end = False
        self._rate, self._channels = 0, 1

    def frames(self, container: Any) -> Iterator[DecodedBlock]:
        """Yield the frames of the first audio stream; a packet that cannot be decoded is silence of its length."""
        stream = container.streams.audio[0]
        for packet in container.demux(stream):
            if self._kind == "mp3":
                self._joined(bytes(packet))
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                yield from self._undecodable(packet)
                continue
            for frame in decoded:
                block = DecodedBlock(_as_float(frame), frame.sample_rate)
                self._count(block)
                yield block

    def _count(self, block: DecodedBlock) -> None:
        self._rate, self._channels, self._cut_at_end = block.rate, block.samples.shape[1], False
        self._seconds += len(block.samples) / block.rate
        check_bounds(self._path, block.rate, self._seconds)

    def _joined(self, data: bytes) -> None:
        """Take the length that another mp3 behind the first states, once the first is as long as stated."""
        seconds = mp3_seconds(data[id3_bytes(data) :])
        if seconds is not None and self._seconds:
            self.check()
            self._stated = self._seconds + seconds

    def _undecodable(self, packet: Any) -> Iterator[DecodedBlock]:
        if self._kind == "mp3" and not mp3_frame(bytes(packet)[:4]) and bytes(packet)[:3] != b"ID3":
            return  # a tag behind the last frame
        seconds = float((packet.duration or 0) * packet.time_base)
        self._bad_seconds += seconds or BAD_SECONDS / 4
        if self._bad_seconds > BAD_SECONDS:
            what = f"is damaged: it cannot be decoded at {self._seconds:.2f} s"
            raise UnusableAudio(str(self._path), what, COPY_AGAIN)
        if self._rate and seconds:
            block = DecodedBlock(np.zeros((round(seconds * self._rate), self._channels), np.float32), self._rate)
            self._count(block)
            yield block
        self._cut_at_end = True

    def check(self) -> None:
        """Raise UserError where the stream was cut off, or has another length than it states."""
        name, held = str(self._path), f"holds {self._seconds:.2f} s"
        if self._cut_at_end:
            raise UnusableAudio(name, f"is cut off or damaged at its end, behind {self._seconds:.2f} s", COPY_AGAIN)
        if self._stated is None:
            return
        tolerated = PADDING_SAMPLES.get(self._kind, PADDING_SAMPLES[""]) / max(self._rate, 1)
        if self._stated - self._seconds > tolerated:
            raise UnusableAudio(name, f"{held}, its header declares {self._stated:.2f} s: it was cut off", COPY_AGAIN)
        if self._seconds - self._stated > tolerated and self._kind not in CONTINUED:
            what = f"{held}, its header declares {self._stated:.2f} s: the length is another than stated"
            raise UnusableAudio(name, what, "write its header again with a converter, and check the result")


def _as_float(frame: Any) -> np.ndarray:
    """Return a decoded frame as float32 [frames, channels]."""
    values = frame.to_ndarray()
    channels = frame.layout.nb_channels
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    samples: np.ndarray = values.astype(np.float32, copy=False)
    if values.dtype == np.uint8:
        samples = (samples - np.float32(128)) / np.float32(128)
    elif values.dtype.kind == "i":
        samples = samples / np.float32(-float(np.iinfo(values.dtype).min))
    return samples


def _gathered(blocks: Iterator[DecodedBlock]) -> Iterator[DecodedBlock]:
    """Join short blocks of one rate and number of channels, so that what follows works on long ones."""
    pending: list[DecodedBlock] = []
    count = 0
    for block in blocks:
        same = not pending or (block.rate, block.samples.shape[1]) == (pending[0].rate, pending[0].samples.shape[1])
        if pending and (not same or count >= BLOCK_FRAMES):
            yield DecodedBlock(np.concatenate([b.samples for b in pending]), pending[0].rate)
            pending, count = [], 0
        pending.append(block)
        count += len(block.samples)
    if pending:
        yield DecodedBlock(np.concatenate([b.samples for b in pending]), pending[0].rate)
