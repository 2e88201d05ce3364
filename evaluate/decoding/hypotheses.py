"""Read and write `hypotheses.jsonl`: one segment's translation a line, with flags for what looks wrong.

While a test set is decoded the file is a journal: lines are in the order of decoding, each batch is synced to disk
at once, and an incomplete last line of a killed run is removed by the next run. When the last segment is decoded, the
file is rewritten in the order of the segments.

    {"flags": [], "segment": "talk1.wav/0003", "text": "Guten Tag."}

Where a failed segment was decoded again (`evaluate.decoding.fallbacks`), its line also has `fallback`: the name of the
fallback whose text was kept, empty where the text of plain decoding was kept; `without_fallback`: text, flags and score
of plain decoding; `fallbacks_tried`: flags and score of each fallback. `flags` are those of the kept text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from submission.errors import UserError
from submission.store.digests import write_text
from submission.text.bounded_text import read_text
from submission.text.characters import plain_line

MOST_HYPOTHESES_BYTES = 256 << 20
"""A million segments."""
FLAGS = (
    "blank",
    "clipped",
    "compression_ratio",
    "empty_on_speech",
    "loop",
    "token_rate",
    "too_short",
    "truncated",
)
"""blank: no text. clipped: the segment is longer than the encoder's window; only its beginning was decoded.
compression_ratio: compresses as only repetitions do. empty_on_speech: blank, though the segment is long enough for
speech. loop: the same words four times in a row. token_rate: more tokens than can be spoken in that time. too_short:
the segment is shorter than one encoder frame and was not decoded. truncated: ended by max_new_tokens."""
FIELDS = {"flags", "segment", "text"}
FALLBACK_FIELDS = {"fallback", "fallbacks_tried", "without_fallback"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCandidate:
    """Flags and score of one decoding of a segment."""

    flags: tuple[str, ...]
    """Some of FLAGS, sorted."""
    score: float
    """Mean log-probability per token under the plain model, in nats; see `Translator.score`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackRecord:
    """How a failed hypothesis was decoded again, and which text was kept."""

    kept: str
    """The fallback whose text was kept; empty where the text of plain decoding was."""
    text: str
    """The text of plain decoding."""
    original: ScoredCandidate
    """Plain decoding."""
    tried: Mapping[str, ScoredCandidate]
    """Fallback -> its result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """A segment's translation."""

    segment: str
    """The segment's id, `talk1.wav/0003`."""
    text: str
    """One plain line: no line breaks, no control characters, no blanks around it."""
    flags: tuple[str, ...] = ()
    """Some of FLAGS, sorted: those of this text."""
    fallback: FallbackRecord | None = None
    """Where it was decoded again; None for plain decoding."""

    @property
    def plain_flags(self) -> tuple[str, ...]:
        """The flags of plain decoding, whether or not its text was kept."""
        return self.fallback.original.flags if self.fallback else self.flags


def make_hypothesis(segment: str, raw: str, flags: Iterable[str] = ()) -> Hypothesis:
    """Return a hypothesis: the tokenizer's text cleaned to one line, flagged `blank` where nothing is left."""
    text = plain_line(raw)
    return Hypothesis(segment=segment, text=text, flags=flag_text(text, flags))


def flag_text(text: str, flags: Iterable[str]) -> tuple[str, ...]:
    """Return flags as a hypothesis has them: sorted, with `blank` where there is no text."""
    return tuple(sorted({*flags, *(() if text else ("blank",))}))


def to_line(hypothesis: Hypothesis) -> str:
    """Return the line of a hypothesis, with its line feed."""
    record: dict[str, Any] = {"segment": hypothesis.segment, "text": hypothesis.text, "flags": hypothesis.flags}
    if (used := hypothesis.fallback) is not None:
        record["fallback"] = used.kept
        record["without_fallback"] = {"text": used.text, "flags": used.original.flags, "score": used.original.score}
        record["fallbacks_tried"] = {name: {"flags": c.flags, "score": c.score} for name, c in used.tried.items()}
    return json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n"


def parse_line(line: str) -> Hypothesis:
    """Return the hypothesis of a line; ValueError says what is wrong with it."""
    record: Any = json.loads(line)
    if not isinstance(record, dict) or record.keys() not in (FIELDS, FIELDS | FALLBACK_FIELDS):
        raise ValueError("expected an object with segment, text and flags")
    segment, text, flags = record["segment"], record["text"], record["flags"]
    if not (isinstance(segment, str) and isinstance(text, str) and isinstance(flags, list)):
        raise ValueError("expected segment and text as texts and flags as a list")
    if unknown := [flag for flag in flags if flag not in FLAGS]:
        raise ValueError(f"unknown flags {unknown}, expected some of {', '.join(FLAGS)}")
    if text != plain_line(text):
        raise ValueError("the text is not one plain line")
    fallback = _parse_fallback(record) if "fallback" in record else None
    return Hypothesis(segment=segment, text=text, flags=tuple(flags), fallback=fallback)


def _parse_fallback(record: dict[str, Any]) -> FallbackRecord:
    def candidate(entry: dict[str, Any]) -> ScoredCandidate:
        return ScoredCandidate(flags=tuple(entry["flags"]), score=float(entry["score"]))

    try:
        tried = {name: candidate(entry) for name, entry in record["fallbacks_tried"].items()}
        original, text = candidate(record["without_fallback"]), record["without_fallback"]["text"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("expected without_fallback and fallbacks_tried as objects with flags and score") from error
    if record["fallback"] not in ("", *tried):
        raise ValueError(f"fallback is {record['fallback']!r}, which is not in fallbacks_tried")
    return FallbackRecord(kept=record["fallback"], text=text, original=original, tried=tried)


def read_hypotheses(path: Path) -> list[Hypothesis]:
    """Return the hypotheses of a finished file; UserError names the first invalid line."""
    text = read_text(path, "decode the test set again", MOST_HYPOTHESES_BYTES)
    hypotheses = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        try:
            hypotheses.append(parse_line(line))
        except ValueError as error:
            raise UserError(f"{path} line {number}", f"is not a hypothesis ({error})", "decode it again") from error
    return hypotheses


def write_hypotheses(path: Path, hypotheses: Iterable[Hypothesis]) -> None:
    """Write a finished file in the given order, atomically."""
    write_text(path, "".join(map(to_line, hypotheses)))


def recover_journal(path: Path) -> dict[str, Hypothesis]:
    """Return the hypotheses of a journal by segment and truncate the file after the last intact line.

    Everything from the first incomplete or invalid line on is removed: it will be decoded again. Of several
    hypotheses of one segment the last counts. A missing file is an empty journal.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    done: dict[str, Hypothesis] = {}
    intact = 0
    for line in data.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                break
            hypothesis = parse_line(line.decode("utf-8"))
        except ValueError:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            break
        done[hypothesis.segment] = hypothesis
        intact += len(line)
    if intact < len(data):
        os.truncate(path, intact)
    return done


def append(file: IO[str], hypotheses: Sequence[Hypothesis]) -> None:
    """Append hypotheses to an open journal and sync it to disk."""
    file.write("".join(map(to_line, hypotheses)))
    file.flush()
    os.fsync(file.fileno())
