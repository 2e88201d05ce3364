r"""Read CoVoST 2, English into other languages, over the clips of Common Voice 4.

    covost_v2.en_de.tsv          as published: path, translation, split; the English is in Common Voice's validated.tsv
    covost_v2.en_de.train.tsv    as CoVoST's own script splits it: path, sentence, translation, client_id
    clips/*.mp3                  of Common Voice; tables and clips are in the corpus folder or in its `en/`

The tables have no quoting. A backslash escapes the character after it, a tab or a line feed
included, as in pandas with `escapechar`, by which they are written. Only the training split is read: in the published
form the rows of `train` and `train_covost`. Chinese is `zh-CN` there, Swedish `sv-SE`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from submission.errors import UserError
from submission.system.corpus_formats import CORPUS_FORMATS
from train.corpora.formats.corpus_utterance import CorpusUtterance, Unparsed, one_line

TRAIN_SPLITS = ("train", "train_covost")
VALIDATED = "validated.tsv"
FIX = "lay out CoVoST 2 and Common Voice 4 as docs/training.md shows"
_CELL = re.compile(r"(?:[^\t\\]|\\.|\\$)*", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    where: str
    """`covost_v2.en_de.tsv line 7`"""
    cells: dict[str, str] | None
    """Column -> text; None where the line has not as many cells as the header."""
    found: int
    """How many cells the line has."""


def split_cells(line: str) -> list[str]:
    r"""Return the cells of a line without its line feed: cut at tabs that no backslash precedes, escapes undone."""
    if "\\" not in line:
        return line.split("\t")
    cells, position = [], 0
    while position <= len(line):
        match = _CELL.match(line, position)
        assert match is not None  # an empty cell matches too
        cells.append(_ESCAPE.sub(r"\1", match[0]))
        position = match.end() + 1
    return cells


def _logical_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of every line, an escaped line feed within it."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            begun, number = "", 1
            for count, physical in enumerate(file, 1):
                line = begun + physical.removesuffix("\n").removesuffix("\r")
                if (len(line) - len(line.rstrip("\\"))) % 2:
                    begun = line + "\n"
                    continue
                yield number, line
                begun, number = "", count + 1
            if begun:
                yield number, begun.removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"cannot be read as UTF-8 text ({error})", FIX) from error


def _rows(path: Path, columns: Sequence[str]) -> Iterator[_Row]:
    """Yield the rows of a table; UserError where the header lacks a column."""
    header: list[str] | None = None
    for number, line in _logical_lines(path):
        cells = split_cells(line)
        if header is None:
            header = cells
            if missing := [name for name in columns if name not in header]:
                raise UserError(f"{path} line 1", f"has no column {', '.join(missing)}; its columns are {header}", FIX)
        else:
            whole = dict(zip(header, cells, strict=True)) if len(cells) == len(header) else None
            yield _Row(where=f"{path.name} line {number}", cells=whole, found=len(cells))
    if header is None:
        raise UserError(str(path), "is empty", FIX)


def _find(folder: Path, name: str) -> Path | None:
    return next((place / name for place in (folder, folder / "en") if (place / name).exists()), None)


def _tables(folder: Path, languages: Sequence[str]) -> dict[str, Path]:
    """Return the table of each language that the corpus has, the split one where there are both."""
    found = {}
    for language in languages:
        names = dict.fromkeys((CORPUS_FORMATS["covost2"].spelled.get(language, language), language))
        paths = [_find(folder, f"covost_v2.en_{name}{kind}") for kind in (".train.tsv", ".tsv") for name in names]
        if path := next(filter(None, paths), None):
            found[language] = path
    if not found and not any(next(place.glob("covost_v2.en_*.tsv"), None) for place in (folder, folder / "en")):
        raise UserError(str(folder), "holds no covost_v2.en_*.tsv", FIX)
    return found


def _sentences(folder: Path, wanted: set[str]) -> dict[str, str]:
    """Return clip -> English text for the wanted clips, from Common Voice's validated.tsv."""
    path = _find(folder, VALIDATED)
    if path is None:
        raise UserError(str(folder), f"holds no {VALIDATED}, where the English of an unsplit table is", FIX)
    return {
        row.cells["path"]: row.cells["sentence"]
        for row in _rows(path, ("path", "sentence"))
        if row.cells and row.cells["path"] in wanted
    }


def read(folder: Path, languages: Sequence[str]) -> Iterator[CorpusUtterance | Unparsed]:
    """Yield every clip of the training split with its translations in the languages that have a table."""
    tables = _tables(folder, languages)
    clips = _find(folder, "clips")
    if clips is None:
        raise UserError(str(folder), "holds no clips/", FIX)
    sources: dict[str, str] = {}
    targets: dict[str, dict[str, str]] = {}
    for language, path in tables.items():
        split = path.name.endswith(".train.tsv")
        for row in _rows(path, ("path", "translation", "sentence" if split else "split")):
            problem = _problem(row, language, targets)
            if problem is not None:
                yield problem
                continue
            cells = row.cells
            assert cells is not None  # or there is a problem
            if split or cells["split"] in TRAIN_SPLITS:
                clip = cells["path"]
                targets.setdefault(clip, {})[language] = one_line(cells["translation"])
                if split:
                    sources.setdefault(clip, one_line(cells["sentence"]))
    if lacking := targets.keys() - sources.keys():
        sources |= {clip: one_line(text) for clip, text in _sentences(folder, lacking).items()}
    place = clips.relative_to(folder).as_posix()
    for clip, translations in targets.items():
        name = clip.removesuffix(".mp3")
        if clip not in sources:
            yield Unparsed(id=name, why=f"not in {VALIDATED}", reason="no English text", languages=tuple(translations))
            continue
        yield CorpusUtterance(
            id=name,
            audio=f"{place}/{name}.mp3",
            start=0,
            end=None,
            recording=f"{name}.mp3",
            source=sources[clip],
            targets=translations,
        )


def _problem(row: _Row, language: str, targets: dict[str, dict[str, str]]) -> Unparsed | None:
    """Return what makes a row unusable, or None."""
    if row.cells is None:
        return Unparsed(id=row.where, why=f"{row.found} cells, the header has another number", languages=(language,))
    clip = row.cells["path"]
    if not clip or "/" in clip or clip in (".", ".."):
        return Unparsed(id=row.where, why=f"path {clip!r}: expected a clip's name", languages=(language,))
    if language in targets.get(clip, {}):
        return Unparsed(id=row.where, why=f"{clip} again", reason="occurs twice", languages=(language,))
    return None
