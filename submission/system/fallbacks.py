"""The registry of decoding fallbacks: further ways to decode a segment whose hypothesis fails.

To add one, write its function and add a line here; `decode.fallbacks` of a recipe then accepts its name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """One way to decode a failed segment again."""

    function: str
    """`module:attribute`, imported only when a segment fails. Called with (Translator, waveform, Hypothesis); returns a
    Generation, or None where the fallback does not apply."""
    summary: str
    """What it does, for documents."""


FALLBACKS = {
    "length": Fallback(
        function="evaluate.decoding.fallbacks:require_length",
        summary="an empty output gets a minimum length; the end of a too long one is favoured, more with each token",
    ),
    "no_repeat": Fallback(
        function="evaluate.decoding.fallbacks:forbid_repeats",
        summary="no three tokens repeat in the same order",
    ),
    "penalty": Fallback(
        function="evaluate.decoding.fallbacks:penalize_repeats",
        summary="repetition penalty 1.2 on generated tokens",
    ),
    "split": Fallback(
        function="evaluate.decoding.fallbacks:split_audio",
        summary="the segment is split at its quietest point near the middle, and both parts are decoded plainly",
    ),
}
