"""What a reader makes of a corpus, before anyone has looked at the audio."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An utterance as its corpus describes it."""

    id: str
    """Unique within the corpus, and the same wherever the corpus lies."""
    audio: str
    """Path of the audio file, relative to the corpus folder."""
    start: int
    """First sample at 16 kHz."""
    end: int | None
    """Sample after the last; None for the end of the file."""
    recording: str
    source: str
    targets: dict[str, str]
    """Language -> translation; a language that the corpus does not have is not in it, an empty text is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unparsed:
    """A line of a corpus that is not an utterance."""

    id: str
    """Where it stands, `utterances.tsv line 7`."""
    why: str
    reason: str = "does not parse"
    """What it is counted under."""
    languages: tuple[str, ...] | None = None
    """The target languages that lose an utterance by it; None for all."""
