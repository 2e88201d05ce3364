"""Compute teacher-forced cross-entropy on the dev set, which measures a model's quality without decoding."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from submission.errors import UserError
from submission.runtime.examples import load_examples
from submission.runtime.loading import load_processor
from submission.runtime.loss import mean_loss, measure_losses
from submission.runtime.prompt import Example
from submission.store.digests import canonical_json, write_text
from submission.text.corpus import read_corpus

DEV = "dev.jsonl"
BATCH_SIZE = 16
"""Utterances in a batch. Fixed, since rounding makes the result depend on it."""


@functools.lru_cache(maxsize=1)
def read_dev(
    corpus: Path, data: Path, checkpoint: Path, prompts: tuple[tuple[str, str], ...], end_token: str
) -> dict[str, list[Example]]:
    """Return target language code -> examples of the dev set; the last result is cached for the next system.

    corpus: folder that holds dev.jsonl; data: base folder of its audio paths; checkpoint: a folder with the
    processor that all packed models of it share; prompts: (code, prompt) each.
    """
    processor = load_processor(checkpoint)
    utterances = read_corpus(corpus / DEV)
    examples = load_examples(utterances, data, processor, dict(prompts), end_token, label="loss: reading")
    by_language = {
        code: [e for u, e in zip(utterances, examples, strict=True) if u.target_lang == code] for code, _ in prompts
    }
    for code, found in by_language.items():
        if len(found) < 2:
            what = f"holds {len(found)} utterances translated to {code!r}, expected at least 2"
            raise UserError(str(corpus / DEV), what, "add ACL 60/60 dev in this language to the data folder")
    return by_language


def measure(
    model: Any,
    processor: Any,
    examples: Mapping[str, list[Example]],
    pairs: Mapping[str, str],
    out: Path,
) -> None:
    """Write pair -> loss per target token in nats, its standard error, utterances and tokens; pairs: name -> code."""
    record = {}
    for pair, code in pairs.items():
        losses = measure_losses(
            model, examples[code], processor.tokenizer.pad_token_id, batch_size=BATCH_SIZE, label=f"loss:{pair}"
        )
        counts = {"utterances": len(losses.sums), "tokens": int(losses.tokens.sum())}
        record[pair] = asdict(mean_loss(losses)) | counts
    write_text(out, canonical_json(record))
