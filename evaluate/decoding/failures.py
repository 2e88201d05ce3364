"""Detect the two failures of a speech translation model: repetition, and an empty output for speech.

Each is detected from a hypothesis and the length of its audio alone, without a reference. Ordinary translations stay
below the thresholds. What is flagged is counted, and decoded again where the recipe names fallbacks.

Compression is that of zlib, as in Whisper (Radford et al. 2023, section 4.5): bytes of UTF-8 over bytes compressed.
Whisper's 2.4 holds for German: ordinary prose of 200 characters reaches 1.3 in the median and 1.6 at most, a sentence
three times over 2.6. Chinese writes the same in fewer bytes, over which zlib's fixed cost weighs more: prose of 80
characters reaches 1.0 in the median and 1.4 at most, a sentence three times over only 2.2. So its threshold is 2.0.
The threshold depends on the text and not on the pair: a model may generate another language.
"""

from __future__ import annotations

import zlib

from submission.text.characters import is_han
from submission.text.loops import repeated_part

MOST_COMPRESSION = 2.4
MOST_COMPRESSION_HAN = 2.0
MOST_TOKENS_PER_SECOND = 25.0
"""The fastest speakers reach six words a second, which are some twelve tokens of Qwen's vocabulary in German; the
miniature's, a two-hundredth as large, takes up to 23 for the hypotheses of its fastest voices."""
SPARE_TOKENS = 5
"""Tokens that are always allowed: speech at the segment's edges, a full stop."""
LEAST_SPEECH_SECONDS = 1.0
"""A segment of at least this length that a segmenter classified as speech holds a word; a shorter one may be a
breath."""

REPEATING = ("compression_ratio", "loop", "token_rate", "truncated")
"""Flags of text that is too long. The model's own score does not detect it: each copy makes the next likelier."""
FAILURES = (*REPEATING, "empty_on_speech")
"""Flags for which the fallbacks are tried."""


def failures(text: str, tokens: int, seconds: float) -> list[str]:
    """Return the flags of a hypothesis that its text, its number of tokens and the length of its audio show."""
    seen = (
        ("loop", bool(repeated_part(text))),
        ("compression_ratio", compression_ratio(text) > most_compression(text)),
        ("token_rate", tokens > SPARE_TOKENS + MOST_TOKENS_PER_SECOND * seconds),
        ("empty_on_speech", not text and seconds >= LEAST_SPEECH_SECONDS),
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
