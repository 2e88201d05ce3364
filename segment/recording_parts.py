"""The parts of recordings that are segmented, each like a recording: whole ones, their regions, their channels."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from segment.testset import RecordingFile
from submission.errors import UserError
from submission.runtime.audio import channel_count, channel_sound
from submission.runtime.channels import Channel
from submission.text.segments import Segment

MEAN, FIRST, EACH = "mean", "first", "each"
CHANNELS = (MEAN, FIRST, EACH)
"""What is translated of several channels: their mean, the first one, or each by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingPart:
    """A stretch of a recording, of one channel or of the mean of all."""

    recording: RecordingFile
    channel: Channel = None
    start: int = 0
    """In samples at 16 kHz."""
    end: int | None = None
    """None: the recording's end."""

    region: int = 0
    """Number of the region among those of the recording."""

    @property
    def is_whole(self) -> bool:
        """Whether it is the recording as it is read by default."""
        return self.channel is None and self.start == 0 and self.end is None


def chosen_channels(recording: RecordingFile, channels: str) -> tuple[Channel, ...]:
    """Return which channels of a recording are translated; one that has a single channel has no choice.

    channels: one of CHANNELS. What cannot be read is left to the detectors, which say so.
    """
    try:
        count = channel_count(recording.path) if channels != MEAN else 1
    except UserError:
        return (None,)
    if count <= 1:
        return (None,)
    return (0,) if channels == FIRST else tuple(range(count))


def parts_of(recording: RecordingFile, channels: str, regions: Sequence[Segment] | None = None) -> list[RecordingPart]:
    """Return the parts of a recording, region by region, the channels of each one after the other.

    regions: of this recording, in order; None for the whole of it.
    """
    stretches = [(0, None)] if regions is None else [(region.start, region.end) for region in regions]
    return [
        RecordingPart(recording=recording, channel=channel, start=start, end=end, region=number)
        for number, (start, end) in enumerate(stretches)
        for channel in chosen_channels(recording, channels)
    ]


def in_order(parts: Sequence[tuple[RecordingPart, Sequence[tuple[int, int]]]]) -> list[Segment]:
    """Return the segments of the parts of one recording: region by region, and within one by time, of all channels.

    parts: each with its segments in samples of the part.
    """
    placed = [
        (part.region, part.start + start, part.start + end, part.channel)
        for part, stretches in parts
        for start, end in stretches
    ]
    name = next((part.recording.name for part, _ in parts), "")
    return [
        Segment(recording=name, start=start, end=end, channel=channel)
        for _, start, end, channel in sorted(placed, key=lambda at: (*at[:3], at[3] or 0))
    ]


def print_untranslated(label: str, translated: Iterable[tuple[RecordingFile, Channel]]) -> None:
    """Print the `untranslated_lines` to stderr."""
    for line in untranslated_lines(translated):
        print(f"{label}: {line}", file=sys.stderr, flush=True)


def untranslated_lines(translated: Iterable[tuple[RecordingFile, Channel]]) -> list[str]:
    """Return a line for each recording with sound that its translated channels lack.

    translated: recordings with the channels that are translated of them. Every recording was read by `checked_length`
    before: none is decoded here.
    """
    channels: dict[RecordingFile, set[Channel]] = {}
    for recording, channel in translated:
        channels.setdefault(recording, set()).add(channel)
    read = [(recording, next(iter(only))) for recording, only in channels.items() if len(only) == 1]
    return [line for recording, channel in read if (line := _untranslated_sound(recording, channel))]


def _untranslated_sound(recording: RecordingFile, channel: Channel) -> str:
    """Return what one channel, or the mean, lacks of a recording; "" where that is little."""
    if channel not in (None, 0):
        return ""
    sound = channel_sound(recording.path)
    lost = sound.lacking(channel)
    if not lost:
        return ""
    of = f"{recording.name}: {lost:.1f} of {sound.seconds:.1f} s with sound"
    options = "(`channels` of the test set in the campaign, --channels of translate and rerun)"
    if channel is None:
        what = f"{of} cancel out in the mean of its {len(sound.beside_first)} channels"
        return f"{what}, which is translated: take first or each {options}"
    louder = sound.beside_first.index(lost)
    what = f"{of} are in channel {louder} (from 0), and hardly in channel {channel}"
    return f"{what}, which alone is translated: take mean or each {options}"
