"""Long recordings with the positions of their utterances, which the classifier is trained and measured on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from segment.methods.pdac import FRAME_RATE_HZ
from segment.probabilities.windows import frame_at
from submission.errors import UserError
from submission.runtime.audio import checked_length
from submission.text.corpus import read_corpus
from submission.text.segments import SAMPLE_RATE, read_segments


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRecording:
    """A recording and the positions of its utterances."""

    name: str
    path: Path
    samples: int
    utterances: tuple[tuple[int, int], ...]
    """(start, end) in samples, sorted; each position once, however many translations it has."""

    def labels(self) -> np.ndarray:
        """Return for every frame whether its middle lies inside an utterance, bool [frame_at(samples)]."""
        middles = (np.arange(frame_at(self.samples)) + 0.5) * (SAMPLE_RATE / FRAME_RATE_HZ)
        inside = np.zeros(len(middles), dtype=bool)
        for start, end in self.utterances:
            inside[np.searchsorted(middles, start) : np.searchsorted(middles, end)] = True
        return inside


def read_labelled(corpus: Path, audio_root: Path) -> list[LabelledRecording]:
    """Return the recordings of a corpus, sorted by name.

    corpus: a `corpus.jsonl`, a plain corpus's `utterances.tsv`, or a `segments.yaml` of the canonical form.
    audio_root: what its audio paths are relative to, but for audio that the corpus stage extracted beside corpus.jsonl.
    Raises UserError for audio that is missing or lies elsewhere, and for utterances that are empty or not within it.
    """
    positions = _positions(corpus)
    recordings = []
    for name in sorted(positions):
        path = _locate(name, audio_root, corpus)
        samples = checked_length(path)
        utterances = tuple(sorted({(start, samples if end is None else end) for start, end in positions[name]}))
        if wrong := [(start, end) for start, end in utterances if not 0 <= start < end <= samples]:
            raise UserError(
                str(corpus),
                f"{name}: an utterance lies at samples {wrong[0][0]} to {wrong[0][1]}, the recording has {samples}",
                "check that the corpus belongs to this audio",
            )
        recordings.append(
            LabelledRecording(name=_named(name, corpus), path=path, samples=samples, utterances=utterances)
        )
    if not recordings:
        raise UserError(str(corpus), "names no utterances", "give a corpus of long recordings")
    return recordings


def _named(name: str, corpus: Path) -> str:
    """Return an audio path as it is shown: of audio beside the corpus, relative to it."""
    return PurePosixPath(name).relative_to(corpus.parent.absolute()).as_posix() if _is_beside(name, corpus) else name


def _is_beside(name: str, corpus: Path) -> bool:
    """Return whether a path is that of audio which the corpus stage extracted beside its corpus.jsonl."""
    path = PurePosixPath(name)
    return path.is_absolute() and ".." not in path.parts and path.is_relative_to(corpus.parent.absolute())


def _locate(name: str, audio_root: Path, corpus: Path) -> Path:
    if _is_beside(name, corpus) and Path(name).is_file():
        return Path(name)
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise UserError(str(corpus), f"names {name}, which leaves the audio's folder", "write paths below --audio-root")
    path = audio_root / name
    if path.is_file():
        return path
    below = sorted(audio_root.rglob(Path(name).name))  # segments.yaml names files, not paths
    if len(below) == 1:
        return below[0]
    raise UserError(str(corpus), f"names {name}, which is not below {audio_root}", "correct --audio-root")


def _positions(corpus: Path) -> dict[str, set[tuple[int, int | None]]]:
    """Return audio path -> positions of its utterances; an end of None is the file's."""
    positions: dict[str, set[tuple[int, int | None]]] = {}
    readers = {".jsonl": _from_jsonl, ".tsv": _from_tsv, ".yaml": _from_yaml}
    if corpus.suffix not in readers:
        raise UserError(str(corpus), "is not a known corpus format", f"give one of {', '.join(readers)}")
    for audio, start, end in readers[corpus.suffix](corpus):
        positions.setdefault(audio, set()).add((start, end))
    return positions


def _from_jsonl(path: Path) -> Iterable[tuple[str, int, int | None]]:
    return ((u.audio, u.start, u.end) for u in read_corpus(path))


def _from_yaml(path: Path) -> Iterable[tuple[str, int, int | None]]:
    return ((s.recording, s.start, s.end) for s in read_segments(path))


def _from_tsv(path: Path) -> Iterable[tuple[str, int, int | None]]:
    """Yield audio, start, end of the plain layout; empty positions mean the whole file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"cannot be read as UTF-8 text ({error})", "check the path") from error
    lines = text.removesuffix("\n").split("\n")  # universal newlines; splitlines would cut at U+2028 too
    header = lines[0].split("\t")
    if not {"audio", "start", "end"} <= set(header):
        raise UserError(str(path), f"lacks the columns audio, start, end (has {header})", "give the plain layout")
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(header):
            what = f"expected {len(header)} cells as in the header, got {len(cells)}"
            raise UserError(f"{path} line {number}", what, "correct it")
        row = dict(zip(header, cells, strict=True))
        if not row["audio"]:
            raise UserError(f"{path} line {number}", "names no audio", "write its path below --audio-root")
        try:
            yield row["audio"], int(row["start"] or 0), int(row["end"]) if row["end"] else None
        except ValueError as error:
            raise UserError(f"{path} line {number}", f"no audio, start and end ({error})", "correct it") from error
