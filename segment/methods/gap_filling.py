"""Segments that leave no detected speech out: what `shas+vad` adds to divide-and-conquer.

SHAS decides where utterances begin and end, and it can be wrong where the sound is unlike its training: then a
stretch falls between segments and is never translated. A voice-activity detector is a second witness. Wherever it
hears speech that no segment covers, each gap between segments is gone through from both sides:

1. Speech within JOIN_SECONDS of a segment goes to the nearer segment, as long as that stays within the maximum. A
   short gap that is speech throughout is parted between both, where the detector is least sure.
2. What is left becomes segments of its own: neighbours within JOIN_SECONDS of each other together as long as they
   fit, and what is longer than the maximum is cut where the detector is least sure, nothing left out.
3. A new segment below the minimum is widened into the silence around it. Where there is too little, it and its
   neighbour are cut anew, at the least sure place.

So detected speech is covered whole, segments stay in order and disjoint, and none is longer than the maximum.
All positions are samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from submission.text.segments import SAMPLE_RATE

JOIN_SECONDS = 0.2
"""Speech this near belongs together: the pauses inside words and phrases are shorter."""

Stretch = tuple[int, int]
"""(start, end), the end exclusive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """Covers the speech of one recording."""

    samples: int
    """Of the recording."""
    longest: int
    shortest: int
    least_sure: Callable[[int, int], int]
    """Position in [start, end) at which the detector is least sure to hear speech."""
    join: int = round(JOIN_SECONDS * SAMPLE_RATE)

    def __call__(self, segments: Sequence[Stretch], speech: Sequence[Stretch]) -> list[Stretch]:
        """Return segments, in order and disjoint, that cover all of the speech.

        segments and speech: each in order, disjoint and within the recording, segments no longer than longest,
        which is at least twice shortest.
        """
        covered: list[Stretch] = []
        missing = deque(uncovered(speech, segments))
        for following in [*segments, None]:
            gap_end = following[0] if following else self.samples
            here = deque()
            while missing and missing[0][1] <= gap_end:
                here += self._parted(missing.popleft(), covered, following)
            self._give_to_the_left(here, covered, following)
            following = self._give_to_the_right(here, following)
            groups = self._grouped(here)
            room_ends = [*(start for start, _ in groups[1:]), following[0] if following else self.samples]
            for group, room_end in zip(groups, room_ends, strict=False):
                self._append(covered, self._widened(group, covered[-1][1] if covered else 0, room_end))
            if following:
                self._append(covered, following)
        return covered

    def _parted(self, piece: Stretch, covered: list[Stretch], following: Stretch | None) -> list[Stretch]:
        """Return a piece in two where it is short and fills the gap between two segments, else as it is."""
        start, end = piece
        fills = covered and following and covered[-1][1] == start and end == following[0]
        if not fills or not 1 < end - start <= 2 * self.join:
            return [piece]
        cut = max(start + 1, self.least_sure(start, end))
        return [(start, cut), (cut, end)]

    def _give_to_the_left(self, here: deque[Stretch], covered: list[Stretch], following: Stretch | None) -> None:
        """Extend the last of `covered` by the first pieces of a gap that are nearer to it; these leave `here`."""
        gap_start = covered[-1][1] if covered else 0
        while here and covered:
            start, end = covered[-1]
            before, behind = here[0][0] - gap_start, following[0] - here[0][1] if following else self.samples
            fits_behind = following and following[1] - here[0][0] <= self.longest
            if here[0][0] - end > self.join or here[0][1] - start > self.longest or (behind < before and fits_behind):
                break
            covered[-1] = (start, here.popleft()[1])

    def _give_to_the_right(self, here: deque[Stretch], following: Stretch | None) -> Stretch | None:
        """Return the segment behind a gap, extended by the gap's last pieces, which leave `here`."""
        while here and following:
            start, end = following
            if start - here[-1][1] > self.join or end - here[-1][0] > self.longest:
                break
            following = (here.pop()[0], end)
        return following

    def _grouped(self, pieces: Iterable[Stretch]) -> list[Stretch]:
        """Return new segments for the pieces of a gap: near ones together, long ones cut."""
        groups: list[Stretch] = []
        for start, end in pieces:
            if groups and start - groups[-1][1] <= self.join and end - groups[-1][0] <= self.longest:
                groups[-1] = (groups[-1][0], end)
            else:
                groups += self._cut(start, end)
        return groups

    def _cut(self, start: int, end: int) -> list[Stretch]:
        """Return a stretch as parts of at most the maximum, without a gap."""
        parts = []
        while end - start > self.longest:
            first, last = start + self.longest // 2, min(start + self.longest, end - self.shortest)
            cut = self.least_sure(first, last) if first < last else (start + end) // 2
            parts.append((start, cut))
            start = cut
        return [*parts, (start, end)]

    def _widened(self, piece: Stretch, room_start: int, room_end: int) -> Stretch:
        """Return a new segment that is as long as the minimum, or fills the room that it has."""
        start, end = piece
        lacking = max(0, self.shortest - (end - start))
        before, after = start - room_start, room_end - end
        behind = min(after, max(lacking - lacking // 2, lacking - before))
        return start - min(before, lacking - behind), end + behind

    def _append(self, covered: list[Stretch], segment: Stretch) -> None:
        """Append a segment; where it or the one that it touches is too short, cut the two anew."""
        if covered and covered[-1][1] == segment[0]:
            start, end = covered[-1][0], segment[1]
            if min(segment[0] - start, end - segment[0]) < self.shortest:
                covered[-1:] = self._cut(start, end)
                return
        covered.append(segment)


def uncovered(speech: Sequence[Stretch], segments: Sequence[Stretch]) -> list[Stretch]:
    """Return the parts of the speech that no segment covers, in order.

    segments may overlap and be in any order, as given ones; speech is in order and disjoint.
    """
    pieces = []
    merged = _merged(segments)
    first = 0
    for start, end in speech:
        while first < len(merged) and merged[first][1] <= start:
            first += 1
        i = first
        while i < len(merged) and merged[i][0] < end:
            if start < merged[i][0]:
                pieces.append((start, merged[i][0]))
            start = max(start, merged[i][1])
            i += 1
        if start < end:
            pieces.append((start, end))
    return pieces


def _merged(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Return the union of stretches, in order and disjoint."""
    merged: list[Stretch] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
