"""What the bytes of an audio file say of its format and length, and where they contradict the file's size.

A format is recognised by its first bytes, never by its suffix. Only what a container or codec writes down counts as a
stated length: of an mp3 the frame count of a Xing, Info or VBRI header, of FLAC the number of samples, of Matroska the
duration where it has one. What a decoder estimates from a bit rate is no length. Sizes that a header counts are held
against the file in both directions: bytes that are missing, and audio behind the counted end.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from submission.errors import UserError
from submission.store.audio_formats import HEAD_BYTES, mp3_frame, open_head

COPY_AGAIN = "it may have been truncated while it was copied or recorded: copy it again, or repair it with a converter"
SPLIT = "give each recording a file of its own, or join them with a converter, which writes one header"
REPAIR = "write the header again, e.g. `ffmpeg -ignore_length 1 -i IN.wav OUT.wav`, and check the result"

UNKNOWN_BYTES = 0x7FFF0000
"""Sizes from here on in a 32-bit header are written by streaming encoders, which do not know the size."""
SLACK_BYTES = 8192
"""So many bytes behind the last chunk are padding or a tag; more are audio that the header does not count."""
ENCODERS = (b"LAM", b"Lav")
"""Beginnings of encoders' names behind which an mp3's header says how much silence it padded."""


class UnusableAudio(UserError):
    """A recording that cannot be used."""

    def __init__(self, where: str, what: str, fix: str, reason: str = "audio unreadable") -> None:
        """reason: the kind of fault, under which corpora count it."""
        super().__init__(where, what, fix)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioHeader:
    """What a file's first bytes say of it."""

    kind: str
    """Name of its format; "" where the bytes are of none that is known by sight."""
    stated_seconds: float | None = None
    """The length that a codec's header states; None where it states none."""
    data_bytes: int | None = None
    """Bytes of samples that a container of chunks counts; None where it counts none."""
    unfinished: bool = False
    """Whether its header counts no samples although bytes follow: samples go on to the end of the file."""


def read_header(path: Path) -> AudioHeader:
    """Return what a file's header says; UserError where its structure ends behind or before the file's end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        kind, head = open_head(file)
        if kind == "flac":
            return AudioHeader(kind=kind, stated_seconds=_flac_seconds(head))
        if kind == "mp3":
            return AudioHeader(kind=kind, stated_seconds=mp3_seconds(head))
        if kind in ("wav", "w64", "aiff", "caf"):
            counted = _checked_data(file, path, _layout(kind, head), (kind, head), size)
            return AudioHeader(kind=kind, data_bytes=counted or None, unfinished=counted == 0)
        checks: dict[str, Callable[[BinaryIO, Path, bytes, int], None]] = {
            "avi": _check_form,
            "au": _check_au,
            "nist": _check_sphere,
            "mov": _check_boxes,
            "ogg": _check_last_page,
            "matroska": _check_segment,
            "flv": _check_tags,
            "mpegts": _check_packets,
        }
        if kind in checks:
            checks[kind](file, path, head, size)
    return AudioHeader(kind=kind)


def states_duration(path: Path) -> bool:
    """Return whether a Matroska file's header has a duration; a live recording has none, and decoders guess one."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    info = head.find(b"\x15\x49\xa9\x66")
    found = re.compile(rb"\x44\x89[\x84\x88]").search(head, max(info, 0), max(info, 0) + 512)
    return found is not None and any(head[found.end() : found.end() + 4])


# Codecs that state their own length


def _flac_seconds(head: bytes) -> float | None:
    """Return the length that STREAMINFO states; None for zero samples, which mean an unknown number."""
    if len(head) < 26:
        return None
    bits = int.from_bytes(head[18:26], "big")
    rate, samples = bits >> 44, bits & (1 << 36) - 1
    return samples / rate if rate and samples else None


def mp3_seconds(head: bytes) -> float | None:
    """Return the length by the frame count of a frame's Xing, Info or VBRI header, less padding; None without one."""
    frame = mp3_frame(head)
    if frame is None:
        return None
    samples, rate, mono = frame
    mark = 4 + ((17 if mono else 32) if samples == 1152 else (9 if mono else 17))
    if head[mark : mark + 4] in (b"Xing", b"Info") and head[mark + 7] & 1:
        count = int.from_bytes(head[mark + 8 : mark + 12], "big")
    elif head[36:40] == b"VBRI":
        count = int.from_bytes(head[50:54], "big")
    else:
        return None
    padding = int.from_bytes(head[mark + 141 : mark + 144], "big") if head[mark + 120 : mark + 123] in ENCODERS else 0
    return (count * samples - (padding >> 12) - (padding & 0xFFF)) / rate if count else None


