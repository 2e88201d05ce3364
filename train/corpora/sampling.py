"""Sample utterances from corpora in the order of a hash, and check each as it is sampled.

The hash is over seed, corpus and utterance id, so the order does not depend on that of files or lines, and a longer
sample begins with the shorter one. Utterances are checked, and their audio is read, as they are sampled: a corpus of a
million clips is not decoded for a sample of thousands, and no damaged clip stops the training later. All languages
follow the same order, so they share their audio as far as they have a text.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from submission.errors import UserError
from submission.progress import progress
from submission.runtime.audio import channel_sound, checked_length
from submission.runtime.audio_header import UnusableAudio
from submission.text.corpus import BESIDE, Utterance, audio_path
from submission.text.segments import SAMPLE_RATE
from train.corpora.embedded_audio import EXTRACTED, extract_audio
from train.corpora.formats import Reader
from train.corpora.formats.corpus_utterance import CorpusUtterance, Unparsed

SHORTEST_SECONDS = 0.2
"""Shorter utterances hold no word to translate; segmentation leaves them out too."""
OVERHANG_SECONDS = 0.1
"""An end up to this far behind the recording's is a rounding error, and is moved to it."""
LEAST_EXTRACTED = 1000
"""Extraction passes over the corpus' files, so never for fewer candidates than this at once."""

_Positions = tuple[int, int] | str
"""An utterance's first sample and the one after its last, or the reason why it cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """One corpus: its folder, its reader and its share of the sample."""

    name: str
    folder: str
    """Relative to the data folder."""
    read: Reader
    quota: Mapping[str, int] = field(default_factory=dict)
    """Target language -> how many of its utterances come from here; the other corpora share the rest."""


@dataclass(slots=True)
class CorpusSample:
    """Utterances taken and left out so far; one utterance counts once per target language."""

    taken: dict[str, list[Utterance]]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(language, corpus) -> utterances taken."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> `corpus/id`, with the language where only one is meant."""
    clipped: set[str] = field(default_factory=set)
    """Utterances whose end was moved to the end of their recording, as `corpus/id`."""
    recordings: dict[Path, int | str] = field(default_factory=dict)
    """Audio file -> its samples, or the reason why it cannot be used; each recording is decoded at most once."""
    unusable: dict[str, str] = field(default_factory=dict)
    """Audio file that cannot be used -> what is wrong with it."""
    cancelled: dict[Path, float] = field(default_factory=dict)
    """Audio file whose channels cancel out in their mean, which is trained on -> for how many seconds."""

    def skip(self, reason: str, name: str) -> None:
        """Note an utterance that is not taken, `corpus/id`, under the reason."""
        self.skipped.setdefault(reason, []).append(name)

    @property
    def skipped_count(self) -> int:
        """How many utterances were skipped."""
        return sum(len(names) for names in self.skipped.values())

    @property
    def examined_count(self) -> int:
        """How many utterances were skipped or taken."""
        return self.skipped_count + sum(len(utterances) for utterances in self.taken.values())


class Quota:
    """How many utterances of each language may still be taken from each corpus."""

    def __init__(self, corpora: Sequence[Corpus], wanted: Mapping[str, int]) -> None:
        """wanted: language -> number in all, 0 for all there are."""
        self._left: dict[tuple[str, str], int | None] = {}
        self._share: dict[tuple[str, str], tuple[str, str]] = {}
        for language, total in wanted.items():
            rest = total - sum(corpus.quota.get(language, 0) for corpus in corpora)
            for corpus in corpora:
                own = corpus.quota.get(language)
                share = (language, "" if own is None else corpus.name)
                self._share[language, corpus.name] = share
                self._left[share] = own if own is not None else (rest if total else None)

    def open_languages(self, corpus: str) -> list[str]:
        """Return the languages of which more may be taken from a corpus."""
        return [
            language for (language, name), share in self._share.items() if name == corpus and self._left[share] != 0
        ]

    def take(self, language: str, corpus: str) -> None:
        """Count one utterance as taken."""
        share = self._share[language, corpus]
        left = self._left[share]
        self._left[share] = None if left is None else left - 1

    @property
    def full(self) -> bool:
        """Whether no more are to be taken of any language."""
        return not any(left != 0 for left in self._left.values())

    def most_left(self, corpus: str) -> int | None:
        """Return how many utterances of a corpus may still be needed, at least; None for all of them."""
        left = [self._left[share] for (_, name), share in self._share.items() if name == corpus]
        numbers = [number for number in left if number is not None]
        return max(numbers, default=0) if len(numbers) == len(left) else None


