"""`hypotheses.jsonl`: one segment's translation a line, with what went wrong in making it.

While a test set is decoded the file is a journal: lines come in the order of the work, each batch is brought to
the disk at once, and whatever a killed run left of its last line is cut off by the next. When the last segment is
done, the file is written anew in the order of the segments.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from submission.checks.characters import plain_line
from submission.digest import write_text
from submission.errors import UserError

FLAGS = ("blank", "clipped", "too_short", "truncated")
"""blank: no text. clipped: the segment is longer than the encoder's window and was heard to its end only.
too_short: nothing of the segment would reach the model, which was not asked. truncated: max_new_tokens ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """A segment's translation."""

    segment: str
    """The segment's id, `talk1.wav/0003`."""
    text: str
    """One plain line: no line breaks, no control characters, no blanks around it."""
    flags: tuple[str, ...] = ()
    """Some of FLAGS, sorted."""


def make_hypothesis(segment: str, raw: str, flags: Iterable[str] = ()) -> Hypothesis:
    """Return the hypothesis of what the tokenizer gave: cleaned to one line, flagged `blank` where nothing is left."""
    text = plain_line(raw)
    return Hypothesis(segment=segment, text=text, flags=tuple(sorted({*flags, *(() if text else ("blank",))})))


def to_line(hypothesis: Hypothesis) -> str:
    """Return the line of a hypothesis, with its line feed."""
    return json.dumps(asdict(hypothesis), ensure_ascii=False, sort_keys=True) + "\n"


def parse_line(line: str) -> Hypothesis:
    """Return the hypothesis of a line; ValueError says what is wrong with it."""
    record: Any = json.loads(line)
    if not isinstance(record, dict) or record.keys() != {"segment", "text", "flags"}:
        raise ValueError("expected an object with segment, text and flags")
    segment, text, flags = record["segment"], record["text"], record["flags"]
    if not (isinstance(segment, str) and isinstance(text, str) and isinstance(flags, list)):
        raise ValueError("expected segment and text as texts and flags as a list")
    if unknown := [flag for flag in flags if flag not in FLAGS]:
        raise ValueError(f"unknown flags {unknown}, expected some of {', '.join(FLAGS)}")
    if text != plain_line(text):
        raise ValueError("the text is not one plain line")
    return Hypothesis(segment=segment, text=text, flags=tuple(flags))


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
