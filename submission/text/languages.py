"""What scoring must know of a target language."""

from __future__ import annotations

BLEU_TOKENIZERS = {"zh": "zh", "ja": "char"}
"""Target language -> sacrebleu's tokenizer where it is not its default. (`ja-mecab` would need MeCab.)"""


def bleu_tokenizer(language: str) -> str:
    """Return the name of sacrebleu's tokenizer for BLEU in a target language."""
    return BLEU_TOKENIZERS.get(language, "13a")


NAMES = {
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fr": "french",
    "it": "italian",
    "ja": "japanese",
    "nl": "dutch",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "tr": "turkish",
    "zh": "chinese",
}
"""Code -> English name, as reference files write it in `trglang`."""


def language_labels(code: str) -> frozenset[str]:
    """Return how a file may name a language, in lower case: its code and its English name; none for ""."""
    return frozenset({code, NAMES.get(code, code)}) if code else frozenset()