# Containers of chunks: RIFF, RF64, W64, IFF, CAF


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How a format writes its chunks."""

    start: int
    """Where the first chunk begins."""
    name_bytes: int
    size: struct.Struct
    data: bytes
    """Name of the chunk with the samples."""
    align: int
    counts_header: bool = False
    """Whether a chunk's size counts its own header."""


def _layout(kind: str, head: bytes) -> _Layout:
    little, big = struct.Struct("<I"), struct.Struct(">I")
    if kind == "aiff":
        return _Layout(start=12, name_bytes=4, size=big, data=b"SSND", align=2)
    if kind == "caf":
        return _Layout(start=8, name_bytes=4, size=struct.Struct(">q"), data=b"data", align=1)
    if kind == "w64":
        data = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
        return _Layout(start=40, name_bytes=16, size=struct.Struct("<Q"), data=data, align=8, counts_header=True)
    size = big if head[:4] == b"RIFX" else little
    return _Layout(start=12, name_bytes=4, size=size, data=b"data" if kind == "wav" else b"movi", align=2)


def _chunks(file: BinaryIO, layout: _Layout, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, where its content begins, its size) of chunks, each header read where the one before it ends."""
    header = layout.name_bytes + layout.size.size
    at = start
    while at + header <= end:
        file.seek(at)
        name = file.read(layout.name_bytes)
        (size,) = layout.size.unpack(file.read(layout.size.size))
        size -= header if layout.counts_header else 0
        yield name, at + header, size
        if size < 0:
            return
        at += header + size + -(header + size) % layout.align


def _checked_data(file: BinaryIO, path: Path, layout: _Layout, seen: tuple[str, bytes], end: int) -> int | None:
    """Return the bytes of samples that are counted: 0 where a wav counts none but has some, None for an unknown size.

    seen: format and first bytes. Raises UserError where the size does not fit the file.
    """
    kind, head = seen
    wide = int.from_bytes(head[28:36], "little") if head[:4] in (b"RF64", b"BW64") and head[12:16] == b"ds64" else None
    for name, start, counted in _chunks(file, layout, layout.start, end):
        if name != layout.data:
            continue
        size = wide if wide is not None and counted == 0xFFFFFFFF else counted
        size = 0 if layout.counts_header and size < 0 else size
        there = end - start
        if size < 0 or (layout.size.size == 4 and size >= UNKNOWN_BYTES and wide is None and size > there):
            return None  # written by a streaming encoder, read to the end of the file
        if size == 0 and there > SLACK_BYTES:
            if head[:4] in (b"RIFF", b"RIFX"):
                return 0
            what = f"its header counts no samples, and {there:,} bytes follow: it was not finished"
            raise UnusableAudio(str(path), what, REPAIR)
        if size > there:
            raise UnusableAudio(str(path), f"lacks {size - there:,} of the bytes that its header counts", COPY_AGAIN)
        _check_rest(file, path, layout, (start, size), end)
        return size or None
    raise UnusableAudio(str(path), f"is cut off: its header ends before the samples begin ({end:,} bytes)", COPY_AGAIN)


def _check_rest(file: BinaryIO, path: Path, layout: _Layout, data: tuple[int, int], end: int) -> None:
    """Raise UserError where more than chunks and padding lies behind the samples."""
    start, size = data
    after = start + size
    after += -size % layout.align
    reached = after
    for name, begin, length in _chunks(file, layout, after, end):
        if name[:4] in (b"RIFF", b"RF64", b"BW64", b"FORM", b"riff", b"caff"):
            raise UnusableAudio(str(path), f"another recording follows at byte {reached:,}, behind its own end", SPLIT)
        if not all(0x20 <= byte < 0x7F for byte in name[:4]) or not 0 <= length <= end - begin:
            break
        reached = begin + length + length % 2
    if end - reached > SLACK_BYTES:
        what = (
            f"its header counts {size:,} bytes of samples, and {end - start:,} are there: "
            f"{end - reached:,} behind the counted end would not be read"
        )
        raise UnusableAudio(str(path), what, REPAIR)


def _check_form(_: BinaryIO, path: Path, head: bytes, end: int) -> None:
    (size,) = struct.unpack_from("<I", head, 4)
    if 0 < size < UNKNOWN_BYTES and size + 8 > end:
        raise UnusableAudio(str(path), f"lacks {size + 8 - end:,} of the bytes that its header counts", COPY_AGAIN)


def _check_au(_: BinaryIO, path: Path, head: bytes, end: int) -> None:
    start, size = struct.unpack_from(">II", head.ljust(12, b"\0"), 4)
    if size >= UNKNOWN_BYTES:
        return
    if size > end - start:
        raise UnusableAudio(str(path), f"lacks {size - end + start:,} of the bytes that its header counts", COPY_AGAIN)
    if end - start - size > SLACK_BYTES:
        what = f"its header counts {size:,} bytes of samples, and {end - start:,} follow"
        raise UnusableAudio(str(path), what, REPAIR)


def _check_sphere(_: BinaryIO, path: Path, head: bytes, end: int) -> None:
    """Raise UserError where a NIST SPHERE file holds fewer bytes of samples than its header's fields multiply to."""
    fields = {match[1]: int(match[2]) for match in re.finditer(rb"^(\w+) -i (\d{1,12})\s*$", head[:1024], re.MULTILINE)}
    start = re.match(rb"NIST_1A\s+(\d{1,6})\s", head)
    counted = fields.get(b"sample_count", 0) * fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 0)
    if start is None or b"sample_coding -s3 pcm" not in head[:1024]:
        return  # compressed by shorten or as mu-law, which the decoder refuses or measures
    if counted > end - int(start[1]):
        raise UnusableAudio(
            str(path), f"lacks {counted - end + int(start[1]):,} of the bytes that its header counts", COPY_AGAIN
        )


