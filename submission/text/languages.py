"""What scoring must know of a target language."""

from __future__ import annotations

BLEU_TOKENIZERS = {"zh": "zh", "ja": "char"}
"""Target language -> sacrebleu's tokenizer where it is not its default. (`ja-mecab` would need MeCab.)"""


def bleu_tokenizer(language: str) -> str:
    """Return the name of sacrebleu's tokenizer for BLEU in a target language."""
    return BLEU_TOKENIZERS.get(language, "13a")
