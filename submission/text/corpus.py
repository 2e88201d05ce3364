"""Read and write `corpus.jsonl`: one utterance a line, between corpora and every package that trains on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from submission.errors import UserError
from submission.store.digests import write_text

BESIDE = "./"
"""Beginning of audio paths in the file that are relative to its own folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A segment with its text and one translation."""

    id: str
    audio: str
    """Path of the audio file, relative to the data folder; absolute where the file's own folder holds it."""
    start: int
    """First sample at 16 kHz."""
    end: int
    """Sample after the last, at 16 kHz."""
    source: str
    target: str
    source_lang: str
    target_lang: str
    recording: str
    """Name of the recording that the utterance belongs to; utterances of one recording share it."""

    @property
    def stretch(self) -> tuple[str, int, int]:
        """Its audio: file, first sample, sample after the last; the same for every translation."""
        return self.audio, self.start, self.end

    @property
    def pair(self) -> str:
        """Its languages: `en-de`."""
        return f"{self.source_lang}-{self.target_lang}"


_TYPES = {field.name: int if field.type == "int" else str for field in fields(Utterance)}


def write_corpus(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write utterances in the given order, one JSON object a line."""
    write_text(path, "".join(json.dumps(asdict(u), ensure_ascii=False, sort_keys=True) + "\n" for u in utterances))


def audio_path(audio: str, data: Path, corpus: Path) -> Path:
    """Return the audio file that a path in corpus.jsonl means; corpus: the folder of corpus.jsonl."""
    return corpus / audio.removeprefix(BESIDE) if audio.startswith(BESIDE) else data / audio


def read_corpus(path: Path) -> list[Utterance]:
    """Return the utterances of a file; UserError names the line that is not one."""
    return list(iterate_corpus(path))


def iterate_corpus(path: Path) -> Iterator[Utterance]:
    """Yield the utterances of a file in order, one in memory at a time; UserError names the line that is not one."""
    folder = path.parent.absolute()
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                utterance = _parsed(line.removesuffix("\n"), f"{path} line {number}")
                if utterance.audio.startswith(BESIDE):
                    utterance = replace(utterance, audio=str(audio_path(utterance.audio, folder, folder)))
                yield utterance
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"cannot be read as UTF-8 text ({error})", "build the corpus again") from error


def _parsed(line: str, where: str) -> Utterance:
    try:
        record = json.loads(line)
        wrong = {name for name, kind in _TYPES.items() if type(record.get(name)) is not kind} | (
            record.keys() - _TYPES.keys()
        )
    except (ValueError, AttributeError) as error:
        raise UserError(where, f"not a JSON object ({error})", "build the corpus again") from error
    if wrong:
        what = f"missing, unknown or mistyped fields {sorted(wrong)}"
        raise UserError(where, what, f"give exactly {sorted(_TYPES)}")
    return Utterance(**record)
