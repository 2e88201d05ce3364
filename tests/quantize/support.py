"""For a small model: codecs by role, prompts, an override that ranks its layers, utterances to calibrate on."""

from __future__ import annotations

from pathlib import Path

from submission.miniature.model import PROMPT
from submission.model.codecs import Affine, Codec
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.prompt import render_prompt
from submission.system.recipe.quantize_options import Override, QuantizeOptions
from submission.text.corpus import Utterance

PROMPTS = {f"en-{code}": render_prompt(PROMPT, name) for code, name in (("de", "German"), ("zh", "Chinese"))}
END = "<|im_end|>"
RANKED_RULES = {"linears": Affine(bits=4, group_size=128), "embedding": Affine(bits=2, group_size=128)}
"""Codecs of `ranked_options`."""


def affine(bits: int, group_size: int) -> Codec:
    return Affine(bits=bits, group_size=group_size)


RULES = {"*": affine(4, 64), "embedding": affine(2, 128), "audio.mlp": affine(8, 96)}
OVERRIDES = (Override(role="mlp", layers="last", count=1, codec=affine(3, 64)),)


def codecs_of(folder: Path) -> dict[str, Codec]:
    """Return the codec of each weight by `RULES` and `OVERRIDES`."""
    return resolve_codecs(read_config(folder), RULES, OVERRIDES)


def ranked_options(role: str = "mlp", bits: int = 2, **changes) -> QuantizeOptions:
    """Return options with one override whose layer is chosen by sensitivity."""
    override = Override(role=role, layers="sensitivity", count=1, codec=Affine(bits=bits, group_size=128))
    return QuantizeOptions(**{"solver": "hqq", "codecs": RANKED_RULES, "overrides": (override,), **changes})


def _utterance(number: int, language: str) -> Utterance:
    return Utterance(
        id=f"{number}-{language}",
        audio="dev/talk.wav",
        start=number * 16_000,
        end=(number + 1) * 16_000,
        source="the cat sleeps",
        target={"de": "die Katze schläft", "zh": "猫睡觉", "fr": "le chat dort"}[language],
        source_lang="en",
        target_lang=language,
        recording="talk",
    )


DEV_UTTERANCES = [_utterance(number, language) for language in ("de", "zh", "fr") for number in range(10)]
"""Ten seconds of a talk, a sentence each, in three languages."""
