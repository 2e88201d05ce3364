"""Options of a fine-tuning of one step, for models that have attention and MLPs and no more."""

from __future__ import annotations

from submission.system.recipe.training_options import FinetuneOptions

DECODER_OPTIONS = FinetuneOptions(
    roles=("attn", "mlp"),
    rank=4,
    alpha=8,
    dropout=0.0,
    learning_rate=1e-3,
    epochs=1,
    batch_size=2,
    warmup_ratio=0.0,
    weight_decay=0.0,
    dtype="float32",
    gradient_checkpointing=False,
    log_every_steps=1,
    save_every_steps=1,
    seed=1,
)
