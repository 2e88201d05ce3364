"""Reading of the mteval format, `<doc docid=…>` with `<seg id=…>` in it, as ACL 60/60 and IWSLT publish it.

It is not always well-formed (bare ampersands), so it is read by pattern; no entity is ever expanded but characters.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import NamedTuple

from submission.errors import UserError

_TAG = re.compile(r'<doc\s[^>]*docid="(?P<doc>[^"]+)"|<seg\s[^>]*id="(?P<id>\d+)"[^>]*>(?P<text>.*?)</seg>', re.DOTALL)


class Seg(NamedTuple):
    """A segment of a document."""

    document: str
    """The `docid`: a talk's name, without extension."""
    text: str


def read_mteval(path: Path) -> list[Seg]:
    """Return every segment, in order; blanks and line breaks in a text become one blank.

    Raises UserError for a file that is not UTF-8 or holds a NUL, and where the ids do not count 1, 2, 3, … through the
    file or through each document: one that is missing would shift all that follow.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot be read as UTF-8 text ({error})"
        raise UserError(str(path), what, "unpack the data set as published") from error
    if "\x00" in text:
        line = text[: text.index("\x00")].count("\n") + 1
        raise UserError(f"{path} line {line}", "holds a NUL character", "replace the damaged file")
    segs: list[Seg] = []
    document, within = "", 0
    for match in _TAG.finditer(text):
        if match["doc"]:
            document, within = match["doc"], 0
            continue
        segs.append(Seg(document, " ".join(html.unescape(match["text"]).split())))
        within += 1
        if int(match["id"]) not in (len(segs), within) or not document:
            what = f'expected <seg id="{len(segs)}"> within a <doc>, got id {match["id"]}'
            raise UserError(str(path), what, "check the file")
    return segs
