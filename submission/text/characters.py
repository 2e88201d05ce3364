"""Characters that an output file must not hold, and the cleaning that leaves one plain line.

The bundle is written with `plain_line` and checked by the same sets, so what one writes the other accepts.
"""

from __future__ import annotations

import re
import unicodedata

# Everything that some program takes for the end of a line (the set of `str.splitlines`), CR and LF included.
LINE_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
OTHER_LINE_BREAKS = LINE_BREAKS - {"\n", "\r"}
# Characters that reorder or hide text: direction marks, embeddings, overrides, isolates, the byte order mark.
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
# Characters that show nothing or look like a blank: soft hyphen, zero-width blanks, fillers of Hangul and Braille,
# operators that are not written, annotations, controls of musical and other notations, the tags and variation
# selectors with which text can be hidden in text (but U+FE0E and U+FE0F behind an emoji), and noncharacters.
HIDDEN = frozenset(
    map(
        chr,
        (
            *(0xAD, 0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x200B, 0x2800, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0x2060, 0x2066),
            *range(0x206A, 0x2070),
            *range(0xFDD0, 0xFDF0),
            *range(0xFE00, 0xFE0E),
            *range(0xFFF0, 0xFFFC),
            *range(0x1BCA0, 0x1BCA4),
            *range(0x1D173, 0x1D17B),
            *range(0xE0000, 0xE1000),
            *(plane + last for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF)),
        ),
    )
)
# Zero-width joiner and non-joiner: between two signs (an emoji of several people) a joiner makes one sign of them;
# beside a letter of the languages here, or at the end of a line, both only hide.
JOINERS = frozenset("\u200c\u200d")
_EMOJI_JOIN = re.compile(
    "(?<=[\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])\u200d(?=[\u2190-\u2bff\U0001f000-\U0001faff])"
)
UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories of characters that a line of a file cannot hold: controls, lone surrogates, line ends."""
LOST = "\ufffd"
"""What stands where bytes of a character were missing; byte-level models write it."""
# The rest of Unicode's category Cc: C0 with NUL and the tab, DEL, C1.
CONTROLS = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0)))) - LINE_BREAKS

_SURROGATES = map(chr, range(0xD800, 0xE000))  # no UTF-8 file can hold them
_TO_BLANK = dict.fromkeys(map(ord, (*LINE_BREAKS, *CONTROLS, *BIDIRECTIONAL, *_SURROGATES)), " ")
_REMOVED = _TO_BLANK | dict.fromkeys(map(ord, HIDDEN))


def plain_line(text: str) -> str:
    """Return the text as one stripped line without hidden characters.

    Breaks, controls, direction marks and lone surrogates become blanks.
    """
    plain = text.translate(_REMOVED)
    if not JOINERS.isdisjoint(plain):
        plain = "".join(c for place, c in enumerate(plain) if c not in JOINERS or _EMOJI_JOIN.match(plain, place))
    return plain.strip()


def hidden_characters(line: str) -> list[str]:
    """Return the characters of a line that hide text or are hidden themselves, in their order."""
    found = [c for c in line if c in HIDDEN] if not HIDDEN.isdisjoint(line) else []
    if not JOINERS.isdisjoint(line):
        found += [c for place, c in enumerate(line) if c in JOINERS and not _EMOJI_JOIN.match(line, place)]
    return found


def printable(text: str, limit: int = 120) -> str:
    """Return untrusted text as a terminal can show it: unprintable characters escaped, at most `limit` long."""
    cut = text[:limit]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return safe if len(text) <= limit else f"{safe}…"


def printable_lines(text: str) -> str:
    """Return text of several lines as a terminal can show it: every unprintable character but line feeds escaped."""
    return "\n".join(printable(line, len(line)) for line in text.split("\n"))


def character_name(character: str) -> str:
    """Return the code point and Unicode name of a character: `U+2028 LINE SEPARATOR`."""
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()


def is_han(character: str) -> bool:
    """Return whether a character is a Chinese one, of the unified block or its extension A."""
    return "\u3400" <= character <= "\u9fff"
