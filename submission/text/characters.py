"""Characters that an output file must not hold, and the cleaning that leaves one plain line.

The bundle is written with `plain_line` and checked by the same sets, so what one writes the other accepts.
"""

from __future__ import annotations

import unicodedata

# Everything that some program takes for the end of a line (the set of `str.splitlines`), CR and LF included.
LINE_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
OTHER_LINE_BREAKS = LINE_BREAKS - {"\n", "\r"}
# Characters that reorder or hide text: direction marks, embeddings, overrides, isolates, the byte order mark.
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
# The rest of Unicode's category Cc: C0 with NUL and the tab, DEL, C1.
CONTROLS = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0)))) - LINE_BREAKS

_SURROGATES = map(chr, range(0xD800, 0xE000))  # no UTF-8 file can hold them
_TO_BLANK = dict.fromkeys(map(ord, (*LINE_BREAKS, *CONTROLS, *BIDIRECTIONAL, *_SURROGATES)), " ")


def plain_line(text: str) -> str:
    """Return the text as one line: breaks, controls, direction marks and lone surrogates as blanks, stripped."""
    return text.translate(_TO_BLANK).strip()


def printable(text: str, limit: int = 120) -> str:
    """Return untrusted text as a terminal can show it: unprintable characters escaped, at most `limit` long."""
    cut = text[:limit]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return safe if len(text) <= limit else f"{safe}…"


def character_name(character: str) -> str:
    """Return the code point and Unicode name of a character: `U+2028 LINE SEPARATOR`."""
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()


def is_han(character: str) -> bool:
    """Return whether a character is a Chinese one, of the unified block or its extension A."""
    return "\u3400" <= character <= "\u9fff"
