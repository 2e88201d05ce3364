"""Audio files of many containers and codecs, written by PyAV, and what may befall them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

CONTAINERS = {
    "wav": "wav",
    "w64": "w64",
    "aiff": "aiff",
    "flac": "flac",
    "mp3": "mp3",
    "ogg": "ogg",
    "m4a": "ipod",
    "mka": "matroska",
    "webm": "webm",
    "aac": "adts",
    "ts": "mpegts",
    "avi": "avi",
    "flv": "flv",
    "caf": "caf",
    "au": "au",
    "mov": "mov",
}
"""Suffix -> PyAV's name of the container."""

ENCODINGS = (
    ("wav", "pcm_s16le"),
    ("wav", "pcm_f32le"),
    ("wav", "pcm_mulaw"),
    ("wav", "libmp3lame"),
    ("w64", "pcm_s16le"),
    ("aiff", "pcm_s16be"),
    ("au", "pcm_s16be"),
    ("caf", "pcm_s16be"),
    ("flac", "flac"),
    ("mp3", "libmp3lame"),
    ("ogg", "libopus"),
    ("ogg", "flac"),
    ("m4a", "aac"),
    ("m4a", "alac"),
    ("mov", "pcm_s16le"),
    ("mka", "pcm_s16le"),
    ("mka", "flac"),
    ("mka", "libmp3lame"),
    ("webm", "libopus"),
    ("aac", "aac"),
    ("ts", "aac"),
    ("ts", "mp2"),
    ("avi", "libmp3lame"),
    ("flv", "aac"),
)
"""Suffixes with the codecs in them."""


def write_encoded(
    path: Path, samples: np.ndarray, rate: int, codec: str, *, first: float = 0.0, **options: str
) -> Path:
    """Write float32 [samples] in the container of the path's suffix; first: seconds at which the audio begins."""
    with av.open(str(path), "w", format=CONTAINERS[path.suffix[1:]], options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, round(first * rate)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def speechlike(seconds: float, rate: int) -> np.ndarray:
    """Return float32 [samples] of a tone whose pitch and loudness go up and down, so that no two moments are alike."""
    time = np.arange(round(seconds * rate)) / rate
    loudness = 0.2 + 0.15 * np.sin(2 * np.pi * 1.7 * time)
    phase = 2 * np.pi * (300 * time + 40 * np.sin(2 * np.pi * 0.9 * time))
    samples: np.ndarray = (loudness * np.sin(phase)).astype(np.float32)
    return samples


REMUXES = (
    ("m4a", "aac", "mka"),
    ("m4a", "aac", "ts"),
    ("m4a", "aac", "mov"),
    ("m4a", "alac", "mka"),
    ("mp3", "libmp3lame", "mka"),
    ("mp3", "libmp3lame", "avi"),
    ("mp3", "libmp3lame", "mov"),
    ("mka", "libmp3lame", "mp3"),
    ("ogg", "libopus", "webm"),
    ("webm", "libopus", "ogg"),
    ("flac", "flac", "mka"),
    ("flac", "flac", "ogg"),
    ("mka", "flac", "flac"),
    ("wav", "pcm_s16le", "mka"),
    ("wav", "pcm_s16le", "mov"),
    ("mov", "pcm_s16le", "wav"),
)
"""Suffix and codec whose packets another container takes as they are."""


def remux(source: Path, target: Path) -> Path:
    """Copy the packets of a file into another container, that of the target's suffix."""
    container = CONTAINERS[target.suffix[1:]]
    with av.open(str(source)) as read, av.open(str(target), "w", format=container) as written:
        stream = written.add_stream_from_template(read.streams.audio[0])
        for packet in read.demux(read.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)
    return target
