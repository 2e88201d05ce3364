"""Probabilistic divide-and-conquer (pDAC): splits a recording at its least probable frames.

The algorithm of SHAS (Tsiamas et al., Interspeech 2022, section 2.2): trim a stretch to its first and last
frame at or above the threshold; where it is too long, split it at its least probable frame (that frame belongs to
neither side) whose two trimmed sides are both longer than the minimum; repeat with both sides.

The published implementation tries candidate frames one by one and trims both sides for each, recursively.
Two observations make that a loop over splits instead:

- A stretch that was trimmed begins and ends with a frame at or above the threshold. So the left side of a cut at
  k ends behind the last such frame before k, the right side begins at the first one after k, and both follow
  from two arrays computed once per recording.
- The left side only grows with k and the right side only shrinks. So the frames that leave both sides long
  enough are one contiguous range, and the cut is the leftmost minimum of that range, found by range-minimum query.

Segments equal the published ones frame by frame, but for its failures: no recursion limit, ties go to the
earliest frame (there: unspecified order), and a recording without speech gives no segment (there: one of length 0).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np

FRAME_RATE_HZ = 49.95
"""Frames per second. wav2vec 2.0 makes one of 400 samples every 320, so a window of 20 s (320000 samples) has
999 frames, not 1000: the published constant is 999 / 20. Windows are laid end to end, so over a whole recording
this is the true mean rate; a constant 50 would drift by a frame every 20 s."""

DECIMALS = 4
"""Lengths are compared in seconds rounded to this many decimals, as published."""

BLOCK_FRAMES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of segments, and what counts as speech."""

    max_seconds: float = 18.0
    """A segment is accepted when it is strictly shorter."""
    min_seconds: float = 0.2
    """A cut is accepted when both sides are strictly longer."""
    threshold: float = 0.5
    """Probability from which a frame counts as speech when trimming."""
    frame_rate_hz: float = FRAME_RATE_HZ

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ValueError(f"expected 0 <= min_seconds < max_seconds, got {self.min_seconds}, {self.max_seconds}")

    def seconds(self, frames: int) -> float:
        """Return the length of so many frames in seconds, rounded as the published code rounds it."""
        return round(frames / self.frame_rate_hz, DECIMALS)

    @property
    def longest_frames(self) -> int:
        """Return the longest accepted segment: the most frames whose seconds are strictly below the maximum."""
        frames = int(self.max_seconds * self.frame_rate_hz) + 2
        while frames > 0 and not self.seconds(frames) < self.max_seconds:
            frames -= 1
        return frames

    @property
    def shortest_side_frames(self) -> int:
        """Return the shortest side of a cut: the fewest frames whose seconds are strictly above the minimum."""
        frames = max(0, int(self.min_seconds * self.frame_rate_hz) - 2)
        while not self.seconds(frames) > self.min_seconds:
            frames += 1
        return frames


class LeftmostMinimum:
    """Position of the leftmost smallest value of any range of an array; NaN counts as largest.

    A sparse table over the minima of blocks of 64 frames: n/64 * log2(n/64) entries, so two hours take 0.5 MB.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.where(np.isnan(values), np.inf, values)
        self.values.setflags(write=False)
        blocks = -(-len(values) // BLOCK_FRAMES)
        padded = np.full(blocks * BLOCK_FRAMES, np.inf)
        padded[: len(values)] = self.values
        within = padded.reshape(blocks, BLOCK_FRAMES).argmin(axis=1)
        best = np.arange(blocks) * BLOCK_FRAMES + within  # position of each block's leftmost minimum
        self.levels = [best.tolist()]
        width = 1
        while 2 * width <= blocks:
            left, right = best[:-width], best[width:]
            best = np.where(padded[right] < padded[left], right, left)
            self.levels.append(best.tolist())
            width *= 2

    def find(self, start: int, stop: int) -> int:
        """Return the position of the leftmost minimum of values[start:stop], which must not be empty."""
        first_block, last_block = -(-start // BLOCK_FRAMES), stop // BLOCK_FRAMES
        if first_block >= last_block:
            return start + int(self.values[start:stop].argmin())
        level = (last_block - first_block).bit_length() - 1
        candidates = [
            self.levels[level][first_block],
            self.levels[level][last_block - (1 << level)],
        ]
        if start < first_block * BLOCK_FRAMES:
            candidates.insert(0, start + int(self.values[start : first_block * BLOCK_FRAMES].argmin()))
        if last_block * BLOCK_FRAMES < stop:
            candidates.append(last_block * BLOCK_FRAMES + int(self.values[last_block * BLOCK_FRAMES : stop].argmin()))
        return min(candidates, key=self.values.__getitem__)  # candidates lie left to right, min keeps the first


def split(probabilities: np.ndarray, limits: Limits) -> list[tuple[int, int]]:
    """Return segments as (first frame, frame after the last), in order and disjoint.

    probabilities: float [frames]; NaN (no prediction) is never speech and the last place to cut.
    Every segment has at least one frame and less than limits.max_seconds. A stretch that is too long and that no
    frame cuts into two sides above the minimum is replaced by whichever side of its most probable frame is above
    it, as published: what lies in the other is dropped.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    speech = values >= limits.threshold
    positions = np.flatnonzero(speech)
    if not len(positions):
        return []
    frames = np.arange(len(values))
    # left_end[k]: frame behind the last speech frame before k. right_start[k]: first speech frame after k.
    # (Lists: bisection in them costs a fifth of what numpy's does, and a flat recording of two hours has 30000 cuts.)
    left_end = [0, *np.maximum.accumulate(np.where(speech, frames + 1, 0))[:-1].tolist()]
    right_start = [*np.minimum.accumulate(np.where(speech, frames, len(values))[::-1])[::-1][1:].tolist(), len(values)]
    longest, shortest_side = limits.longest_frames, limits.shortest_side_frames
    least, most = LeftmostMinimum(values), None
    segments = []
    pending = [(int(positions[0]), int(positions[-1]) + 1)]
    while pending:
        start, end = pending.pop()
        if end - start <= longest:
            segments.append((start, end))
            continue
        # cuts that leave both sides long enough: left_end[k] - start >= shortest_side <= end - right_start[k]
        low = bisect_left(left_end, start + shortest_side, start, end)
        high = bisect_right(right_start, end - shortest_side, start, end)
        if low < high:
            cut = least.find(low, high)
        else:
            most = most or RightmostMaximum(values)
            cut = most.find(start, end)
        left, right = (start, left_end[cut]), (right_start[cut], end)
        pending += [side for side in (right, left) if side[1] - side[0] >= shortest_side]
    return segments


class RightmostMaximum(LeftmostMinimum):
    """Position of the frame that a stable ascending sort of a range puts last: NaN, else the rightmost largest."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__(np.where(np.isnan(values), -np.inf, -values)[::-1])

    def find(self, start: int, stop: int) -> int:
        """Return the position in values[start:stop], which must not be empty."""
        last = len(self.values) - 1
        return last - super().find(last - (stop - 1), last - start + 1)
