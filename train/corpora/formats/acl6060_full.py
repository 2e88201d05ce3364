"""Read one split of ACL 60/60 as stretches of its full recordings, which training a segmentation classifier needs.

    full_wavs/2022.acl-long.110.wav   one file a talk, named as the talk is in the xml
    segmented_wavs/gold, text         as in train.corpora.formats.acl6060, with the same utterances under the same ids

No time stamps are published, but the gold wavs are exact excerpts of the full ones, so an utterance's position is where
all its samples are found. Each excerpt is searched for after the one before, so that an excerpt of silence, which
matches in many places, stays in order; only one that is not found there is searched for from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from submission.errors import UserError
from submission.runtime.audio import read_audio
from train.corpora.formats import acl6060
from train.corpora.formats.corpus_utterance import CorpusUtterance

FULL = "full_wavs"


class _Talk:
    """A full recording, its samples as bytes: searching those in C is linear in time, whatever they are."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            what = "no such recording, though the xml has segments of it"
            raise UserError(str(path), what, f'unpack {FULL}, or read the gold wavs alone: format = "acl6060"')
        self.path = path
        self._samples = read_audio(path).tobytes()

    def find(self, cut: np.ndarray, begin: int) -> int | None:
        """Return the first sample from `begin` on where an excerpt, float32 [samples], is found; None if nowhere."""
        sought, width = cut.tobytes(), cut.itemsize
        at = self._samples.find(sought, begin * width)
        while at % width and at >= 0:  # between two samples
            at = self._samples.find(sought, at + 1)
        return at // width if at >= 0 else None


def read(folder: Path, languages: Sequence[str]) -> Iterator[CorpusUtterance]:
    """Yield every gold segment as a stretch of its talk; UserError for a gold wav that is no part of its talk."""
    talk, end = None, 0
    for candidate in acl6060.read(folder, languages):
        if talk is None or talk.path.name != candidate.recording:
            talk, end = _Talk(folder / FULL / candidate.recording), 0
        cut = read_audio(folder / candidate.audio)
        if not len(cut):
            raise UserError(str(folder / candidate.audio), "holds no sample", "unpack ACL 60/60 again")
        start = talk.find(cut, end)
        if start is None:
            start = talk.find(cut, 0)
        if start is None:
            what = f"its {len(cut)} samples are not found in {talk.path}"
            fix = 'take both from the same release, or read the gold wavs alone: format = "acl6060"'
            raise UserError(str(folder / candidate.audio), what, fix)
        end = start + len(cut)
        yield replace(candidate, audio=f"{FULL}/{candidate.recording}", start=start, end=end)
