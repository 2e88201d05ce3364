"""Read one split of ACL 60/60 (`acl_6060/dev` or `acl_6060/eval`), a gold segment per utterance.

`segmented_wavs/gold/sent_N.wav` is line N of `text/txt/ACL.6060.<split>.en-xx.<language>.txt` and `<seg id="N">` of
the xml, counted through the whole split. The gold wavs are exact excerpts and no time stamps are published, so an
utterance is a whole gold wav. Only the xml states which talk it belongs to, and its talks are not in alphabetical
order (the first of dev is 268): sorting by document id would assign segments to the wrong talks.

The xml's text is used where there is no txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from submission.errors import UserError
from submission.text.mteval import read_mteval
from train.corpora.formats.corpus_utterance import CorpusUtterance

GOLD = "segmented_wavs/gold"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            str(path), f"cannot be read as UTF-8 text ({error})", "unpack ACL 60/60 as published"
        ) from error


def _lines(folder: Path, split: str, language: str) -> list[str] | None:
    """Return the segments' text in one language from txt, else from xml; None if the split does not have it."""
    name = f"ACL.6060.{split}.en-xx.{language}"
    txt, xml = folder / "text/txt" / f"{name}.txt", folder / "text/xml" / f"{name}.xml"
    if txt.is_file():
        return _read_text(txt).removesuffix("\n").split("\n")
    return [seg.text for seg in read_mteval(xml, language)] if xml.is_file() else None


def _split_name(folder: Path) -> str:
    """Return `dev` or `eval`, from the files' names: the folder itself may be called anything."""
    names = {
        match[1]
        for path in (folder / "text").glob("*/ACL.6060.*.en-xx.en.*")
        if (match := re.match(r"ACL\.6060\.(\w+)\.en-xx\.en\.(txt|xml)$", path.name))
    }
    if len(names) != 1:
        raise UserError(
            f"{folder}/text",
            f"expected the text of one split (ACL.6060.dev.en-xx.en.txt), found {sorted(names) or 'none'}",
            "name the folder of one split of ACL 60/60 as published",
        )
    return names.pop()


def _check_counts(folder: Path, wavs: int, counts: dict[str, int]) -> None:
    """Refuse texts that do not have one line per gold wav: all pairs after the gap would be wrong."""
    for name, count in counts.items():
        if count != wavs:
            raise UserError(
                f"{folder}/text", f"{name} has {count} segments, {GOLD} has {wavs} wavs", "unpack ACL 60/60 again"
            )


def read(folder: Path, languages: Sequence[str]) -> Iterator[CorpusUtterance]:
    """Yield every gold segment with its text in the languages that the split has."""
    split = _split_name(folder)
    wavs = len(list((folder / GOLD).glob("sent_*.wav")))
    segs = read_mteval(folder / "text/xml" / f"ACL.6060.{split}.en-xx.en.xml")
    texts = {language: _lines(folder, split, language) for language in ("en", *languages)}
    present = {language: lines for language, lines in texts.items() if lines is not None}
    _check_counts(folder, wavs, {"xml": len(segs)} | {name: len(lines) for name, lines in present.items()})
    agreeing = sum(" ".join(a.split()) == b.text for a, b in zip(present["en"], segs, strict=True))
    if 2 * agreeing < wavs:
        raise UserError(
            f"{folder}/text", f"xml and txt agree in {agreeing} of {wavs} lines", "take both from the same release"
        )
    for index, seg in enumerate(segs):
        yield CorpusUtterance(
            id=f"sent_{index + 1}",
            audio=f"{GOLD}/sent_{index + 1}.wav",
            start=0,
            end=None,
            recording=f"{seg.document}.wav",
            source=present["en"][index],
            targets={language: present[language][index] for language in languages if language in present},
        )
