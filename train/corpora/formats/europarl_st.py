"""Read Europarl-ST v1.1, English speeches into other languages.

    en/audios/<speech>.m4a                  one file a speech, minutes long
    en/de/train/segments.lst                `<speech> <start> <end>` a line, in seconds: the third field is the END
    en/de/train/segments.en, segments.de    the text of each line of segments.lst

The corpus folder is the archive's `v1.1` or holds it. Each pair has segments of its own; where two pairs have the same
stretch they become one utterance with two translations. Only `train` is read: `dev` and `test` are for comparison with
other systems, and `train-noisy` is what the corpus' own filter removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal, DecimalException
from pathlib import Path
from typing import NamedTuple

from submission.errors import UserError
from submission.text.segments import SAMPLE_RATE
from train.corpora.formats.corpus_utterance import CorpusUtterance, Unparsed

FIX = "unpack Europarl-ST v1.1 as published"
LIMIT_SAMPLES = 1 << 63
"""No position is beyond it; converting a number of a million digits takes long."""


class _Stretch(NamedTuple):
    """A stretch of a speech, in samples at 16 kHz."""

    speech: str
    start: int
    end: int


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"cannot be read as UTF-8 text ({error})", FIX) from error


def _stretch(line: str) -> _Stretch | None:
    """Return the stretch that a line of segments.lst names, or None where it names no stretch of a speech."""
    fields = line.split()
    if len(fields) != 3 or "/" in fields[0] or fields[0].startswith("."):
        return None
    try:
        start, end = ((Decimal(field) * SAMPLE_RATE).to_integral_value(ROUND_HALF_UP) for field in fields[1:])
        if not 0 <= start < end < LIMIT_SAMPLES:
            return None
    except DecimalException:  # no number, NaN, or beyond what Decimal holds
        return None
    return _Stretch(fields[0], int(start), int(end))


def read(folder: Path, languages: Sequence[str]) -> Iterator[CorpusUtterance | Unparsed]:
    """Yield every training segment with its text in the languages that the corpus has."""
    root = folder if (folder / "en").is_dir() else folder / "v1.1"
    if not (root / "en/audios").is_dir() or next((root / "en").glob("*/train/segments.lst"), None) is None:
        raise UserError(str(folder), "holds no en/audios/ with en/*/train/segments.lst", FIX)
    place = (root / "en/audios").relative_to(folder).as_posix()
    sources: dict[_Stretch, str] = {}
    targets: dict[_Stretch, dict[str, str]] = {}
    for language in languages:
        part = root / "en" / language / "train"
        if not (part / "segments.lst").is_file():
            continue
        columns = [_lines(part / f"segments.{name}") for name in ("lst", "en", language)]
        if len({len(column) for column in columns}) > 1:
            counts = ", ".join(str(len(column)) for column in columns)
            what = f"segments.lst, .en and .{language} have {counts} lines"
            raise UserError(str(part), what, FIX)
        for number, (line, source, target) in enumerate(zip(*columns, strict=True), 1):
            where, stretch = f"en/{language}/train/segments.lst line {number}", _stretch(line)
            if stretch is None:
                why = f"{line!r}: expected a speech, its start and its end in seconds"
                yield Unparsed(id=where, why=why, languages=(language,))
            elif language in targets.get(stretch, {}):
                yield Unparsed(id=where, why=f"{line!r} again", reason="occurs twice", languages=(language,))
            else:
                sources.setdefault(stretch, source)
                targets.setdefault(stretch, {})[language] = target
    for stretch, translations in targets.items():
        yield CorpusUtterance(
            id=f"{stretch.speech}_{stretch.start:09d}_{stretch.end:09d}",
            audio=f"{place}/{stretch.speech}.m4a",
            start=stretch.start,
            end=stretch.end,
            recording=f"{stretch.speech}.m4a",
            source=sources[stretch],
            targets=translations,
        )
