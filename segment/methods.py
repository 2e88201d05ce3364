"""Ways to cut a recording, behind one interface, by the name that recipes use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from segment import fixed, pdac, windows
from submission.errors import UserError
from submission.recipe import SegmentOptions
from submission.segments import SAMPLE_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A recording's segments as (start, end) in samples, and what the method knows of its speech."""

    segments: tuple[tuple[int, int], ...]
    speech_seconds: float | None = None
    """Seconds that the method takes for speech; None where it does not listen."""
    dropped_seconds: float | None = None
    """Seconds of that speech outside every segment."""


class Method(Protocol):
    """Cuts one recording."""

    def __call__(self, path: Path, samples: int, tick: Callable[[float], None]) -> Cut:
        """Return the cut of a recording of so many samples; tick is told the seconds done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Equal lengths, without listening."""

    options: SegmentOptions

    def __call__(self, path: Path, samples: int, tick: Callable[[float], None]) -> Cut:
        longest, shortest = (int(s * SAMPLE_RATE) for s in (self.options.max_seconds, self.options.min_seconds))
        tick(samples / SAMPLE_RATE)
        return Cut(segments=tuple(fixed.cut_evenly(samples, longest, shortest)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shas:
    """The SHAS classifier and probabilistic divide-and-conquer."""

    options: SegmentOptions
    predict: windows.Predict

    def __call__(self, path: Path, samples: int, tick: Callable[[float], None]) -> Cut:
        from submission.runtime.audio import read_slice

        track = windows.probability_track(
            lambda start, end: _finite(read_slice(path, start, end), path, start),
            samples,
            self.predict,
            inference_times=self.options.inference_times,
            batch_size=self.options.batch_size,
            tick=tick,
        )
        return cut_track(track, samples, self.options)


def cut_track(track: np.ndarray, samples: int, options: SegmentOptions) -> Cut:
    """Return the segments of a probability track in samples; the last one ends with the recording at the latest."""
    limits = pdac.Limits(max_seconds=options.max_seconds, min_seconds=options.min_seconds, threshold=options.threshold)
    segments = pdac.split(track, limits)
    outside = pdac.speech_frames_outside(track, segments, options.threshold)
    return Cut(
        segments=tuple((windows.sample_at(a), min(windows.sample_at(b), samples)) for a, b in segments),
        speech_seconds=int((track >= options.threshold).sum()) / pdac.FRAME_RATE_HZ,
        dropped_seconds=outside / pdac.FRAME_RATE_HZ,
    )


def _finite(samples: np.ndarray, path: Path, start: int) -> np.ndarray:
    if not np.isfinite(samples).all():
        second = (start + int(np.flatnonzero(~np.isfinite(samples))[0])) / SAMPLE_RATE
        raise UserError(str(path), f"has samples that are no numbers, first at {second:.2f} s", "convert it again")
    return samples


def _fixed(options: SegmentOptions, classifier: Path) -> Method:
    return Fixed(options=options)


def _shas(options: SegmentOptions, classifier: Path) -> Method:
    import torch

    from segment.classifier import load_classifier

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Shas(options=options, predict=load_classifier(classifier, device).probabilities)


METHODS: dict[str, Callable[[SegmentOptions, Path], Method]] = {"shas": _shas, "fixed": _fixed}
"""Name in recipes -> what makes the method from the recipe's options and the classifier's folder."""
