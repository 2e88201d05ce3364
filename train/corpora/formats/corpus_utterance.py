"""An utterance as its corpus describes it, before its audio is checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedAudio:
    """An encoded audio file that is a value of a table."""

    table: str
    """Path of the parquet or arrow file, relative to the corpus folder."""
    column: str
    """Name of a column of bytes, or of a struct with the field `bytes`; `a.b` is field b of struct a."""
    row: int
    """From 0, counted through the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusUtterance:
    """An utterance that has not been checked."""

    id: str
    """Unique within the corpus, and the same wherever the corpus is stored."""
    audio: str
    """Path of the audio file, relative to the corpus folder; of embedded audio, the path that it is extracted to."""
    embedded: EmbeddedAudio | None = None
    start: int
    """First sample at 16 kHz."""
    end: int | None
    """Sample after the last; None for the end of the file."""
    recording: str
    source: str
    targets: dict[str, str]
    """Language -> translation; a language that the corpus does not have is not in it, an empty text is."""


def one_line(text: str | None) -> str:
    """Return a text with single blanks for all its white space, line breaks included; "" for None."""
    return " ".join((text or "").split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Unparsed:
    """A line of a corpus that is not an utterance."""

    id: str
    """Its position, `utterances.tsv line 7`."""
    why: str
    reason: str = "does not parse"
    """What it is counted under."""
    languages: tuple[str, ...] | None = None
    """The target languages that lose an utterance by it; None for all."""
