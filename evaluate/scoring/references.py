"""Read reference translations in the organisers' layouts, strictly: a score against a damaged file means nothing.

    references/<NAME>/     segments.yaml   which recording each line belongs to
                           en-de.txt …     one line a gold segment; or en-de.xml, which names the recordings itself
                           en.txt          its transcript, for COMET alone
    acl_6060/eval/         text/txt/ACL.6060.eval.en-xx.de.txt …, one line a gold wav; or text/xml/….xml

Line feeds and CRLF are both line ends, a BOM is skipped, blanks around a line are removed; nothing else is repaired.
Text in another script than the target language's is refused: a German file scored as Chinese gives a score too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluate.scoring.unicode_form import UnicodeForm, in_form
from segment.testset import SEGMENTS, read_recordings, read_testset, recordings_of
from submission.errors import UserError
from submission.store.digests import sha256_file
from submission.text.bounded_text import read_bytes
from submission.text.characters import is_han
from submission.text.mteval import read_mteval
from submission.text.segments import Segment

GOLD_FOLDER = "segmented_wavs/gold"
HAN_LANGUAGES = frozenset({"zh"})
HAN_SHARE = 0.3
"""Least share of Han characters among the letters of Chinese text, which may hold Latin terms."""
FEW_LETTERS = 20
_GOLD_NAME = re.compile(r"sent_([1-9][0-9]*)\.wav")


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """One test set's reference translations into one language."""

    path: Path
    lines: tuple[str, ...]
    recordings: tuple[str, ...]
    """The recording that each line belongs to, by its file name."""
    sha256: str
    """Digest of the text file."""
    numbers: tuple[int, ...]
    """Index of each line in the file, from 0: lines are reordered like the hypotheses, or left out."""
    sources: tuple[str, ...] | None = None
    """The transcript of each line, for COMET; None where there is none."""
    form: UnicodeForm = ""
    """Unicode form that the lines are in and outputs are brought into; empty: both are compared as they are."""

    def chosen(self, numbers: Sequence[int]) -> References:
        """Return some of the lines, in this order."""
        return replace(
            self,
            lines=tuple(self.lines[n] for n in numbers),
            recordings=tuple(self.recordings[n] for n in numbers),
            numbers=tuple(self.numbers[n] for n in numbers),
            sources=tuple(self.sources[n] for n in numbers) if self.sources else None,
        )

    def in_form(self, form: UnicodeForm) -> References:
        """Return them for a comparison in a Unicode form."""
        return replace(self, lines=tuple(in_form(self.lines, form)), form=form)


def find_references(folder: Path, pair: str, testset: Path | None = None) -> References | None:
    """Return a blind test set's references for a pair, or None where there are none.

    testset: the folder of its recordings. With it, entries of the segments are matched with recordings as for given
    segments, and lines are ordered like hypotheses: recordings as in FILE_ORDER, lines of each in file order. Without,
    names and order are the file's. Raises UserError where the numbers of lines and segments differ.
    """
    path = reference_text(folder, pair)
    if path is None:
        return None
    known = read_testset(testset) if testset else None
    if path.suffix == ".xml":
        segs = read_mteval(path, pair.rpartition("-")[2])
        lines = [seg.text for seg in segs]
        recordings = recordings_of([seg.document for seg in segs], known, str(path))
    else:
        lines, recordings = read_lines(path), read_recordings(folder / SEGMENTS, known)
    if len(lines) != len(recordings):
        raise UserError(
            str(path),
            f"expected {len(recordings)} lines, one for each entry of {SEGMENTS}, got {len(lines)}",
            "use text and segments of the same edition",
        )
    _refuse_blank(lines, path)
    check_script(lines, pair.rpartition("-")[2], str(path))
    source = folder / f"{pair.partition('-')[0]}.txt"
    sources = _sources(source, len(lines)) if source.is_file() else None
    references = References(
        path=path,
        lines=tuple(lines),
        recordings=tuple(recordings),
        sha256=sha256_file(path),
        numbers=tuple(range(len(lines))),
        sources=tuple(sources) if sources else None,
    )
    if known is None:
        return references
    order = {recording.name: n for n, recording in enumerate(known.recordings)}
    return references.chosen(sorted(range(len(lines)), key=lambda n: order[recordings[n]]))


def _refuse_blank(lines: Sequence[str], path: Path) -> None:
    """Raise UserError where every line is blank: any output would score 0 against them."""
    if lines and not any(lines):
        raise UserError(str(path), f"all of its {len(lines):,} lines are blank", "get the file again")


def _sources(path: Path, count: int) -> list[str]:
    """Return the transcript of each reference line; UserError where the numbers differ."""
    lines = read_lines(path)
    if len(lines) != count:
        what = f"expected {count} lines, one for each reference line, got {len(lines)}"
        raise UserError(str(path), what, "use transcript and references of the same edition")
    return lines


def find_gold_references(folder: Path, language: str) -> References | None:
    """Return the ACL 60/60 references of a folder (`acl_6060/eval`) for a language, or None where there are none."""
    path = gold_text(folder, language)
    if path is None:
        return None
    wavs = gold_wavs(folder)
    lines = read_lines(path) if path.suffix == ".txt" else [seg.text for seg in read_mteval(path, language)]
    if len(lines) != len(wavs):
        raise UserError(
            str(path),
            f"expected {len(wavs)} lines, one for each wav of {GOLD_FOLDER}, got {len(lines)}",
            "unpack the data set again",
        )
    _refuse_blank(lines, path)
    check_script(lines, language, str(path))
    source = folder / "text" / "txt" / f"ACL.6060.{folder.name}.en-xx.en.txt"
    return References(
        path=path,
        lines=tuple(lines),
        recordings=tuple(wav.name for wav in wavs),
        sha256=sha256_file(path),
        numbers=tuple(range(len(lines))),
        sources=tuple(_sources(source, len(lines))) if source.is_file() else None,
    )


