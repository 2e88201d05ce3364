"""`corpus.jsonl`: one utterance a line, the file between corpora and every room that learns from them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from submission.errors import UserError
from submission.store.digests import write_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A segment with its text and one translation."""

    id: str
    audio: str
    """Path of the audio file, relative to the data folder."""
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


_TYPES = {field.name: int if field.type == "int" else str for field in fields(Utterance)}


def write_corpus(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write utterances in the given order, one JSON object a line."""
    write_text(path, "".join(json.dumps(asdict(u), ensure_ascii=False, sort_keys=True) + "\n" for u in utterances))


def read_corpus(path: Path) -> list[Utterance]:
    """Return the utterances of a file; UserError names the line that is not one."""
    utterances = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"cannot be read as UTF-8 text ({error})", "make the corpus again") from error
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, 1):
        try:
            record = json.loads(line)
            wrong = {name for name, kind in _TYPES.items() if type(record.get(name)) is not kind} | (
                record.keys() - _TYPES.keys()
            )
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} line {number}", f"not a JSON object ({error})", "make the corpus again") from error
        if wrong:
            raise UserError(
                f"{path} line {number}",
                f"missing, unknown or mistyped fields {sorted(wrong)}",
                f"give exactly {sorted(_TYPES)}",
            )
        utterances.append(Utterance(**record))
    return utterances
