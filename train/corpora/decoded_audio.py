"""Decode recordings that cannot be sliced by seeking once per run, into one memory-mapped file.

An m4a, or a file at another rate than 16 kHz, cannot be sought in by exact samples. A speech of Europarl-ST holds
dozens of utterances, batches need them in any order, and each would cost decoding the whole speech. So before the first
step every utterance that shares such a file is written to one file of raw float32 samples, as `read_slice` returns
them, which data workers map into memory. Not 16-bit and not flac: a resampler's output is float32, and training must
use the same samples. The file holds only what is trained or evaluated on, 64 kB a second; a clip that is a file by
itself is left out, since decoding it costs no more than its own length.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from submission.errors import UserError
from submission.runtime.audio import read_slice, seeks

SAMPLE_BYTES = 4

Place = tuple[str, int, int]
"""Audio file below the data folder, first sample, sample after the last."""


class DecodedAudio:
    """Samples of utterances: from the file of decoded recordings where it has them, else from the recording."""

    def __init__(self, data: Path, path: Path, places: Iterable[Place] = ()) -> None:
        """data: the data folder; path: the file that `decode` writes; places: those of all utterances."""
        self._data = data
        self._path = path
        self._samples: np.ndarray | None = None
        places = sorted(set(places))
        counts = Counter(audio for audio, _, _ in places)
        shared = {audio for audio, count in counts.items() if count > 1 and not seeks(data / audio)}
        self._offsets: dict[Place, int] = {}
        self.size_samples = 0
        for place in places:
            if place[0] in shared:
                self._offsets[place] = self.size_samples
                self.size_samples += place[2] - place[1]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_samples": None}  # a data worker maps the file itself: pickling a map copies it

    @property
    def _size_bytes(self) -> int:
        return self.size_samples * SAMPLE_BYTES

    def recordings(self) -> list[str]:
        """Return the recordings that are decoded once, sorted."""
        return sorted({audio for audio, _, _ in self._offsets})

    def read(self, audio: str, start: int, end: int) -> np.ndarray:
        """Return the samples that `read_slice` returns, float32 [end - start] at 16 kHz."""
        offset = self._offsets.get((audio, start, end))
        if offset is None:
            return read_slice(self._data / audio, start, end)
        if self._samples is None:
            self._samples = np.memmap(self._path, np.float32, "r", shape=(self.size_samples,))
        return np.array(self._samples[offset : offset + end - start])

    def decode(self, rank: int, processes: int, barrier: Callable[[], None], tick: Callable[[float], None]) -> None:
        """Write the file unless an earlier run completed it, each process its share of the recordings.

        barrier: returns once every process has called it; tick: called for each recording. Raises UserError where the
        disk has not enough space.
        """
        whole = not self._offsets or (self._path.is_file() and self._path.stat().st_size == self._size_bytes)
        barrier()  # no process writes while another still checks
        if whole:
            return
        partial = self._path.with_suffix(".partial")
        if rank == 0:
            self._allocate(partial)
        barrier()
        mine = set(self.recordings()[rank::processes])
        with partial.open("r+b") as file:
            last = ""
            for (audio, start, end), offset in self._offsets.items():
                if audio in mine:
                    file.seek(offset * SAMPLE_BYTES)
                    file.write(read_slice(self._data / audio, start, end).tobytes())
                    tick(float(audio != last))
                    last = audio
        barrier()
        if rank == 0:
            partial.replace(self._path)
        barrier()

    def _allocate(self, partial: Path) -> None:
        partial.unlink(missing_ok=True)
        free = shutil.disk_usage(partial.parent).free
        if free < self._size_bytes:
            what = f"has {free:,} bytes free, decoded recordings take {self._size_bytes:,} while fine-tuning runs"
            raise UserError(str(partial.parent), what, "free as much, or put the store elsewhere with --store")
        with partial.open("wb") as file:
            file.truncate(self._size_bytes)
