"""Decode a failed segment again in other ways, and keep the best result.

A hypothesis of plain decoding fails by repetition, by more tokens than the audio can hold, or by an empty text
(`evaluate.decoding.failures`). Each fallback is one other way to decode the same segment, independent of the others
(Whisper's fallbacks raise the temperature; these stay deterministic). `submission.system.fallbacks` lists them.

A candidate is kept only if it has no failure. Of several, the one is kept that the plain model finds the likeliest:
mean log-probability per token, teacher-forced on the whole segment, without the fallback's constraint. The plain
hypothesis itself is compared by that score only where it is blank: there the score measures how sure the model is that
there is nothing to translate, and a text must be likelier than that. The score of a repetition means nothing, since
each copy makes the next one likelier: any text without a failure is better. Without such a candidate the plain
hypothesis is kept.

A segment is decoded again by itself, so that the result does not depend on which other segments failed.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evaluate.decoding.audio_batches import SegmentAudio, make_segment_audio
from evaluate.decoding.failures import FAILURES, REPEATING, failures
from evaluate.decoding.generation import Generation, Translator
from evaluate.decoding.hypotheses import FallbackRecord, Hypothesis, ScoredCandidate, flag_text
from submission.runtime.prompt import shortest_samples
from submission.system.fallbacks import FALLBACKS
from submission.text.characters import plain_line
from submission.text.segments import SAMPLE_RATE

REPETITION_PENALTY = 1.2
"""Keskar et al. 2019 (CTRL), section 4.1: the value with which they report a good balance between fluency and
repetition."""
NO_REPEAT_NGRAM = 3
"""No n-gram of this many tokens may repeat: with four, a word four times in a row would be possible."""
LEAST_TOKENS_PER_SECOND = 1.0
"""Slow speech has two words a second; an empty output is decoded again with at least half of that."""
USUAL_TOKENS_PER_SECOND = 6.0
"""Beyond this rate the end token is favoured; one and a half times ordinary German speech in Qwen's vocabulary."""
END_GROWTH = 1.1
"""Factor by which the end token is favoured more with every further token."""
FRAME_SAMPLES = SAMPLE_RATE // 10
STEP_SAMPLES = SAMPLE_RATE // 50
SCORE_DECIMALS = 4


def apply_fallbacks(
    translator: Translator, audio: SegmentAudio, hypothesis: Hypothesis, fallbacks: Sequence[str]
) -> Hypothesis:
    """Return a failed hypothesis with the result of each fallback, its text replaced where a candidate is better.

    audio: the input of plain decoding; fallbacks: names in `FALLBACKS`. A hypothesis without a failure is returned
    as it is.
    """
    if not set(hypothesis.flags) & set(FAILURES):
        return hypothesis

    def score(text: str) -> float:
        return round(translator.score(audio, text), SCORE_DECIMALS)

    texts, tried = {}, {}
    for name in fallbacks:
        generation = resolve(name)(translator, audio, hypothesis)
        if generation is None:
            continue
        texts[name] = plain_line(generation.text)
        flags = flag_text(texts[name], flags_of(generation, audio.seconds))
        tried[name] = ScoredCandidate(flags=flags, score=score(texts[name]))
    original = ScoredCandidate(flags=hypothesis.flags, score=score(hypothesis.text))
    kept = best_candidate(original, tried)
    outer = [flag for flag in hypothesis.flags if flag == "clipped"]  # a property of the segment, not of the text
    return Hypothesis(
        segment=hypothesis.segment,
        text=texts[kept] if kept else hypothesis.text,
        flags=tuple(sorted({*tried[kept].flags, *outer})) if kept else hypothesis.flags,
        fallback=FallbackRecord(kept=kept, text=hypothesis.text, original=original, tried=tried),
    )


def best_candidate(original: ScoredCandidate, tried: dict[str, ScoredCandidate]) -> str:
    """Return the name of the candidate to keep, the first of equals; nothing where the original stays."""
    least = -math.inf if set(original.flags) & set(REPEATING) else original.score
    good = {name: candidate for name, candidate in tried.items() if not set(candidate.flags) & {*FAILURES, "blank"}}
    better = {name: candidate.score for name, candidate in good.items() if candidate.score > least}
    return max(better, key=better.__getitem__, default="")