# Containers of boxes, pages and elements: MP4, Ogg, Matroska


def _check_boxes(file: BinaryIO, path: Path, _: bytes, end: int) -> None:
    """Raise UserError for a box that reaches behind the file's end, for a missing index, and for a second one."""
    at, indexes = 0, 0
    while at + 8 <= end:
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(8))
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
        size = size or end - at
        if size < 8 or not all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in name):
            break  # padding
        if at + size > end:
            raise UnusableAudio(str(path), f"lacks {at + size - end:,} of the bytes that its header counts", COPY_AGAIN)
        indexes += name == b"moov"
        at += size
    if not indexes:
        raise UnusableAudio(str(path), "has no index of its samples (box `moov`): it was not finished", COPY_AGAIN)
    if indexes > 1:
        raise UnusableAudio(
            str(path), f"{indexes} recordings are joined in it, and players read the first alone", SPLIT
        )


def _check_last_page(file: BinaryIO, path: Path, _: bytes, end: int) -> None:
    """Raise UserError unless the last page of an Ogg file is whole and marked as the last."""
    file.seek(max(0, end - 8 * HEAD_BYTES))
    tail = file.read()
    at = tail.rfind(b"OggS")
    header = tail[at : at + 27]
    if at >= 0 and len(header) == 27:
        table = tail[at + 27 : at + 27 + header[26]]
        whole = len(table) == header[26] and at + 27 + len(table) + sum(table) <= len(tail)
        if whole and header[5] & 4:
            return
    what = "is cut off: its last page is not there"
    raise UnusableAudio(
        str(path), what, f"{COPY_AGAIN}; of a stream dump `ffmpeg -i IN -c copy OUT.ogg` writes the end"
    )


def _check_segment(file: BinaryIO, path: Path, head: bytes, end: int) -> None:
    """Raise UserError where a Matroska segment reaches behind the file's end, or another file follows it."""
    at = head.find(b"\x18\x53\x80\x67")
    if at < 0 or at + 5 > len(head):
        return
    first = head[at + 4]
    width = 9 - first.bit_length()
    size = int.from_bytes(head[at + 4 : at + 4 + width], "big") & (1 << 7 * width) - 1
    if not first or size == (1 << 7 * width) - 1:
        return  # a live recording: the size is unknown
    stop = at + 4 + width + size
    if stop > end:
        raise UnusableAudio(str(path), f"lacks {stop - end:,} of the bytes that its header counts", COPY_AGAIN)
    file.seek(stop, os.SEEK_SET)
    if file.read(4) == b"\x1aE\xdf\xa3":
        raise UnusableAudio(str(path), f"another recording follows at byte {stop:,}, behind its own end", SPLIT)


def _check_tags(file: BinaryIO, path: Path, head: bytes, end: int) -> None:
    """Raise UserError where the last tag of an FLV file is cut off, or another file follows."""
    at = int.from_bytes(head[5:9], "big") + 4
    while at + 11 <= end:
        file.seek(at)
        tag = file.read(11)
        if tag[:3] == b"FLV":
            raise UnusableAudio(str(path), f"another recording follows at byte {at:,}, behind its own end", SPLIT)
        if tag[0] & 0x1F not in (8, 9, 18):
            return
        at += 11 + int.from_bytes(tag[1:4], "big") + 4
    if at > end:
        raise UnusableAudio(str(path), f"is cut off: its last tag lacks {at - end:,} bytes", COPY_AGAIN)


def _check_packets(_: BinaryIO, path: Path, __: bytes, end: int) -> None:
    if end % 188:
        raise UnusableAudio(str(path), "is cut off within one of its packets of 188 bytes", COPY_AGAIN)
