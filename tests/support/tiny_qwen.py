"""A tiny Qwen2-Audio with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from submission.miniature.model import (
    Shape,
    build_model,
    make_config,
    make_processor,
    save_checkpoint,
    train_tokenizer,
)


def build_checkpoint(folder: Path, texts: Sequence[str], shape: Shape, seed: int) -> Path:
    """Write a checkpoint with random weights and return its folder.

    texts: whatever the tokenizer should know, in any language. The same arguments give the same bytes.
    """
    tokenizer = train_tokenizer(texts, shape.vocabulary)
    model = build_model(make_config(tokenizer, shape), seed)
    save_checkpoint(model, make_processor(tokenizer, shape), folder)
    return folder
