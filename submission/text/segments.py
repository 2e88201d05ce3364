"""Segments of recordings, and the YAML list in which packages exchange them.

The file is the one that SHAS and MuST-C write, one flow mapping a line:

    - {duration: 13.75, offset: 0.26, rW: 0, speaker_id: NA, uW: 0, wav: talk1.wav}

Where the speakers of a recording have a channel each, `speaker_id` names it, `channel_0`. The project writes this
narrow form, and this module reads only it (the checks of a bundle have no YAML library).
Lists that organisers ship in other dialects are read by `segment`, which writes this form.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from submission.errors import UserError
from submission.store.digests import write_text
from submission.text.bounded_text import read_text
from submission.text.characters import BIDIRECTIONAL, HIDDEN, UNPRINTABLE, printable

SAMPLE_RATE = 16_000
LONGEST_NAME = 1024
"""Characters of a recording's name, which may be a path below the folder of its test set."""

_LINE = re.compile(
    r"- \{duration: (?P<duration>\d{1,9}(?:\.\d{1,9})?), offset: (?P<offset>\d{1,9}(?:\.\d{1,9})?), "
    r"rW: 0, speaker_id: (?:NA|channel_(?P<channel>\d{1,3})), uW: 0, "
    r'wav: (?P<wav>"(?:[^"\\]|\\.)*"|[A-Za-z0-9_][A-Za-z0-9._-]*)\}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of a recording, in integer samples at 16 kHz; `end` is exclusive."""

    recording: str
    """File name of the recording, `talk1.wav`."""
    start: int
    end: int
    channel: int | None = None
    """The one channel of the recording that is read, from 0; None: the mean of all."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"segment of {self.recording}: expected 0 <= start < end, got {self.start}, {self.end}")

    @property
    def seconds(self) -> float:
        """Its length in seconds."""
        return (self.end - self.start) / SAMPLE_RATE


def refuse_hostile_name(name: str) -> None:
    """Raise ValueError for a recording's name that leaves its folder, or that a terminal would not show as it is."""
    shown = not any(unicodedata.category(c) in UNPRINTABLE or c in BIDIRECTIONAL or c in HIDDEN for c in name)
    path = PurePosixPath(name)
    if not name or not shown or path.is_absolute() or ".." in path.parts or "\\" in name or len(name) > LONGEST_NAME:
        raise ValueError(f"wav: {printable(name)!r} is no plain file name")


def segment_id(recording: str, index: int) -> str:
    """Return the name of the index-th segment (from 0) of a recording: `talk1.wav/0003`."""
    return f"{recording}/{index:04d}"


def segment_ids(segments: Iterable[Segment]) -> list[str]:
    """Return the names of segments in order, each counted within its recording."""
    counts: dict[str, int] = {}
    names = []
    for segment in segments:
        index = counts.get(segment.recording, 0)
        counts[segment.recording] = index + 1
        names.append(segment_id(segment.recording, index))
    return names


def _seconds(samples: int) -> str:
    """Return samples as seconds, exactly: 1/16000 s is 0.0000625, so seven decimals hold every position."""
    whole, rest = divmod(samples, SAMPLE_RATE)
    decimals = f"{rest * 625:07d}".rstrip("0")
    return f"{whole}.{decimals or '0'}"


def _scalar(name: str) -> str:
    """Return a file name as a YAML scalar: plain where every YAML reader takes it for a string.

    Otherwise in double quotes, which JSON and YAML read alike once line separators and the like are escaped.
    """
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*\.(wav|flac|mp3|m4a)", name):
        return name
    quoted = json.dumps(name, ensure_ascii=False)
    return "".join(c if c.isprintable() or ord(c) > 0xFFFF else f"\\u{ord(c):04x}" for c in quoted)


def write_segments(path: Path, segments: Iterable[Segment]) -> None:
    """Write segments in the given order; positions in seconds are exact to the sample."""
    lines = [
        f"- {{duration: {_seconds(s.end - s.start)}, offset: {_seconds(s.start)}, rW: 0, "
        f"speaker_id: {'NA' if s.channel is None else f'channel_{s.channel}'}, uW: 0, wav: {_scalar(s.recording)}}}\n"
        for s in segments
    ]
    write_text(path, "".join(lines) or "[]\n")


def parse_segments(text: str, where: str) -> list[Segment]:
    """Return the segments of a text in the form that `write_segments` writes.

    Raises UserError that names the line which is not of that form.
    """
    if text == "[]\n":
        return []
    segments = []
    for number, line in enumerate(text.split("\n")[:-1] if text.endswith("\n") else text.split("\n"), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(
                f"{where} line {number}",
                f"expected `- {{duration: …, offset: …, rW: 0, speaker_id: NA, uW: 0, wav: …}}`, got {line[:80]!r}",
                "write segments with submission.text.segments.write_segments",
            )
        start = round(float(match["offset"]) * SAMPLE_RATE)
        end = start + round(float(match["duration"]) * SAMPLE_RATE)
        try:
            wav = json.loads(match["wav"]) if match["wav"].startswith('"') else match["wav"]
            channel = None if match["channel"] is None else int(match["channel"])
            refuse_hostile_name(wav)
            segments.append(Segment(recording=wav, start=start, end=end, channel=channel))
        except ValueError as error:
            raise UserError(f"{where} line {number}", str(error), "give every segment a positive duration") from error
    return segments


def read_segments(path: Path) -> list[Segment]:
    """Return the segments of a file that `write_segments` wrote; UserError where it is not one."""
    return parse_segments(read_text(path, "segment the test set again"), str(path))
