"""Read the plain layout, for anyone's own data: `audio/` and a tab-separated `utterances.tsv`.

The header names the columns: id, audio, start, end, recording, source, and one per target language (de, zh, …).
start and end are integer samples at 16 kHz, empty for the whole file; audio is relative to `audio/`. There is no
quoting: a text holds neither tabs nor line feeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from submission.errors import UserError
from train.corpora.formats.corpus_utterance import CorpusUtterance, Unparsed

TABLE = "utterances.tsv"
COLUMNS = ("id", "audio", "start", "end", "recording", "source")


def read(folder: Path, languages: Sequence[str]) -> Iterator[CorpusUtterance | Unparsed]:
    """Yield the lines of `utterances.tsv` with the texts of the languages that it has."""
    path = folder / TABLE
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            str(path), f"cannot be read as UTF-8 text ({error})", "a plain corpus has this table"
        ) from error
    lines = text.removesuffix("\n").split("\n")  # universal newlines; splitlines would cut at U+2028 too
    header = lines[0].split("\t")
    missing = [name for name in COLUMNS if name not in header]
    if missing or len(set(header)) < len(header):
        raise UserError(
            f"{path} line 1",
            f"expected each of {', '.join(COLUMNS)} and a column per language once, got {header}",
            "write the header",
        )
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(header):
            yield Unparsed(id=f"{TABLE} line {number}", why=f"{len(cells)} columns, the header has {len(header)}")
        else:
            yield _candidate(dict(zip(header, cells, strict=True)), languages, f"{TABLE} line {number}")


def _candidate(row: dict[str, str], languages: Sequence[str], where: str) -> CorpusUtterance | Unparsed:
    audio = PurePosixPath(row["audio"])
    if not row["id"] or not row["audio"] or audio.is_absolute() or ".." in audio.parts:
        return Unparsed(
            id=where, why=f"id {row['id']!r}, audio {row['audio']!r}: expected a name and a path below audio/"
        )
    try:
        start, end = int(row["start"] or 0), int(row["end"]) if row["end"] else None
    except ValueError:
        return Unparsed(id=where, why=f"start {row['start']!r}, end {row['end']!r}: expected integer samples at 16 kHz")
    return CorpusUtterance(
        id=row["id"],
        audio=f"audio/{audio}",
        start=start,
        end=end,
        recording=row["recording"] or audio.name,
        source=row["source"],
        targets={language: row[language] for language in languages if language in row},
    )
