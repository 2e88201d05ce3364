"""Frame probabilities of a recording, computed in windows of 20 s.

The windows are those of SHAS: 20 s, end to end, from the start of the recording; a tail under 2 s joins the
window before it. With `inference_times` n, n passes shifted by 20/n s are averaged. A recording is read window
by window, so an hour costs only its probabilities: 1.4 MB.

A recording has 49.95 frames a second (see pdac.FRAME_RATE_HZ), and a window's frames are written from the frame at
which it starts. 20 s fit exactly; a window of another length may have one frame more or less than the recording has
there: a surplus one is left out, a missing one becomes the mean of what lies within two frames of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from segment.methods.pdac import FRAME_RATE_HZ
from submission.errors import UserError
from submission.text.segments import SAMPLE_RATE

WINDOW_SECONDS = 20
TAIL_SECONDS = 2

Read = Callable[[int, int], np.ndarray]
"""(start, end) in samples -> float32 [end - start]."""
Predict = Callable[[np.ndarray], np.ndarray]
"""Windows, float32 [batch, samples] -> probabilities [batch, frames]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioSource:
    """A recording that can be read piece by piece."""

    read: Read
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of a recording in samples, and in frames of the recording; ends are exclusive."""

    start: int
    end: int
    first_frame: int
    last_frame: int


def frame_at(samples: float, frame_rate_hz: float = FRAME_RATE_HZ) -> int:
    """Return the frame nearest to a position in samples; halves go to the even frame."""
    return int(np.round(samples * (1 / (SAMPLE_RATE / frame_rate_hz))))


def sample_at(frame: int, frame_rate_hz: float = FRAME_RATE_HZ) -> int:
    """Return the sample nearest to a frame's start."""
    return round(frame / frame_rate_hz * SAMPLE_RATE)


def plan_windows(samples: int, shift: int = 0, window_seconds: float = WINDOW_SECONDS) -> list[Window]:
    """Return the windows of a recording of so many samples; they cover it without gap or overlap.

    shift: samples by which the grid of windows is moved; what lies before it is a window of its own.
    """
    if samples <= 0:
        return []
    width = round(window_seconds * SAMPLE_RATE)
    edges = [0, *(edge for edge in range(shift, samples, width) if edge > 0)]
    # Joining needs a window to join: a recording under 2 s is one window; the original makes none.
    if len(edges) > 1 and samples - edges[-1] < TAIL_SECONDS * SAMPLE_RATE:
        edges.pop()
    edges.append(samples)
    total = frame_at(samples)
    # The original looks up window edges a millionth of a sample late (halves then go up), the total exactly.
    frames = [min(frame_at(edge + 1e-6), total) for edge in edges]
    return [
        Window(start=a, end=b, first_frame=i, last_frame=j)
        for (a, i), (b, j) in zip(
            zip(edges, frames, strict=True), zip(edges[1:], frames[1:], strict=False), strict=False
        )
    ]


def frame_probabilities(
    sources: Iterable[AudioSource],
    predict: Predict,
    *,
    inference_times: int = 1,
    batch_size: int = 14,
    tick: Callable[[float], None] = lambda seconds: None,
) -> list[np.ndarray]:
    """Return the speech probability of every frame of recordings, each float64 [frame_at(samples)].

    Only equally long windows share a batch, of whatever recording: no window is padded, and where predict gives a
    window the same bits in any batch, the batch size does not count. A recording's windows are read when its turn
    comes; at most batch_size windows of 20 s, and one odd one per recording and pass, are queued for a full batch.
    tick gets the seconds of audio of each batch, divided by the number of passes. Raises UserError where predict
    returns a value that is not finite.
    """
    passes: list[list[np.ndarray]] = []
    queued: dict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)  # length -> (audio, its frames)

    def predict_queued(length: int) -> None:
        batch = queued.pop(length)
        predicted = checked_finite(predict(np.stack([audio for audio, _ in batch])))
        for (_, slots), values in zip(batch, predicted, strict=True):
            count = min(len(slots), len(values))
            slots[:count] = values[:count]
        tick(len(batch) * length / SAMPLE_RATE / inference_times)

    for source in sources:
        passes.append([np.full(frame_at(source.samples), np.nan) for _ in range(inference_times)])
        for probabilities, shift in zip(passes[-1], shifts(source.samples, inference_times), strict=True):
            for window in plan_windows(source.samples, shift):
                length = window.end - window.start
                audio = source.read(window.start, window.end)
                queued[length].append((audio, probabilities[window.first_frame : window.last_frame]))
                if len(queued[length]) == batch_size:
                    predict_queued(length)
    for length in sorted(queued):
        predict_queued(length)
    return [mean_probabilities(shifted_passes) for shifted_passes in passes]


def checked_finite(probabilities: np.ndarray) -> np.ndarray:
    """Return a classifier's probabilities; UserError where one is not finite: it would be taken for a missing frame."""
    if not np.isfinite(probabilities).all():
        count = int((~np.isfinite(probabilities)).sum())
        what = f"gives {count} of {probabilities.size} frames a probability that is not a number"
        raise UserError("the segmentation classifier", what, "its weights may be damaged: convert or train it again")
    return probabilities


def shifts(samples: int, inference_times: int) -> list[int]:
    """Return the shift of each pass; one beyond the recording's end counts as none, as in the original."""
    moved = [round(WINDOW_SECONDS * SAMPLE_RATE / inference_times * i) for i in range(inference_times)]
    return [0 if shift >= samples else shift for shift in moved]


def mean_probabilities(passes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of several passes over a recording, each filled where no window gave a frame a value."""
    total = np.zeros(len(passes[0]))
    for probabilities in passes:
        total += fill_missing(probabilities)
    return total / len(passes)


def fill_missing(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities whose NaN frames are the mean of those known within two frames, from left to right.

    Where nothing is known that near (the original fails), the nearest known frame counts; 0 where none is known.
    """
    filled = probabilities.copy()
    missing = np.flatnonzero(np.isnan(filled))
    known = np.flatnonzero(~np.isnan(filled))
    for frame in missing:
        near = filled[max(0, frame - 2) : frame + 3]
        if not np.isnan(near).all():
            filled[frame] = np.nanmean(near)
        elif len(known):
            filled[frame] = filled[known[np.abs(known - frame).argmin()]]
        else:
            filled[frame] = 0.0
    return filled