def rank(seed: int, corpus: str, name: str) -> bytes:
    """Return the sort key of an utterance, or of a recording, in the order of sampling."""
    return hashlib.sha256(f"{seed}\0{corpus}\0{name}".encode()).digest()


def _check_audio(audio: Path, result: CorpusSample) -> int | str:
    """Return a recording's samples, or the reason why it cannot be used."""
    if not audio.is_file():
        return "audio missing"
    try:
        length = checked_length(audio)
        if lost := channel_sound(audio).lacking(None):
            result.cancelled[audio] = lost
        return length
    except UnusableAudio as error:
        result.unusable[str(audio)] = error.what
        return error.reason


def _positions(candidate: CorpusUtterance, audio: Path, result: CorpusSample, window: float) -> _Positions:
    """Return the utterance's first sample and the one after its last, or the reason why it cannot be used."""
    if audio not in result.recordings:
        result.recordings[audio] = _check_audio(audio, result)
    length = result.recordings[audio]
    return length if isinstance(length, str) else _positions_within(candidate, length, window)


def _positions_within(candidate: CorpusUtterance, length: int, window_seconds: float) -> _Positions:
    """Return an utterance's positions in a recording of `length` samples, or why it has none."""
    end = length if candidate.end is None else candidate.end
    if length < end <= length + OVERHANG_SECONDS * SAMPLE_RATE:
        end = length
    if candidate.end is None and end <= candidate.start:
        return "audio empty"
    if not 0 <= candidate.start < end <= length:
        return "outside the recording"
    samples = end - candidate.start
    if samples > window_seconds * SAMPLE_RATE:
        return f"longer than the encoder's {window_seconds:g} s"
    if samples < SHORTEST_SECONDS * SAMPLE_RATE:
        return f"shorter than {SHORTEST_SECONDS:g} s"
    return candidate.start, end


def _read_all(
    corpora: Sequence[Corpus], data: Path, languages: Sequence[str], seed: int
) -> list[tuple[Corpus, CorpusUtterance | Unparsed]]:
    """Return (corpus, candidate) for every utterance of the corpora, in the order of sampling."""
    ranked = {}
    for corpus in corpora:
        for candidate in corpus.read(data / corpus.folder, languages):
            if (corpus.name, candidate.id) in ranked:
                raise UserError(f"corpus {corpus.name}", f"id {candidate.id!r} occurs twice", "give each its own id")
            ranked[corpus.name, candidate.id] = (rank(seed, corpus.name, candidate.id), corpus, candidate)
    return [(corpus, candidate) for _, corpus, candidate in sorted(ranked.values(), key=lambda entry: entry[0])]


def sample_utterances(
    corpora: Sequence[Corpus],
    data: Path,
    wanted: Mapping[str, int],
    *,
    seed: int,
    window_seconds: float,
    out: Path,
    label: str,
    allow_fewer: bool = False,
) -> CorpusSample:
    """Take utterances per target language until there are as many as wanted (0: all there are).

    wanted: language -> number; out: the folder of corpus.jsonl, below which embedded audio is extracted. Returns what
    was taken, sorted by id, and what was left out, by reason. Raises UserError, before any audio is read, where the
    corpora's tables hold fewer than wanted of a language, unless allow_fewer, or none.
    """
    result = CorpusSample(taken={language: [] for language in wanted})
    candidates = _read_all(corpora, data, list(wanted), seed)
    _refuse_too_few(corpora, candidates, wanted, allow_fewer, label)
    quota = Quota(corpora, wanted)
    audio = AudioFiles(data, out, candidates)
    total = sum(count or len(candidates) for count in wanted.values())
    with progress(label, total, "utterances") as tick:
        for index, (corpus, candidate) in enumerate(candidates):
            if quota.full:
                break
            before = result.examined_count
            _examine(result, corpus, candidate, audio, index, quota, window_seconds)
            tick(result.examined_count - before)
    for utterances in result.taken.values():
        utterances.sort(key=lambda utterance: utterance.id)
    for names in result.skipped.values():
        names.sort()
    return result