def gold_text(folder: Path, language: str) -> Path | None:
    """Return the file with the text of an ACL 60/60 folder in a language, txt before xml; None where there is none."""
    name = f"ACL.6060.{folder.name}.en-xx.{language}"
    return _present(folder / "text" / "txt" / f"{name}.txt", folder / "text" / "xml" / f"{name}.xml")


def reference_text(folder: Path, pair: str) -> Path | None:
    """Return the file with a blind test set's references for a pair, txt before xml; None where there is none."""
    return _present(folder / f"{pair}.txt", folder / f"{pair}.xml")


def _present(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def check_script(lines: Sequence[str], language: str, where: str) -> None:
    """Raise UserError for references in another script than their language's.

    Counted among letters: of Chinese at least HAN_SHARE are Han characters (names and terms stay Latin), of a language
    in Latin script less than that. A file with few letters is not checked.
    """
    letters = [character for line in lines for character in line if character.isalpha()]
    han = sum(map(is_han, letters))
    if len(letters) < FEW_LETTERS or (han >= HAN_SHARE * len(letters)) == (language in HAN_LANGUAGES):
        return
    expected = "at least" if language in HAN_LANGUAGES else "less than"
    raise UserError(
        where,
        f"{han:,} of {len(letters):,} letters are Han characters, expected {expected} {HAN_SHARE:.0%} of {language!r}",
        "check whether the files of two languages are swapped",
    )


def gold_wavs(folder: Path) -> list[Path]:
    """Return sent_1.wav, sent_2.wav, … of an ACL 60/60 folder in the order of their numbers.

    Raises UserError where a number is missing: every later line would be compared with the wrong sentence.
    """
    gold = folder / GOLD_FOLDER
    numbered = {
        int(match[1]): path for path in sorted(gold.glob("*.wav")) if (match := _GOLD_NAME.fullmatch(path.name))
    }
    if not numbered:
        raise UserError(str(gold), "holds no sent_1.wav, sent_2.wav, …", "unpack the data set again")
    if missing := sorted(set(range(1, max(numbered) + 1)) - numbered.keys()):
        raise UserError(
            str(gold),
            f"expected sent_1.wav to sent_{max(numbered)}.wav, {len(missing)} are missing (first: {missing[0]})",
            "unpack the data set again",
        )
    return [numbered[number] for number in sorted(numbered)]


def gold_segments(folder: Path) -> tuple[list[Segment], dict[str, Path]]:
    """Return the gold wavs of an ACL 60/60 folder as whole segments, in order, and the path of each recording."""
    from submission.runtime.audio import checked_length

    wavs = gold_wavs(folder)
    segments = [Segment(recording=wav.name, start=0, end=checked_length(wav)) for wav in wavs]
    return segments, {wav.name: wav for wav in wavs}


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file; UserError for what is not UTF-8 text or holds a NUL."""
    data = read_bytes(path, "check the file")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(str(path), "is UTF-16, expected UTF-8", "save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        byte = data[error.start]
        raise UserError(
            f"{path} line {line}", f"byte {error.start} ({byte:#04x}) is not UTF-8", "save it as UTF-8"
        ) from error
    lines = text.removesuffix("\n").split("\n") if text else []
    for number, text_line in enumerate(lines, 1):
        if "\x00" in text_line:
            raise UserError(f"{path} line {number}", "holds a NUL character", "replace the damaged file")
    return [line.strip() for line in lines]


def references_of(folder: Path, pair: str, testset: str = "", form: UnicodeForm = "") -> References | None:
    """Return the references for an output from a user's folder, or None where it holds none for this output.

    folder: one test set's (`<pair>.txt` or `.xml` beside segments.yaml), one with a folder for each test set, or
    `acl_6060/eval`. form: the Unicode form to compare in. Raises UserError for a missing folder and for unreadable
    references.
    """
    if not folder.is_dir():
        raise UserError(f"--references {folder}", "no such folder", "name the folder that holds the references")
    language = pair.rpartition("-")[2]
    if gold_text(folder, language) is not None:
        found = find_gold_references(folder, language)
        return found and found.in_form(form)
    for place in (folder, folder / testset) if testset else (folder,):
        if reference_text(place, pair) is not None:
            found = find_references(place, pair)
            if found is not None and not found.lines:
                raise UserError(str(found.path), "holds no lines", "get the file again")
            return found and found.in_form(form)
    return None


def check_line_by_line(references: References, recordings: Sequence[str], where: str) -> None:
    """Raise UserError unless hypotheses (by their recordings) and reference lines correspond one to one."""
    if len(recordings) != len(references.lines):
        raise UserError(
            where,
            f"expected {len(references.lines)} hypotheses, one for each line of {references.path}, "
            f"got {len(recordings)}",
            "decode all of the given segments",
        )
    for number, (got, expected) in enumerate(zip(recordings, references.recordings, strict=True), 1):
        if got != expected:
            raise UserError(
                f"{where} line {number}",
                f"expected a hypothesis for {expected}, as in {references.path.name}, got one for {got}",
                "put both into the order of FILE_ORDER",
            )
