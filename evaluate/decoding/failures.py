"""The two failures of a speech translation model: it repeats itself, or says nothing.

Each is seen in a hypothesis and the length of its audio alone, whatever the reference may be. The thresholds lie where
ordinary translations do not come: what they flag is looked at, counted, and mended where the recipe asks for it.

Compression is that of zlib, as in Whisper (Radford et al. 2023, section 4.5): bytes of UTF-8 over bytes compressed.
Whisper's 2.4 holds for German: ordinary prose of 200 characters reaches 1.3 in the median and 1.6 at most, a sentence
three times over 2.6. Chinese says the same in fewer bytes, over which zlib's fixed cost weighs more: prose of 80
characters reaches 1.0 in the median and 1.4 at most, a sentence three times over only 2.2. So its threshold is 2.0.
Which holds is asked of the text and not of the pair: a model may well fall into another language.
"""

from __future__ import annotations

import zlib

from submission.text.characters import is_han
from submission.text.loops import repeated_part

MOST_COMPRESSION = 2.4
MOST_COMPRESSION_HAN = 2.0
MOST_TOKENS_PER_SECOND = 25.0
"""The fastest speakers say six words a second, which are some twelve tokens of Qwen's vocabulary in German; the
miniature's, a two-hundredth as large, takes up to 23 for the hypotheses of its fastest voices."""
SPARE_TOKENS = 5
"""What a segment may have besides: speech at its very edges, a full stop."""
LEAST_SPEECH_SECONDS = 1.0
"""A segment of this length that a segmenter took for speech holds a word at least; a shorter one may be a breath."""

REPEATING = ("dense", "fast", "loop", "truncated")
"""Flags of text that went on too long. The model's own score is no judge of it: each copy makes the next likelier."""
FAILURES = (*REPEATING, "missed")
"""Flags that mending is for."""


def failures(text: str, tokens: int, seconds: float) -> list[str]:
    """Return the flags of a hypothesis that its text, its number of tokens and the length of its audio show."""
    seen = (
        ("loop", bool(repeated_part(text))),
        ("dense", compression_ratio(text) > most_compression(text)),
        ("fast", tokens > SPARE_TOKENS + MOST_TOKENS_PER_SECOND * seconds),
        ("missed", not text and seconds >= LEAST_SPEECH_SECONDS),
    )
    return [flag for flag, holds in seen if holds]


def compression_ratio(text: str) -> float:
    """Return bytes of UTF-8 over bytes compressed by zlib; 0 for no text."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))


def most_compression(text: str) -> float:
    """Return the compression that a text must not exceed, by the script of most of its letters."""
    letters = [character for character in text if character.isalpha()]
    return MOST_COMPRESSION_HAN if 2 * sum(map(is_han, letters)) > len(letters) else MOST_COMPRESSION