def _refuse_too_few(
    corpora: Sequence[Corpus],
    candidates: Sequence[tuple[Corpus, CorpusUtterance | Unparsed]],
    wanted: Mapping[str, int],
    allow_fewer: bool,
    label: str,
) -> None:
    """Raise UserError where the tables alone show that there are not enough utterances of a language."""
    counts: Counter[tuple[str, str]] = Counter()
    for corpus, candidate in candidates:
        for language in wanted.keys() if isinstance(candidate, Unparsed) else candidate.targets.keys():
            counts[language, corpus.name] += 1
    for language, total in wanted.items():
        by_corpus = {corpus.name: counts[language, corpus.name] for corpus in corpora}
        shares = [(f" of {c.name}", c.quota[language], by_corpus[c.name]) for c in corpora if language in c.quota]
        for name, requested, found in [*shares, ("", total, sum(by_corpus.values()))]:
            if not found or (found < requested and not allow_fewer):
                listed = ", ".join(f"{corpus}: {count:,}" for corpus, count in by_corpus.items())
                what = f"the tables list {found:,} utterances ({listed}), the recipe requests {requested or 'all'}"
                raise UserError(f"{label}, target language {language}{name}", what, too_few_fix(found, allow_fewer))


def too_few_fix(found: int, allow_fewer: bool) -> str:
    """Return what to do about a language of which there are too few utterances; found: how many there are."""
    if not found:
        return "complete the corpus, add one that has this language, or take the language out of corpus.utterances"
    fix = "complete the corpus, lower the number in the recipe (0 takes all there are), or add a corpus"
    return fix if allow_fewer else f"{fix}; or write corpus.allow_fewer = true"


class AudioFiles:
    """The audio file of each candidate; embedded audio is extracted for many candidates at a time."""

    def __init__(self, data: Path, out: Path, candidates: Sequence[tuple[Corpus, CorpusUtterance | Unparsed]]) -> None:
        self._data = data
        self._out = out
        self._candidates = candidates

    def name(self, corpus: Corpus, candidate: CorpusUtterance) -> str:
        """Return the path as corpus.jsonl has it: below the data folder or, of embedded audio, beside corpus.jsonl."""
        if candidate.embedded is not None:
            return f"{BESIDE}{EXTRACTED}/{corpus.name}/{candidate.audio}"
        return (PurePosixPath(corpus.folder) / candidate.audio).as_posix()

    def path(self, index: int, corpus: Corpus, candidate: CorpusUtterance, quota: Quota) -> Path:
        """Return the file of the candidate at an index; if it is to be extracted, those that may follow are too."""
        path = audio_path(self.name(corpus, candidate), self._data, self._out)
        if candidate.embedded is not None and not path.is_file():
            self._extract(index, corpus, quota.most_left(corpus.name))
        return path

    def _extract(self, index: int, corpus: Corpus, count: int | None) -> None:
        """Extract the audio of as many candidates of a corpus as its quota has left, in one pass over its files."""
        rest = (c for other, c in itertools.islice(self._candidates, index, None) if other is corpus)
        embedded = ((c.embedded, c) for c in rest if isinstance(c, CorpusUtterance) and c.embedded is not None)
        wanted = {
            value: audio_path(self.name(corpus, candidate), self._data, self._out)
            for value, candidate in itertools.islice(embedded, None if count is None else max(count, LEAST_EXTRACTED))
        }
        extract_audio(self._data / corpus.folder, wanted)


def _examine(
    result: CorpusSample,
    corpus: Corpus,
    candidate: CorpusUtterance | Unparsed,
    audio: AudioFiles,
    index: int,
    quota: Quota,
    window: float,
) -> None:
    """Take or leave out one utterance in each of the languages of which more may be taken from its corpus."""
    name, languages = f"{corpus.name}/{candidate.id}", quota.open_languages(corpus.name)
    if isinstance(candidate, Unparsed):
        for language in languages:
            if candidate.languages is None or language in candidate.languages:
                result.skip(candidate.reason, f"{name} {language}: {candidate.why}")
        return
    languages = [language for language in languages if language in candidate.targets]
    if not languages:
        return
    positions = _positions(candidate, audio.path(index, corpus, candidate, quota), result, window)
    for language in languages:
        if isinstance(positions, str):
            result.skip(positions, f"{name} {language}")
        elif not candidate.source.strip() or not candidate.targets[language].strip():
            result.skip("text empty", f"{name} {language}")
        else:
            result.taken[language].append(
                _utterance(name, audio.name(corpus, candidate), positions, candidate, language)
            )
            result.counts[language, corpus.name] += 1
            quota.take(language, corpus.name)
            if candidate.end is not None and positions[1] < candidate.end:
                result.clipped.add(name)


def _utterance(
    name: str, audio: str, positions: tuple[int, int], candidate: CorpusUtterance, language: str
) -> Utterance:
    return Utterance(
        id=name,
        audio=audio,
        start=positions[0],
        end=positions[1],
        source=candidate.source.strip(),
        target=candidate.targets[language].strip(),
        source_lang="en",
        target_lang=language,
        recording=candidate.recording,
    )
