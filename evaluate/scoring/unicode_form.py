"""Unicode forms of outputs and references: where they differ, and both in one form where that is requested.

A letter with a mark is one character in composed Unicode (NFC) and two in decomposed Unicode (NFD). They look the same
and match in no metric. Texts are compared as they are; `--normalize NFC` compares both sides in NFC, and the signature
of such a score says so.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

UnicodeForm: TypeAlias = Literal["", "NFC"]
"""The form in which texts are compared; empty: as they are."""
FORMS: tuple[str, ...] = tuple(form for form in get_args(UnicodeForm) if form)


def in_form(lines: Sequence[str], form: UnicodeForm) -> list[str]:
    """Return lines in a Unicode form."""
    return [unicodedata.normalize(form, line) for line in lines] if form else list(lines)


def with_form(signature: str, form: UnicodeForm) -> str:
    """Return a score's signature with the form in which the texts were compared, if that was requested."""
    return f"{signature}|unicode:{form}" if form else signature


def form_note(texts: Mapping[str, Sequence[str]]) -> str:
    """Return a line that says which of the compared texts are not in NFC; "" where no form can cost a match.

    texts: name of the file -> its lines, of outputs and references. No match is lost where all are in NFC, nor where
    all are in NFD.
    """
    counts = {name: sum(not unicodedata.is_normalized("NFC", line) for line in lines) for name, lines in texts.items()}
    if not any(counts.values()):
        return ""
    if all(unicodedata.is_normalized("NFD", line) for lines in texts.values() for line in lines):
        return ""
    found = " and ".join(
        f"{count:,} of {len(texts[name]):,} lines of {name}" for name, count in counts.items() if count
    )
    others = " and ".join(name for name, count in counts.items() if not count)
    against = f"those of {others} are" if others else "the others are"
    return (
        f"{found} are not in composed Unicode (NFC), {against}: letters that look the same do not match, which lowers "
        f"the scores; save the file in NFC, or compare both in NFC by --normalize NFC of translate, rerun and compare"
    )
