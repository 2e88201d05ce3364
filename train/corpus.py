"""From corpora in their own layouts to `train.jsonl` and `dev.jsonl`: what to train on, drawn and checked.

The sample is drawn in the order of a hash over seed, corpus and utterance id. That order knows nothing of the order
of files or lines, and a longer sample begins with the shorter one. Utterances are checked as they are drawn, so a
corpus of a million clips is not decoded for a sample of thousands. Both languages follow the same order, so they
share their audio as far as both have a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submission.corpus import Utterance, write_corpus
from submission.digest import canonical_json, write_text
from submission.errors import UserError
from submission.progress import progress
from submission.recipe import CorpusOptions
from submission.runtime.audio import duration_samples
from submission.segments import SAMPLE_RATE
from train.readers import Reader, acl6060, reader_of
from train.readers.candidate import Candidate, Unparsed

SHORTEST_SECONDS = 0.2
"""Below this there is no word to translate; it is also what segmentation leaves out."""
DEV_FOLDER = "acl_6060/dev"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Where one corpus lies and who reads it."""

    name: str
    folder: str
    """Relative to the data folder."""
    read: Reader


@dataclass(slots=True)
class Draw:
    """Utterances taken and left out so far; one utterance counts once per target language."""

    taken: dict[str, list[Utterance]]
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> `corpus/id`, with the language where only one is meant."""

    def skip(self, reason: str, name: str) -> None:
        self.skipped.setdefault(reason, []).append(name)

    @property
    def skipped_count(self) -> int:
        return sum(len(names) for names in self.skipped.values())

    @property
    def examined_count(self) -> int:
        return self.skipped_count + sum(len(utterances) for utterances in self.taken.values())


def _rank(seed: int, corpus: str, utterance: str) -> bytes:
    """Return where an utterance stands in the drawing order."""
    return hashlib.sha256(f"{seed}\0{corpus}\0{utterance}".encode()).digest()


def _positions(candidate: Candidate, audio: Path, window_seconds: float) -> tuple[int, int] | str:
    """Return the utterance's first sample and the one after its last, or the reason why it cannot be used."""
    if not audio.is_file():
        return "audio missing"
    try:
        length = duration_samples(audio)
    except UserError:
        return "audio unreadable"
    end = length if candidate.end is None else candidate.end
    if length == 0 or (candidate.end is None and end <= candidate.start):
        return "audio empty"
    if not 0 <= candidate.start < end <= length:
        return "outside the recording"
    samples = end - candidate.start
    if samples > window_seconds * SAMPLE_RATE:
        return f"longer than the encoder's {window_seconds:g} s"
    if samples < SHORTEST_SECONDS * SAMPLE_RATE:
        return f"shorter than {SHORTEST_SECONDS:g} s"
    return candidate.start, end


def _read_all(corpora: Sequence[Corpus], data: Path, languages: Sequence[str], seed: int) -> list[tuple]:
    """Return (corpus, candidate) for every utterance of the corpora, in drawing order."""
    ranked = {}
    for corpus in corpora:
        for candidate in corpus.read(data / corpus.folder, languages):
            if (corpus.name, candidate.id) in ranked:
                raise UserError(f"corpus {corpus.name}", f"id {candidate.id!r} occurs twice", "give each its own id")
            ranked[corpus.name, candidate.id] = (_rank(seed, corpus.name, candidate.id), corpus, candidate)
    return [(corpus, candidate) for _, corpus, candidate in sorted(ranked.values(), key=lambda entry: entry[0])]


def draw(
    corpora: Sequence[Corpus], data: Path, wanted: dict[str, int], seed: int, window_seconds: float, label: str
) -> Draw:
    """Take utterances per target language until there are as many as wanted (0: all there are).

    wanted: language -> number. Returns what was taken, sorted by id, and what was left out, by reason.
    """
    result = Draw(taken={language: [] for language in wanted})
    candidates = _read_all(corpora, data, list(wanted), seed)
    total = sum(count or len(candidates) for count in wanted.values())
    with progress(label, total, "utterances") as tick:
        for corpus, candidate in candidates:
            open_languages = [x for x, count in wanted.items() if not count or len(result.taken[x]) < count]
            if not open_languages:
                break
            before = result.examined_count
            _examine(result, corpus, candidate, data, open_languages, window_seconds)
            tick(result.examined_count - before)
    for utterances in result.taken.values():
        utterances.sort(key=lambda utterance: utterance.id)
    for names in result.skipped.values():
        names.sort()
    return result


