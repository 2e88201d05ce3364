"""Reading of the mteval format, `<doc docid=…>` with `<seg id=…>` in it, as ACL 60/60 and IWSLT publish it.

It is read by expat, which expands nothing here but characters: a document type may be named, but is never fetched, and
entities of a file's own are refused. Published files are not always well-formed: a bare ampersand stands for itself,
and documents need no element around them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from submission.errors import UserError
from submission.text.languages import language_labels

SETS = ("refset", "srcset", "tstset")
ONE_SET = "keep one reference set in the file"
# A CDATA section, a comment, an entity, or an ampersand that begins none.
_MARKUP = re.compile(
    r"(<!\[CDATA\[.*?\]\]>|<!--.*?-->)|&(?:([A-Za-z][A-Za-z0-9]*);|(#[0-9]+;|#x[0-9A-Fa-f]+;)|)", re.DOTALL
)
_PROLOG = re.compile(r"\s*(?:<\?xml[^>]*\?>)?(?:\s|<!--.*?-->)*(<!DOCTYPE[^>\[]*(\[)?[^>]*>)?", re.DOTALL)
_XML_ENTITIES = frozenset({"amp", "lt", "gt", "quot", "apos"})


class Seg(NamedTuple):
    """A segment of a document."""

    document: str
    """The `docid`: a talk's name, without extension."""
    text: str


@dataclass(slots=True, kw_only=True)
class SegSet:
    """The documents of one `refset`, `srcset` or `tstset`, or those outside of any."""

    kind: str
    name: str
    """Its `refid` or `sysid`, else its `setid`."""
    language: str
    """Its `trglang`, as written."""
    segs: list[Seg] = field(default_factory=list)
    documents: set[str] = field(default_factory=set)


def read_mteval(path: Path, language: str = "") -> list[Seg]:
    """Return every segment of a file's one set, in order; blanks and line breaks in a text become one blank.

    language: the code of the target language, by which one of several sets may be chosen. Raises UserError for a file
    that is not UTF-8, no XML, or holds a NUL or entities of its own; for several reference sets; for a document twice;
    and where the ids do not count 1, 2, 3, … through the set or through each document: one that is missing would shift
    all that follow.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot be read as UTF-8 text ({error})"
        raise UserError(str(path), what, "unpack the data set as published") from error
    if "\x00" in text:
        line = text[: text.index("\x00")].count("\n") + 1
        raise UserError(f"{path} line {line}", "holds a NUL character", "replace the damaged file")
    return _one_set(_parse(text, path), language, path).segs


def _one_set(sets: Sequence[SegSet], language: str, path: Path) -> SegSet:
    """Return the set to read: not the source beside references, and the one of the language where it is named."""
    filled = [one for one in sets if one.segs]
    references = [one for one in filled if one.kind != "srcset"] or filled
    labels = language_labels(language) | {""}
    in_language = [one for one in references if one.language.lower() in labels] or references
    if len(in_language) > 1:
        named = ", ".join(f"{one.name or one.kind} ({len(one.segs)} segments)" for one in in_language)
        raise UserError(str(path), f"holds {len(in_language)} reference sets: {named}; one is scored against", ONE_SET)
    return in_language[0] if in_language else SegSet(kind="", name="", language="")


def _parse(text: str, path: Path) -> list[SegSet]:
    """Return the sets of a file's text in order."""
    prolog = _PROLOG.match(text)
    if prolog is None or prolog[2]:
        raise UserError(str(path), "declares entities or elements of its own", "remove the [...] of its DOCTYPE")
    kept = "\n" * prolog[0].count("\n") + text[prolog.end() :]  # line numbers stay
    parser = expat.ParserCreate("UTF-8")
    reader = _Reader(path, parser)
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.characters
    try:
        parser.Parse("<file>" + _MARKUP.sub(_escaped, kept) + "</file>", True)
    except expat.ExpatError as error:
        what = f"is not well-formed XML ({expat.ErrorString(error.code)})"
        raise UserError(f"{path} line {error.lineno}", what, "correct it, or get the file again") from error
    return reader.sets


def _escaped(found: re.Match[str]) -> str:
    """Return markup as XML reads it: HTML's named characters as such, a bare ampersand as one."""
    if found[1] or found[3] or found[2] in _XML_ENTITIES:
        return found[0]
    character = html.unescape(found[0]) if found[2] else ""
    return character if character != found[0] and character else f"&amp;{found[0][1:]}"


class _Reader:
    """Collects the segments of the elements that expat finds."""

    def __init__(self, path: Path, parser: expat.XMLParserType) -> None:
        self._path, self._parser = path, parser
        self.sets: list[SegSet] = []
        self._set: SegSet | None = None
        self._document = ""
        self._within = 0
        self._id = ""
        self._text: list[str] | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        kind = tag.lower()
        if kind in SETS:
            names = (attributes.get(key, "") for key in ("refid", "sysid", "setid"))
            self._begin(kind, next(filter(None, names), ""), attributes.get("trglang", ""))
        elif kind == "doc":
            self._start_document(attributes.get("docid", ""))
        elif kind == "seg":
            if self._text is not None or not self._document:
                raise self._error(
                    "has a <seg> that is not within a <doc docid=…>" if self._text is None else "nests <seg>"
                )
            self._id, self._text = attributes.get("id", ""), []

    def characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def end(self, tag: str) -> None:
        kind = tag.lower()
        if kind in SETS:
            self._set = None
        elif kind == "doc":
            self._document = ""
        elif kind == "seg" and self._text is not None and self._set is not None:
            self._set.segs.append(Seg(self._document, " ".join("".join(self._text).split())))
            self._within, self._text = self._within + 1, None
            count = len(self._set.segs)
            if self._id not in (str(count), str(self._within)):
                raise self._error(f'expected <seg id="{count}"> of {self._document}, got id {self._id!r:.40}')

    def _begin(self, kind: str, name: str, language: str) -> SegSet:
        self._set = SegSet(kind=kind, name=name, language=language)
        self.sets.append(self._set)
        return self._set

    def _start_document(self, name: str) -> None:
        current = self._set or self._begin("", "", "")
        if not name or name in current.documents:
            raise self._error(f"has document {name!r:.60} twice" if name else "has a <doc> without docid")
        current.documents.add(name)
        self._document, self._within = name, 0

    def _error(self, what: str) -> UserError:
        return UserError(f"{self._path} line {self._parser.CurrentLineNumber}", what, "check the file")
