"""Recognise audio formats by the marks in a file's first bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO

HEAD_BYTES = 1 << 14
FRAMES_IN_A_ROW = 3
"""So many frame headers, each where the one before it ends, are no chance; one alone any file may hold."""

MAGIC = (
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (4, b"free", "mov"),
    (0, b".snd", "au"),
    (0, b"caff", "caf"),
    (0, b"NIST_1A", "nist"),
    (0, b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", "w64"),
    (0, b"FLV\x01", "flv"),
    (0, b"#!AMR", "amr"),
    (0, b"wvpk", "wavpack"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", "asf"),
)
BOXES = frozenset({b"moov", b"mdat", b"wide", b"free"})
"""Marks of the format mov that are words, or may be part of one: a text can hold them."""
FORMS = {b"WAVE": "wav", b"AVI ": "avi", b"AIFF": "aiff", b"AIFC": "aiff"}
"""What a RIFF or IFF file names behind its size."""
LAYER_3_KILOBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
LAYER_2_KILOBITS = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
LOW_KILOBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Bit rates of MPEG audio by a header's number, those of the lower sampling rates alike in both layers."""


def kind_of(head: bytes) -> str:
    """Return the format whose mark a file's first bytes bear, or ""."""
    for at, mark, kind in MAGIC:
        if head[at : at + len(mark)] == mark:
            return kind
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return FORMS.get(head[8:12], "")
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "adts"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return "mpegts"
    return "mp3" if mp3_frame(head) else ""


def open_head(file: BinaryIO) -> tuple[str, bytes]:
    """Return the format and the first bytes behind any ID3 tag."""
    head = file.read(HEAD_BYTES)
    if head[:3] != b"ID3" or len(head) < 10:
        return kind_of(head), head
    file.seek(id3_bytes(head))
    head = file.read(HEAD_BYTES)
    return kind_of(head) or "mp3", head


def id3_bytes(head: bytes) -> int:
    """Return the size of the ID3v2 tag that bytes begin with; 0 without one."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + (10 if head[5] & 0x10 else 0)


def mp3_frame(head: bytes) -> tuple[int, int, bool] | None:
    """Return (samples per frame, rate, mono) of an MPEG audio frame header, or None where there is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer not in (1, 2) or bitrate == 15 or rate == 3:
        return None
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    return 1152 if layer == 2 or version == 3 else 576, hertz, head[3] >> 6 == 3


def is_audio(file: BinaryIO) -> bool:
    """Return whether an open file is audio by its first bytes, where its name does not say so.

    A mark that is short must be borne out by what follows it: the next frames or packets, or the size of a box.
    """
    kind, head = open_head(file)
    if kind == "mp3" or kind == "adts":
        return _frames_follow(head.lstrip(b"\0"), _mp3_frame_bytes if kind == "mp3" else _adts_frame_bytes)
    if kind == "mpegts":
        return all(byte == 0x47 for byte in head[::188])
    if kind == "mov" and head[4:8] in BOXES:
        size = int.from_bytes(head[:4], "big")
        return size < 2 or 8 <= size <= os.fstat(file.fileno()).st_size
    return bool(kind)


def _frames_follow(head: bytes, frame_bytes: Callable[[bytes], int]) -> bool:
    """Return whether bytes begin with frames, one where the other ends; frame_bytes: size by a header, 0 for none."""
    at = 0
    for _ in range(FRAMES_IN_A_ROW):
        size = frame_bytes(head[at : at + 6])
        if not size:
            return False
        at += size
    return True


def _adts_frame_bytes(header: bytes) -> int:
    """Return the size of an ADTS frame of AAC by its header; 0 where there is none."""
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return size if size > 6 else 0


def _mp3_frame_bytes(header: bytes) -> int:
    """Return the size of an MPEG audio frame by its header; 0 where there is none, or one without a bit rate."""
    frame = mp3_frame(header)
    if frame is None:
        return 0
    samples, hertz, _ = frame
    layer_2 = header[1] >> 1 & 3 == 2
    rates = LOW_KILOBITS if header[1] >> 3 & 3 != 3 else LAYER_2_KILOBITS if layer_2 else LAYER_3_KILOBITS
    return samples * rates[header[2] >> 4] * 125 // hertz + (header[2] >> 1 & 1)
