"""Choose the utterances that a model is calibrated or recovered on: every stretch of audio once, the pairs in turn."""

from __future__ import annotations

import random
from collections.abc import Iterable

from submission.errors import UserError
from submission.system.recipe.quantize_options import AwqOptions, MomentsOptions, RecoveryOptions
from submission.text.corpus import Utterance


def choose_utterances(
    utterances: Iterable[Utterance],
    options: AwqOptions | MomentsOptions | RecoveryOptions,
    where: str,
    *,
    key: str = "quantize.awq",
) -> list[Utterance]:
    """Return the utterances to calibrate on, in the corpus's order: each stretch of audio once.

    Each takes the translation of one of the pairs, in turn (of the next one that it has). A smaller number of
    utterances is part of a larger one. where: the corpus, and key: where the options stand in a recipe, for messages.
    Raises UserError where a pair or that number is not there.
    """
    places: dict[tuple[str, int, int], dict[str, Utterance]] = {}
    for u in utterances:
        if u.pair in options.pairs:
            places.setdefault(u.stretch, {})[u.pair] = u
    for pair in options.pairs:
        if not any(pair in translations for translations in places.values()):
            raise UserError(where, f"has no utterance of {pair}", f"leave the pair out of {key}.pairs")
    if options.utterances > len(places):
        what = f"requests {options.utterances} utterances, {where} has {len(places)}"
        raise UserError(f"{key}.utterances", what, "write 0 for all there are")
    order = list(range(len(places)))
    random.Random(f"{options.seed}").shuffle(order)
    drawn = sorted(order[: options.utterances or len(order)])
    found, chosen = list(places.values()), []
    for turn, number in enumerate(drawn):
        turned = options.pairs[turn % len(options.pairs) :] + options.pairs
        chosen.append(next(found[number][pair] for pair in turned if pair in found[number]))
    return chosen
