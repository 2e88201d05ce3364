"""The parts of recordings that are segmented, each like a recording: whole ones, their regions, their channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segment.testset import RecordingFile
from submission.errors import UserError
from submission.runtime.audio import channel_count
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
    """Return the segments of the parts of one recording: region by region, within one by time whatever their channel.

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
