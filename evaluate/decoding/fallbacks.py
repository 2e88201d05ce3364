"""Decoding a failed segment again in other ways, and keeping the best of what comes out.

The plain hypothesis fails by repeating itself, by going on beyond what the audio can hold, or by saying nothing
(`evaluate.decoding.failures`). Each attempt is one way to decode the same segment; none is told what another found.

A candidate is kept only where nothing is wrong with it. Of several, the one is kept that the plain model finds the
likeliest: mean log-probability per token, teacher-forced on the whole segment, without the attempt's constraint. The
plain hypothesis itself is compared by that figure only where it is blank: there the model says how sure it is that
there is nothing to translate, and a text must be likelier than that. The figure of a repetition is worth nothing, since
each copy makes the next one likelier; whatever does not fail is better than that. Where no candidate is, the plain
hypothesis stays.

A segment is mended alone, so that what comes out does not depend on which others failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from evaluate.decoding.failures import FAILURES, REPEATING, failures
from evaluate.decoding.generation import Generation, Translator
from evaluate.decoding.hypotheses import Candidate, Hypothesis, Mend, flag_text
from submission.runtime.prompt import extract_features, shortest_samples
from submission.text.characters import plain_line
from submission.text.segments import SAMPLE_RATE

Attempt = Literal["length", "no_repeat", "penalty", "split"]

REPETITION_PENALTY = 1.2
"""Keskar et al. 2019 (CTRL), section 4.1: the value at which they balance truth against repetition."""
NO_REPEAT_NGRAM = 3
"""Tokens that may not come twice in the same order: with four, a word four times in a row would get through."""
LEAST_TOKENS_PER_SECOND = 1.0
"""Slow speech has two words a second; a blank is made to say half of that at least."""
USUAL_TOKENS_PER_SECOND = 6.0
"""From here on the end is favoured; half as much again as German takes at an ordinary pace in Qwen's vocabulary."""
END_GROWTH = 1.1
"""By how much more the end is favoured with every further token."""
FRAME_SAMPLES = SAMPLE_RATE // 10
STEP_SAMPLES = SAMPLE_RATE // 50
SCORE_DECIMALS = 4


def mend(
    translator: Translator, waveform: np.ndarray, hypothesis: Hypothesis, attempts: tuple[Attempt, ...]
) -> Hypothesis:
    """Return a failed hypothesis with what was tried on it, its text replaced where a candidate is better.

    waveform: float32 [samples], as the plain model heard it. A hypothesis without a failure comes back as it is.
    """
    if not set(hypothesis.flags) & set(FAILURES):
        return hypothesis
    heard = extract_features(translator.processor, waveform, hypothesis.segment)

    def score(text: str) -> float:
        return round(translator.score(heard, text), SCORE_DECIMALS)

    texts, tried = {}, {}
    for name in attempts:
        answer = ATTEMPTS[name](translator, waveform, hypothesis)
        if answer is None:
            continue
        texts[name] = plain_line(answer.text)
        flags = flag_text(texts[name], flags_of(answer, len(waveform) / SAMPLE_RATE))
        tried[name] = Candidate(flags=flags, score=score(texts[name]))
    original = Candidate(flags=hypothesis.flags, score=score(hypothesis.text))
    kept = choose(original, tried)
    outer = [flag for flag in hypothesis.flags if flag == "clipped"]  # of the segment, whatever is said to it
    return Hypothesis(
        segment=hypothesis.segment,
        text=texts[kept] if kept else hypothesis.text,
        flags=tuple(sorted({*tried[kept].flags, *outer})) if kept else hypothesis.flags,
        mend=Mend(kept=kept, text=hypothesis.text, original=original, tried=tried),
    )


