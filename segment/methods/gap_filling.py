"""Gap filling: segments extended or added until they cover all detected speech, which `shas+vad` does after SHAS.

SHAS decides where utterances begin and end, and it can be wrong where the sound is unlike its training data: then
speech falls between segments and is never translated. A voice-activity detector is a second opinion. Wherever it
finds speech outside every segment, each gap between segments is processed from both sides:

1. Speech within JOIN_SECONDS of a segment goes to the nearer segment, as long as that stays within the maximum. A
   short gap that is speech throughout is divided between both, where the detector's probability is lowest.
2. What is left becomes segments of its own: neighbours within JOIN_SECONDS of each other together as long as they
   fit, and what is longer than the maximum is split at the lowest probability, without a gap.
3. A new segment below the minimum is widened into the silence around it. Where there is too little, the boundary
   between it and its neighbour is chosen again, at the lowest probability.

So all detected speech is covered, segments stay in order and disjoint, and none is longer than the maximum.
All positions are samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from segment.methods.divide_and_conquer import segment_by_classifier
from segment.methods.method import Stretch, length_limits
from segment.probabilities.speech_probabilities import FrameProbabilities
from segment.probabilities.vad import CHUNK_SAMPLES, speech_stretches
from submission.system.recipe.decoding_options import SegmentOptions
from submission.text.segments import SAMPLE_RATE

JOIN_SECONDS = 0.2
"""Speech this near belongs together: the pauses inside words and phrases are shorter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapFiller:
    """Covers the detected speech of one recording; `least_probable` reads its probabilities."""

    samples: int
    """Of the recording."""
    longest: int
    shortest: int
    least_probable: Callable[[int, int], int]
    """(start, end) -> position in [start, end) at which the probability of speech is lowest."""
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
            here: deque[Stretch] = deque()
            while missing and missing[0][1] <= gap_end:
                here += self._divided(missing.popleft(), covered, following)
            self._extend_previous(here, covered, following)
            following = self._extend_following(here, following)
            groups = self._grouped(here)
            limits = [*(start for start, _ in groups[1:]), following[0] if following else self.samples]
            for group, end_limit in zip(groups, limits, strict=False):
                self._append(covered, self._widened(group, covered[-1][1] if covered else 0, end_limit))
            if following:
                self._append(covered, following)
        return covered

    def _divided(self, piece: Stretch, covered: list[Stretch], following: Stretch | None) -> list[Stretch]:
        """Return a piece in two where it is short and fills the gap between two segments, else as it is."""
        start, end = piece
        fills = covered and following and covered[-1][1] == start and end == following[0]
        if not fills or not 1 < end - start <= 2 * self.join:
            return [piece]
        cut = max(start + 1, self.least_probable(start, end))
        return [(start, cut), (cut, end)]

    def _extend_previous(self, here: deque[Stretch], covered: list[Stretch], following: Stretch | None) -> None:
        """Extend the last of `covered` by the first pieces of a gap that are nearer to it; these leave `here`."""
        gap_start = covered[-1][1] if covered else 0
        while here and covered:
            start, end = covered[-1]
            before, behind = here[0][0] - gap_start, following[0] - here[0][1] if following else self.samples
            fits_behind = following and following[1] - here[0][0] <= self.longest
            if here[0][0] - end > self.join or here[0][1] - start > self.longest or (behind < before and fits_behind):
                break
            covered[-1] = (start, here.popleft()[1])

    def _extend_following(self, here: deque[Stretch], following: Stretch | None) -> Stretch | None:
        """Return the segment behind a gap, extended by the gap's last pieces, which leave `here`."""
        while here and following:
            start, end = following
            if start - here[-1][1] > self.join or end - here[-1][0] > self.longest:
                break
            following = (here.pop()[0], end)
        return following

    def _grouped(self, pieces: Iterable[Stretch]) -> list[Stretch]:
        """Return new segments for the pieces of a gap: near ones together, long ones split."""
        groups: list[Stretch] = []
        for start, end in pieces:
            if groups and start - groups[-1][1] <= self.join and end - groups[-1][0] <= self.longest:
                groups[-1] = (groups[-1][0], end)
            else:
                groups += self.cut(start, end)
        return groups

    def cut(self, start: int, end: int) -> list[Stretch]:
        """Return a stretch as parts of at most the maximum, without a gap."""
        parts = []
        while end - start > self.longest:
            first, last = start + self.longest // 2, min(start + self.longest, end - self.shortest)
            cut = self.least_probable(first, last) if first < last else (start + end) // 2
            parts.append((start, cut))
            start = cut
        return [*parts, (start, end)]

    def _widened(self, piece: Stretch, start_limit: int, end_limit: int) -> Stretch:
        """Return a new segment widened to the minimum, or to the limits where these are nearer."""
        start, end = piece
        lacking = max(0, self.shortest - (end - start))
        before, after = start - start_limit, end_limit - end
        behind = min(after, max(lacking - lacking // 2, lacking - before))
        return start - min(before, lacking - behind), end + behind

    def _append(self, covered: list[Stretch], segment: Stretch) -> None:
        """Append a segment; where it or the one before is too short, choose their boundary again."""
        if covered and covered[-1][1] == segment[0]:
            start, end = covered[-1][0], segment[1]
            if min(segment[0] - start, end - segment[0]) < self.shortest:
                covered[-1:] = self.cut(start, end)
                return
        covered.append(segment)


def split_stretch(probabilities: FrameProbabilities, stretch: Stretch, longest: int) -> list[Stretch]:
    """Return a stretch of a recording as parts of at most `longest` samples, without a gap.

    It is split where the detector's probability of speech is lowest.
    """
    return _gap_filler(probabilities, longest, longest // 4).cut(*stretch)


def _gap_filler(probabilities: FrameProbabilities, longest: int, shortest: int) -> GapFiller:
    def least_probable(start: int, end: int) -> int:
        """Return the middle of the least probable chunk, or the allowed position nearest to it."""
        first = start // CHUNK_SAMPLES
        chunk = first + int(probabilities.vad[first : (end - 1) // CHUNK_SAMPLES + 1].argmin())
        return min(max(chunk * CHUNK_SAMPLES + CHUNK_SAMPLES // 2, start), end - 1)

    return GapFiller(
        samples=probabilities.samples,
        longest=longest,
        shortest=min(shortest, longest // 2),
        least_probable=least_probable,
    )


def segment_and_fill_gaps(probabilities: FrameProbabilities, options: SegmentOptions) -> list[Stretch]:
    """Return the segments of SHAS, extended and complemented by others until they cover all detected speech."""
    fill_gaps = _gap_filler(probabilities, *length_limits(options))
    speech = speech_stretches(probabilities.vad, probabilities.samples)
    return fill_gaps(segment_by_classifier(probabilities, options), speech)


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
