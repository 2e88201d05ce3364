"""Recovery of a quantized language model on text: scales, zero-points and norms are tuned, codes and bytes stay.

The same tuned numbers, layers and optimizer as those of `quantize recover`; here the divergence from the original is
taken over the whole vocabulary and at every position of a text, each of which is seen once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from quantize.recovery.tunable_model import replace_packed
from quantize.recovery.tuned_numbers import TunedNumbers
from quantize.recovery.tuning import optimize
from submission.errors import UserError
from submission.progress import progress
from submission.runtime.packed import PackedEmbedding, PackedLinear, PackedTensor

STEPS = 20
BATCH_SIZE = 4
TOKENS = 128
"""Length of a sequence that is tuned on."""
LEARNING_RATE = 0.005
SEED = 0


def recovery_sequences(tokens: torch.Tensor) -> torch.Tensor:
    """Return as many sequences as all steps take, in an order drawn once, int64 [STEPS * BATCH_SIZE, TOKENS]."""
    there, needed = len(tokens) // TOKENS, STEPS * BATCH_SIZE
    if needed > there:
        what = f"the text for calibration has {there} sequences of {TOKENS} tokens, recovery takes {needed}"
        raise UserError("bench_lm", what, "name a longer text")
    order = torch.randperm(there, generator=torch.Generator().manual_seed(SEED))[:needed]
    return tokens[: there * TOKENS].view(there, TOKENS)[order]


def recover_weights(
    model: Any, packed: Mapping[str, PackedTensor], sequences: torch.Tensor
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Return all tuned weights and norms, float32 by name, and the divergence of every step, in nats per token.

    model: the original, float32, which is left as it was; packed: the quantized weights by name; sequences: int64
    [n, tokens], a batch one after the other.
    """
    states, head = _last_states(model, sequences), model.lm_head.weight.detach()
    norms = {name: TunedNumbers(norm.detach(), "offset") for name, norm in model.named_parameters() if norm.ndim == 1}
    plain = {name.removesuffix(".weight"): model.get_submodule(name.removesuffix(".weight")) for name in packed}
    required = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.requires_grad_(False)
    try:
        for path, layer in plain.items():
            model.set_submodule(path, _packed_layer(layer, packed[f"{path}.weight"]))
        weights = replace_packed(model)
        changes = [norm.change for norm in norms.values()]
        changes += [change for _, weight in sorted(weights.items()) for change in weight.parameters()]

        def backward(batch: list[int]) -> float:
            values = {name: norm() for name, norm in norms.items()}
            found = functional_call(model, values, kwargs={"input_ids": sequences[batch], "use_cache": False}).logits
            loss = _divergence(found, states[batch] @ head.t()) / sequences[batch].numel()
            loss.backward()
            return float(loss.detach())

        batches = torch.arange(len(sequences)).split(BATCH_SIZE)
        losses = optimize(changes, [batch.tolist() for batch in batches], backward, LEARNING_RATE)
        with torch.no_grad():
            tuned = {name: norm() for name, norm in norms.items()}
            tuned |= {name: weight.dequantize(weight.values(), slice(None)) for name, weight in weights.items()}
    finally:
        for path, layer in plain.items():
            model.set_submodule(path, layer)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(required[name])
    return tuned, losses


def _packed_layer(layer: nn.Module, weight: PackedTensor) -> nn.Module:
    """Return a layer without a bias with its weight packed."""
    return PackedEmbedding(weight) if isinstance(layer, nn.Embedding) else PackedLinear(weight, None)


@torch.no_grad()
def _last_states(model: Any, sequences: torch.Tensor) -> torch.Tensor:
    """Return what the head reads of each sequence, float32 [n, tokens, channels]."""
    found = []
    with progress("recover: original model", len(sequences), "sequences") as tick:
        for part in sequences.split(BATCH_SIZE):
            found.append(model.model(input_ids=part, use_cache=False).last_hidden_state)
            tick(len(part))
    return torch.cat(found)


def _divergence(logits: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """Return the divergence (Kullback and Leibler) of logits [..., vocabulary] from the original's, summed."""
    return F.kl_div(logits.log_softmax(-1), original.log_softmax(-1), reduction="sum", log_target=True)
