"""The script that a text is written in, by its letters, and the scripts of target languages."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

HAN, LATIN = "Han", "Latin"
_BY_NAME = {"CJK": HAN, "LATIN": LATIN, "FULLWIDTH": LATIN}
"""First word of a letter's Unicode name -> its script, where that word is not the script's own name."""
SCRIPTS: dict[str, frozenset[str]] = {
    "ar": frozenset({"Arabic"}),
    "el": frozenset({"Greek"}),
    "he": frozenset({"Hebrew"}),
    "hi": frozenset({"Devanagari"}),
    "ja": frozenset({HAN, "Hiragana", "Katakana", "Katakana-hiragana"}),
    "ko": frozenset({"Hangul", HAN}),
    "ru": frozenset({"Cyrillic"}),
    "uk": frozenset({"Cyrillic"}),
    "zh": frozenset({HAN}),
}
"""Target language -> its scripts, where these are not the Latin one."""
LATIN_LANGUAGES = frozenset(
    ("cs", "da", "de", "en", "es", "et", "fi", "fr", "hu", "id", "it", "lt", "lv", "nl", "no", "pl", "pt", "ro")
    + ("sk", "sl", "sv", "tr", "vi")
)

FEWEST_LETTERS, FEWEST_OTHERS = 4, 2
"""A line with fewer Latin letters, or letters of another foreign script, is no sign of another language: `OK`."""
FOREIGN_SHARE = 0.8
"""From this share of its letters on, a line is written in another script."""


def scripts_of(language: str) -> frozenset[str]:
    """Return the scripts of a target language; empty where they are not known here."""
    return frozenset({LATIN}) if language in LATIN_LANGUAGES else SCRIPTS.get(language, frozenset())


@lru_cache(maxsize=4096)
def script_of(letter: str) -> str:
    """Return the script of a letter: `Latin`, `Han`, `Cyrillic`, …; empty for what is no letter."""
    if not letter.isalpha():
        return ""
    word = unicodedata.name(letter, "").partition(" ")[0]
    return _BY_NAME.get(word, word.capitalize())


def letters_by_script(text: str) -> Counter[str]:
    """Return how many letters of each script a text has."""
    counts = Counter(map(script_of, text))
    counts.pop("", None)
    return counts


def foreign_script(counts: Counter[str], language: str) -> str:
    """Return the script that letters are mostly of, where a language is not written in it; otherwise "".

    counts: script -> letters.

    Foreign names are common in every language, so nearly all letters must be of other scripts, and more than a few. A
    language of unknown scripts has no foreign ones.
    """
    own = scripts_of(language)
    foreign = Counter({script: count for script, count in counts.items() if script not in own})
    if not own or not foreign or foreign.total() < FOREIGN_SHARE * counts.total():
        return ""
    script = foreign.most_common(1)[0][0]
    return script if foreign.total() >= (FEWEST_LETTERS if script == LATIN else FEWEST_OTHERS) else ""
