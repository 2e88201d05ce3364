"""Repetition loops in a line of text, by one definition for `verify` (TXT11) and for the flags of decoding."""

from __future__ import annotations

import re

# One to four words, four times in a row; in scripts without blanks, one to eight letters.
WORD_LOOP = re.compile(r"(?<!\S)(\S++(?: \S++){0,3}?)(?: \1(?!\S)){3,}")
LETTER_LOOP = re.compile(r"([^\W\x00-\u02ff]{1,8}?)\1{3,}")


def repeated_part(line: str) -> str:
    """Return the part of a line that is repeated four times or more in a row, or ""."""
    match = WORD_LOOP.search(line) or LETTER_LOOP.search(line)
    return match[1] if match else ""