def resolve(name: str) -> Callable[[Translator, SegmentAudio, Hypothesis], Generation | None]:
    """Return the function of a fallback, as the registry names it."""
    function: Callable[[Translator, SegmentAudio, Hypothesis], Generation | None]
    function = pkgutil.resolve_name(FALLBACKS[name].function)
    return function


def flags_of(generation: Generation, seconds: float) -> list[str]:
    """Return the flags of a generation from so many seconds of audio."""
    truncated = [] if generation.ended else ["truncated"]
    return [*failures(plain_line(generation.text), generation.tokens, seconds), *truncated]


# --- the fallbacks: each returns a generation, or None where it does not apply ---


def require_length(translator: Translator, audio: SegmentAudio, hypothesis: Hypothesis) -> Generation | None:
    """Require a minimum length of an empty output; favour the end token of a too long one, more with each token."""
    if "empty_on_speech" in hypothesis.flags:
        least = min(math.ceil(LEAST_TOKENS_PER_SECOND * audio.seconds), translator.settings.max_new_tokens)
        return _generate(translator, audio, min_new_tokens=least)
    start = math.ceil(USUAL_TOKENS_PER_SECOND * audio.seconds)
    return _generate(translator, audio, exponential_decay_length_penalty=(start, END_GROWTH))


def forbid_repeats(translator: Translator, audio: SegmentAudio, hypothesis: Hypothesis) -> Generation | None:
    """Forbid that any n-gram of NO_REPEAT_NGRAM tokens repeats."""
    if "empty_on_speech" in hypothesis.flags:
        return None
    return _generate(translator, audio, no_repeat_ngram_size=NO_REPEAT_NGRAM)


def penalize_repeats(translator: Translator, audio: SegmentAudio, hypothesis: Hypothesis) -> Generation | None:
    """Penalize tokens that were generated before."""
    if "empty_on_speech" in hypothesis.flags:
        return None
    return _generate(translator, audio, repetition_penalty=REPETITION_PENALTY)


def split_audio(translator: Translator, audio: SegmentAudio, hypothesis: Hypothesis) -> Generation | None:
    """Split the segment at the quietest point near the middle and decode both parts plainly."""
    middle = quietest_sample(audio.waveform)
    halves = (audio.waveform[:middle], audio.waveform[middle:])
    if min(map(len, halves)) < shortest_samples(translator.processor):
        return None
    parts = [make_segment_audio(translator.processor, audio.name, half) for half in halves]
    first, second = (translator.generate([part])[0] for part in parts)
    return Generation(
        text=join_texts(plain_line(first.text), plain_line(second.text)),
        tokens=first.tokens + second.tokens,
        ended=first.ended and second.ended,
    )


def _generate(translator: Translator, audio: SegmentAudio, **changed: Any) -> Generation:
    return translator.generate([audio], **changed)[0]


def quietest_sample(waveform: np.ndarray) -> int:
    """Return the sample in the middle of the quietest tenth of a second within the middle half of a waveform.

    Of equals the one nearest to the middle; the middle of the waveform where that half is shorter than a tenth of a
    second.
    """
    samples = len(waveform)
    starts = np.arange(samples // 4, samples - samples // 4 - FRAME_SAMPLES + 1, STEP_SAMPLES)
    if not len(starts):
        return samples // 2
    sums = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    energies = np.round(sums[starts + FRAME_SAMPLES] - sums[starts], 9)  # sums of silence differ in their last bits
    points = starts + FRAME_SAMPLES // 2
    return int(points[np.lexsort((np.abs(points - samples // 2), energies))[0]])


def join_texts(first: str, second: str) -> str:
    """Return two texts as one, with a space between them except in scripts without spaces."""
    unspaced = first[-1:] >= "\u2e80" or second[:1] >= "\u2e80"  # where the Chinese blocks and their marks begin
    return f"{first}{'' if unspaced else ' '}{second}".strip()
