"""Text that goes round in circles: what `verify` warns of (TXT11) and what decoding flags is one and the same."""

from __future__ import annotations

import re

# One to four words, four times in a row; in scripts without blanks, one to eight letters.
WORD_LOOP = re.compile(r"(?<!\S)(\S++(?: \S++){0,3}?)(?: \1(?!\S)){3,}")
LETTER_LOOP = re.compile(r"([^\W\x00-\u02ff]{1,8}?)\1{3,}")


def looped(line: str) -> str:
    """Return what a line says four times or more in a row, or nothing."""
    match = WORD_LOOP.search(line) or LETTER_LOOP.search(line)
    return match[1] if match else ""