def choose(original: Candidate, tried: dict[str, Candidate]) -> str:
    """Return the name of the candidate to keep, the first of equals; nothing where the original stays."""
    least = -math.inf if set(original.flags) & set(REPEATING) else original.score
    good = {name: candidate for name, candidate in tried.items() if not set(candidate.flags) & {*FAILURES, "blank"}}
    better = {name: candidate.score for name, candidate in good.items() if candidate.score > least}
    return max(better, key=better.__getitem__, default="")


def flags_of(answer: Generation, seconds: float) -> list[str]:
    """Return what is wrong with an answer to so much audio."""
    cut = [] if answer.ended else ["truncated"]
    return [*failures(plain_line(answer.text), answer.tokens, seconds), *cut]


# --- the attempts: each returns an answer, or None where it cannot help ---


def _length(translator: Translator, waveform: np.ndarray, hypothesis: Hypothesis) -> Generation | None:
    """Make a blank say something; favour the end of what goes on too long, more with each token."""
    seconds = len(waveform) / SAMPLE_RATE
    if "missed" in hypothesis.flags:
        least = min(math.ceil(LEAST_TOKENS_PER_SECOND * seconds), translator.settings.max_new_tokens)
        return _answer(translator, waveform, hypothesis, min_new_tokens=least)
    start = math.ceil(USUAL_TOKENS_PER_SECOND * seconds)
    return _answer(translator, waveform, hypothesis, exponential_decay_length_penalty=(start, END_GROWTH))


def _no_repeat(translator: Translator, waveform: np.ndarray, hypothesis: Hypothesis) -> Generation | None:
    if "missed" in hypothesis.flags:
        return None
    return _answer(translator, waveform, hypothesis, no_repeat_ngram_size=NO_REPEAT_NGRAM)


def _penalty(translator: Translator, waveform: np.ndarray, hypothesis: Hypothesis) -> Generation | None:
    if "missed" in hypothesis.flags:
        return None
    return _answer(translator, waveform, hypothesis, repetition_penalty=REPETITION_PENALTY)


def _split(translator: Translator, waveform: np.ndarray, hypothesis: Hypothesis) -> Generation | None:
    """Decode both sides of the quietest point near the middle, plainly."""
    middle = quietest(waveform)
    halves = (waveform[:middle], waveform[middle:])
    if min(map(len, halves)) < shortest_samples(translator.processor):
        return None
    first, second = (translator.generate([half], [hypothesis.segment])[0] for half in halves)
    return Generation(
        text=join(plain_line(first.text), plain_line(second.text)),
        tokens=first.tokens + second.tokens,
        ended=first.ended and second.ended,
    )


def _answer(translator: Translator, waveform: np.ndarray, hypothesis: Hypothesis, **changed: object) -> Generation:
    return translator.generate([waveform], [hypothesis.segment], **changed)[0]


ATTEMPTS: dict[str, Callable[[Translator, np.ndarray, Hypothesis], Generation | None]] = {
    "length": _length,
    "no_repeat": _no_repeat,
    "penalty": _penalty,
    "split": _split,
}


def quietest(waveform: np.ndarray) -> int:
    """Return the middle of the tenth of a second with the least energy in the middle half of a waveform.

    Of equals the one nearest to the middle; the middle itself where the half is shorter than a tenth of a second.
    """
    samples = len(waveform)
    starts = np.arange(samples // 4, samples - samples // 4 - FRAME_SAMPLES + 1, STEP_SAMPLES)
    if not len(starts):
        return samples // 2
    sums = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    energies = np.round(sums[starts + FRAME_SAMPLES] - sums[starts], 9)  # sums of silence differ in their last bits
    points = starts + FRAME_SAMPLES // 2
    return int(points[np.lexsort((np.abs(points - samples // 2), energies))[0]])


def join(first: str, second: str) -> str:
    """Return two texts as one: with a blank between them, but for scripts that write none."""
    unspaced = first[-1:] >= "\u2e80" or second[:1] >= "\u2e80"  # where the Chinese blocks and their marks begin
    return f"{first}{'' if unspaced else ' '}{second}".strip()
