"""Whether a text reads like its language or like another of the same script, by trigrams."""

from __future__ import annotations

import pytest

from submission.text.language_profiles import FEWEST_TRIGRAMS, SAMPLES, reads_like

ENGLISH = (
    "Our second experiment compares three ways of rounding. With the simplest one nearly a tenth of the words came out "
    "wrong; the others were almost as good as the full model, which surprised us, since they take no longer."
)
GERMAN = (
    "Unser zweiter Versuch vergleicht drei Arten zu runden. Bei der einfachsten war fast jedes zehnte Wort falsch; die "
    "anderen waren beinahe so gut wie das volle Modell, was uns überraschte, denn sie dauern nicht länger."
)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        (GERMAN, "de", ""),
        (ENGLISH, "de", "en"),
        (ENGLISH, "en", ""),
        (GERMAN, "en", "de"),
        # Names, formulas and a foreign sentence are common in every language.
        (f'{GERMAN} Das Verfahren heißt "Weight-Only Quantization of Large Language Models".', "de", ""),
        # What is too short, in another script, or of a language without a profile is judged by nothing.
        (ENGLISH[: FEWEST_TRIGRAMS - 10], "de", ""),
        ("这是一个测试。" * 100, "de", ""),
        (ENGLISH, "fr", ""),
        ("", "de", ""),
    ],
)
def test_a_text_reads_like_its_own_language_or_clearly_like_another(text, language, expected):
    assert reads_like(text, language, ["de", "en", "zh"]) == expected


def test_every_sample_reads_like_itself():
    assert all(reads_like(text, language, SAMPLES) == "" for language, text in SAMPLES.items())
    assert reads_like(SAMPLES["de"], "en", SAMPLES) == "de"
