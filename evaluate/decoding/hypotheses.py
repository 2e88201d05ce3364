"""`hypotheses.jsonl`: one segment's translation a line, with what went wrong in making it.

While a test set is decoded the file is a journal: lines come in the order of the work, each batch is brought to
the disk at once, and whatever a killed run left of its last line is cut off by the next. When the last segment is
done, the file is written anew in the order of the segments.

    {"flags": [], "segment": "talk1.wav/0003", "text": "Guten Tag."}

Where a failed segment was decoded again (`evaluate.decoding.fallbacks`), its line says also what became of that: `mended` names
the attempt whose text this is, empty where the plain one stayed; `original` is what plain decoding gave; `tried` is
what each attempt came to. Flags are those of the text that stands.
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
from submission.text.characters import plain_line

FLAGS = ("blank", "clipped", "dense", "fast", "loop", "missed", "too_short", "truncated")
"""blank: no text. clipped: the segment is longer than the encoder's window and was heard to its end only.
dense: compresses as only repetitions do. fast: more tokens than anybody can say in that time. loop: the same words four
times in a row. missed: blank, though the segment is long enough for speech. too_short: nothing of the segment would
reach the model, which was not asked. truncated: max_new_tokens ended it."""
PLAIN = {"flags", "segment", "text"}
MENDED = {"mended", "original", "tried"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A text that might stand for a segment."""

    flags: tuple[str, ...]
    """Some of FLAGS, sorted."""
    score: float
    """Mean log-probability per token under the plain model, in nats; see `Translator.score`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mend:
    """What became of a failed hypothesis that was decoded again."""

    kept: str
    """The attempt whose text stands now; empty where the plain one does."""
    text: str
    """What plain decoding gave."""
    original: Candidate
    tried: Mapping[str, Candidate]
    """Attempt -> what it came to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """A segment's translation."""

    segment: str
    """The segment's id, `talk1.wav/0003`."""
    text: str
    """One plain line: no line breaks, no control characters, no blanks around it."""
    flags: tuple[str, ...] = ()
    """Some of FLAGS, sorted: those of this text."""
    mend: Mend | None = None
    """Where it was decoded again; None for plain decoding."""

    @property
    def plain_flags(self) -> tuple[str, ...]:
        """The flags of what plain decoding gave, whether or not it stands."""
        return self.mend.original.flags if self.mend else self.flags


def make_hypothesis(segment: str, raw: str, flags: Iterable[str] = ()) -> Hypothesis:
    """Return the hypothesis of what the tokenizer gave: cleaned to one line, flagged `blank` where nothing is left."""
    text = plain_line(raw)
    return Hypothesis(segment=segment, text=text, flags=flag_text(text, flags))


def flag_text(text: str, flags: Iterable[str]) -> tuple[str, ...]:
    """Return flags as a hypothesis has them: sorted, with `blank` where there is no text."""
    return tuple(sorted({*flags, *(() if text else ("blank",))}))


def to_line(hypothesis: Hypothesis) -> str:
    """Return the line of a hypothesis, with its line feed."""
    record: dict[str, Any] = {"segment": hypothesis.segment, "text": hypothesis.text, "flags": hypothesis.flags}
    if (mend := hypothesis.mend) is not None:
        record["mended"] = mend.kept
        record["original"] = {"text": mend.text, "flags": mend.original.flags, "score": mend.original.score}
        record["tried"] = {name: {"flags": c.flags, "score": c.score} for name, c in mend.tried.items()}
    return json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n"


def parse_line(line: str) -> Hypothesis:
    """Return the hypothesis of a line; ValueError says what is wrong with it."""
    record: Any = json.loads(line)
    if not isinstance(record, dict) or record.keys() not in (PLAIN, PLAIN | MENDED):
        raise ValueError("expected an object with segment, text and flags")
    segment, text, flags = record["segment"], record["text"], record["flags"]
    if not (isinstance(segment, str) and isinstance(text, str) and isinstance(flags, list)):
        raise ValueError("expected segment and text as texts and flags as a list")
    if unknown := [flag for flag in flags if flag not in FLAGS]:
        raise ValueError(f"unknown flags {unknown}, expected some of {', '.join(FLAGS)}")
    if text != plain_line(text):
        raise ValueError("the text is not one plain line")
    mend = _parse_mend(record) if "mended" in record else None
    return Hypothesis(segment=segment, text=text, flags=tuple(flags), mend=mend)


def _parse_mend(record: dict[str, Any]) -> Mend:
    def candidate(entry: dict[str, Any]) -> Candidate:
        return Candidate(flags=tuple(entry["flags"]), score=float(entry["score"]))

    try:
        tried = {name: candidate(entry) for name, entry in record["tried"].items()}
        original, text = candidate(record["original"]), record["original"]["text"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("expected original and tried as objects with flags and score") from error
    if record["mended"] not in ("", *tried):
        raise ValueError(f"mended is {record['mended']!r}, which was not tried")
    return Mend(kept=record["mended"], text=text, original=original, tried=tried)


def read_hypotheses(path: Path) -> list[Hypothesis]:
    """Return the hypotheses of a finished file; UserError names the line that is none."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"cannot be read as UTF-8 text ({error})", "decode the test set again") from error
    hypotheses = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        try:
            hypotheses.append(parse_line(line))
        except ValueError as error:
            raise UserError(f"{path} line {number}", f"is no hypothesis ({error})", "decode it again") from error
    return hypotheses


def write_hypotheses(path: Path, hypotheses: Iterable[Hypothesis]) -> None:
    """Write a finished file, in the given order, aside and then into place by one rename."""
    write_text(path, "".join(map(to_line, hypotheses)))


def recover_journal(path: Path) -> dict[str, Hypothesis]:
    """Return the hypotheses of a journal by segment and cut off what a killed run left unfinished.

    Whatever follows the first line that is torn or spoilt is cut off with it: it will be decoded again. Of several
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
    """Append hypotheses to an open journal and bring them to the disk."""
    file.write("".join(map(to_line, hypotheses)))
    file.flush()
    os.fsync(file.fileno())
