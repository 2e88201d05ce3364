"""Measure the training step at the size of a campaign's model on a GPU: speed, memory, share of the card's peak.

None of that depends on the values of the weights, so they are random, made on the device from the configuration that
ships with the program, and so are the utterances: all of one length, with as many tokens as real ones. The step is
fine-tuning's own but for the Trainer around it: the same model class, adapters, loss, optimizer, clipping and
checkpointing of activations. Its floating-point operations are counted by torch as they are done, those that
checkpointing repeats included, and compared with the rate that the card's maker states for bf16 without sparsity.
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from typing import Any

import torch
from peft import PeftModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from submission.errors import UserError
from submission.model.families import family_of, shipped_config
from submission.runtime.families import runtime_of
from submission.runtime.prompt import Example
from submission.store.store import peak_bytes
from submission.system.recipe.training_options import FinetuneOptions
from train.batches import collate_targets
from train.bench.step import WARM_UP_STEPS
from train.model import TargetLoss, adapt, target_modules

SPEECH_SECONDS = 6.3
"""Mean length of an utterance in the paper's German sample."""
PROMPT_TOKENS, TARGET_TOKENS = 12, 32
"""About the tokens of the campaign's prompt and of a sentence of sixteen German words."""
PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "B200": 2250e12,
}
"""Part of a card's name, the longer before the shorter -> operations per second in dense bf16, by its data sheet."""


def peak_flops(card: str) -> float | None:
    """Return a card's stated peak in bf16, or None for one that is not known here."""
    return next((peak for name, peak in PEAK_FLOPS.items() if all(word in card for word in name.split())), None)


def make_batch(config: dict[str, Any], size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return a training batch of noise and random tokens, tensors as in train.batches.collate_targets.

    config: a checkpoint's config.json.
    """
    runtime, vocabulary = runtime_of(config), family_of(config).ordinary_tokens(config)

    def text(tokens: int) -> torch.Tensor:
        return torch.randint(0, vocabulary, (tokens,), generator=generator)

    def example() -> Example:
        audio = runtime.noise(config, SPEECH_SECONDS, generator)
        expanded = torch.full((audio.positions,), runtime.audio_token(config))
        prompt = torch.cat([text(PROMPT_TOKENS // 2), expanded, text(PROMPT_TOKENS - PROMPT_TOKENS // 2)])
        ids = torch.cat([prompt, text(TARGET_TOKENS)])
        return Example(audio=audio, input_ids=ids, prompt_tokens=len(prompt))

    return collate_targets([example() for _ in range(size)], pad_token_id=0)


def _random_model(config: dict[str, Any], **arguments: Any) -> PreTrainedModel:
    """Return a model of a configuration, as torch's default device makes it."""
    model_class = runtime_of(config).model_class
    assert model_class.config_class is not None  # as every family's class has one
    return model_class._from_config(model_class.config_class.from_dict(config), **arguments)


def make_model(config: dict[str, Any], options: FinetuneOptions, device: torch.device) -> PeftModel:
    """Return a model of random weights with adapters, in training, as fine-tuning loads one.

    config: a checkpoint's config.json.
    """
    torch.manual_seed(options.seed)
    with torch.device(device):
        base = _random_model(
            config,
            dtype=getattr(torch, options.dtype),
            attn_implementation="sdpa" if device.type == "cuda" else "eager",
        )
        model = adapt(base, list(target_modules(config, options.roles)), options)
    if options.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    return model


def time_steps(
    model: PeftModel, batch: dict[str, torch.Tensor], options: FinetuneOptions, steps: int, device: torch.device
) -> dict[str, float]:
    """Return the median seconds of a step, the operations of one, and the peak of memory; the first are not timed."""
    trained = [p for p in model.parameters() if p.requires_grad]
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    optimizer, loss_of = torch.optim.AdamW(trained, lr=options.learning_rate), TargetLoss(base)
    bf16 = options.dtype == "bfloat16"
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    labels = batch.pop("labels")

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            loss = loss_of(model, dict(batch), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    seconds = []
    for _ in range(steps):
        begun = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_bytes()
    with FlopCounterMode(display=False) as counter:
        step()
    return {
        "seconds_per_step": statistics.median(seconds[WARM_UP_STEPS:]),
        "flops_per_step": counter.get_total_flops(),
        "peak_bytes": memory,
    }


def bench_full_size(model_name: str, options: FinetuneOptions, *, steps: int) -> dict[str, Any]:
    """Return tokens/s, utterances/s, memory and share of the card's bf16 peak of the step at a model's full size.

    Raises UserError for a model whose configuration does not ship, and where there is no GPU, or one too small for the
    weights.
    """
    config, where = shipped_config(model_name), "train bench --full-size"
    if config is None:
        what = f"no configuration of {model_name} ships, only those of published base models"
        raise UserError(where, what, "name a campaign of one of them, --campaign iwslt26")
    if not torch.cuda.is_available():
        what = f"no GPU here: a step of {model_name} is measured on CUDA, and torch sees none"
        raise UserError(where, what, "run it where `torch.cuda.is_available()`, or leave --full-size out")
    device, card = torch.device("cuda"), torch.cuda.get_device_name()
    with torch.device("meta"):
        whole = _random_model(config)
    size = sum(p.numel() for p in whole.parameters())
    free, _ = torch.cuda.mem_get_info()
    if free < (needed := size * getattr(torch, options.dtype).itemsize):
        what = f"{card} has {free / 2**30:.1f} GiB free, the weights alone take {needed / 2**30:.1f}"
        raise UserError(where, what, "free it, or take a larger one")
    batch = make_batch(config, options.batch_size, torch.Generator().manual_seed(0))
    tokens = int(batch["attention_mask"].sum())
    found = time_steps(make_model(config, options, device), batch, options, steps, device)
    rate, peak = found["flops_per_step"] / found["seconds_per_step"], peak_flops(card)
    return found | {
        "card": card,
        "parameters": size,
        "batch_size": options.batch_size,
        "tokens_per_second": tokens / found["seconds_per_step"],
        "utterances_per_second": options.batch_size / found["seconds_per_step"],
        "flops_per_second": rate,
        "share_of_peak": rate / peak if peak else None,
    }