def _examine(
    result: Draw, corpus: Corpus, candidate: Candidate | Unparsed, data: Path, languages: list[str], window: float
) -> None:
    """Take or leave out one utterance in each of the languages that still want it."""
    name = f"{corpus.name}/{candidate.id}"
    if isinstance(candidate, Unparsed):
        for language in languages:
            result.skip("does not parse", f"{name} {language}: {candidate.why}")
        return
    languages = [language for language in languages if language in candidate.targets]
    if not languages:
        return
    audio = f"{corpus.folder}/{candidate.audio}"
    positions = _positions(candidate, data / audio, window)
    for language in languages:
        if isinstance(positions, str):
            result.skip(positions, f"{name} {language}")
        elif not candidate.source.strip() or not candidate.targets[language].strip():
            result.skip("text empty", f"{name} {language}")
        else:
            result.taken[language].append(
                Utterance(
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
            )


def check(result: Draw, wanted: dict[str, int], max_skipped_share: float, what: str) -> None:
    """Raise UserError where too much was left out or too little is there."""
    share = result.skipped_count / max(result.examined_count, 1)
    if share > max_skipped_share:
        reasons = "\n".join(f"  {reason}: {len(n)}, e.g. {n[0]}" for reason, n in sorted(result.skipped.items()))
        raise UserError(
            f"{what}",
            f"{result.skipped_count} of {result.examined_count} utterances ({share:.1%}) cannot be used, allowed are "
            f"{max_skipped_share:.1%}:\n{reasons}\n",
            "mend the data, or raise corpus.max_skipped_share in the recipe",
        )
    for language, count in wanted.items():
        found = len(result.taken[language])
        if not found or found < count:
            raise UserError(
                f"{what}, target language {language}",
                f"holds {found} usable utterances, the recipe asks for {count or 'all, at least one'}",
                "lower corpus.utterances in the recipe (0 takes all there are), or add a corpus",
            )


def _describe(result: Draw, wanted: dict[str, int]) -> dict[str, Any]:
    """Return counts, hours and what was left out, for report.json."""
    languages = {}
    for language, utterances in result.taken.items():
        samples = sum(u.end - u.start for u in utterances)
        languages[language] = {
            "asked": wanted[language] or "all",
            "utterances": len(utterances),
            "hours": round(samples / SAMPLE_RATE / 3600, 4),
        }
    return {
        "languages": languages,
        "examined": result.examined_count,
        "skipped": {reason: {"count": len(names), "utterances": names} for reason, names in result.skipped.items()},
    }


def _interleaved(result: Draw) -> list[Utterance]:
    """Return an utterance's languages beside each other, so that readers meet each audio once."""
    return sorted((u for us in result.taken.values() for u in us), key=lambda u: (u.id, u.target_lang))


def build_corpus(
    data: Path, options: CorpusOptions, languages: Iterable[str], window_seconds: float, out: Path
) -> dict[str, Any]:
    """Write train.jsonl, dev.jsonl (all of ACL 60/60 dev) and report.json into `out`; return the report.

    languages: the campaign's target languages. Raises UserError for layouts that nothing reads, for corpora that hold
    fewer utterances than the recipe asks for, and where more than options.max_skipped_share cannot be used.
    """
    languages = sorted(languages)
    corpora = [Corpus(name=s.name, folder=f"corpora/{s.name}", read=reader_of(s.format)) for s in options.sources]
    dev = Corpus(name="acl6060-dev", folder=DEV_FOLDER, read=acl6060.read)
    report = {}
    for part, sources, wanted in (
        ("train", corpora, {language: options.utterances[language] for language in languages}),
        ("dev", [dev], dict.fromkeys(languages, 0)),
    ):
        drawn = draw(sources, data, wanted, options.seed, window_seconds, f"corpus {part}")
        names = ", ".join(corpus.name for corpus in sources)
        check(drawn, wanted, options.max_skipped_share, f"corpus {part} ({names})")
        write_corpus(out / f"{part}.jsonl", _interleaved(drawn))
        report[part] = _describe(drawn, wanted)
    write_text(out / "report.json", canonical_json(report))
    return report
