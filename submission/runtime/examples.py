"""Make examples, the model's inputs, from the utterances of a corpus, and form batches of them.

For all that measures a model on a corpus (loss, sensitivity, calibration): every utterance once, in the corpus's order,
and batches whose composition depends on lengths alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submission.errors import UserError
from submission.progress import progress
from submission.runtime.audio import read_slice
from submission.runtime.families.family import AudioFeatures
from submission.runtime.prompt import Example, encode, end_token_id, extract_features
from submission.text.corpus import Utterance


def load_examples(
    utterances: Sequence[Utterance],
    data: Path,
    processor: Any,
    prompts: Mapping[str, str],
    end_token: str,
    *,
    targets: bool = True,
    label: str,
) -> list[Example]:
    """Return one example an utterance, in order.

    Utterances of the same stretch of audio (one a target language) share its features.
    data: the folder that their audio paths are relative to; prompts: target language code -> rendered prompt;
    targets: whether the translation and the end token follow the prompt; label: the name on the progress line.
    Raises UserError for a language without a prompt, before any audio is read, and for audio that `extract_features`
    refuses.
    """
    end_token_id(processor, end_token)
    for u in utterances:
        if u.target_lang not in prompts:
            what = f"its target language {u.target_lang!r} has no prompt, only {sorted(prompts)} have"
            raise UserError(f"utterance {u.id}", what, "leave it out, or add the pair to the campaign")
    features: dict[tuple[str, int, int], AudioFeatures] = {}
    examples = []
    with progress(label, len(utterances), "utterances") as tick:
        for u in utterances:
            stretch = (u.audio, u.start, u.end)
            if stretch not in features:
                features[stretch] = extract_features(processor, read_slice(data / u.audio, u.start, u.end), u.id)
            target = u.target if targets else None
            examples.append(encode(processor, features[stretch], prompts[u.target_lang], target, end_token))
            tick(1)
    return examples


def form_batches(examples: Sequence[Example], batch_size: int) -> list[list[int]]:
    """Return the indices of every batch: like lengths together, the longest first, so that memory runs out at once.

    Equally long examples keep their order; only the last batch may be short.
    """
    order = sorted(range(len(examples)), key=lambda index: -len(examples[index].input_ids))
    return [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]
