"""A packed model with fixed codes, of which scales, zero-points, norms and biases are tuned: what costs no bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedModel

from quantize.packing.pack import read_tensor
from quantize.recovery.tuned_layers import TunedEmbedding, TunedLinear, TunedWeight
from quantize.recovery.tuned_numbers import TunedNumbers
from submission.model.checkpoint import read_checkpoint
from submission.model.families import droppable_parts, family_of, tensors, without_parts
from submission.runtime.families import runtime_of
from submission.runtime.loading import load_weights
from submission.runtime.loss import TargetBatch
from submission.runtime.packed import PackedEmbedding, PackedLinear, PackedTensor


class TunableModel:
    """A packed model in float32 on a device, and what of it is tuned."""

    def __init__(self, folder: Path, device: str) -> None:
        checkpoint = read_checkpoint(folder)
        family = family_of(checkpoint.config)
        module_name = family.module_name
        heard = tensors(without_parts(checkpoint.config, droppable_parts(family)))  # no gradient reaches other weights
        names = {spec.name for spec in heard}
        model = load_weights(folder, torch.float32, device).requires_grad_(False)
        weights = {module_name(name): name for name in checkpoint.codecs}
        self.numbers: dict[str, TunedNumbers] = {}
        """Stored name of a tensor -> its numbers, of every tensor that is tuned."""
        for path, weight in replace_packed(model).items():
            name = weights[path]
            if name not in names:
                continue
            self.numbers |= {f"{name}.{suffix}": numbers for suffix, numbers in weight.numbers.items()}  # type: ignore[misc]
        kept = [spec.name for spec in heard if spec.name not in checkpoint.codecs and len(spec.shape) == 1]
        self._kept = {module_name(name): name for name in kept}
        for name in kept:
            stored = read_tensor(checkpoint.located[name], name).to(device)
            self.numbers[name] = TunedNumbers(stored, "offset")
        self._run = _Logits(model, runtime_of(checkpoint.config).logits)
        self.device = device

    def logits(self, batch: TargetBatch) -> torch.Tensor:
        """Return the logits that predict the targets of a batch, float32 [targets, vocabulary], with gradients."""
        values = {f"model.{path}": self.numbers[name]() for path, name in self._kept.items()}
        logits: torch.Tensor = functional_call(self._run, values, (batch,))
        return logits

    def parameters(self) -> list[nn.Parameter]:
        """Return what the optimizer changes, in an order of its own names."""
        return [self.numbers[name].change for name in sorted(self.numbers)]

    def stored(self) -> dict[str, torch.Tensor]:
        """Return stored name -> tensor as it belongs in the file, of every tensor that is tuned."""
        return {name: numbers.stored() for name, numbers in self.numbers.items()}


class _Logits(nn.Module):
    """The forward pass to the logits of targets, as one module whose parameters a call can replace."""

    def __init__(self, model: PreTrainedModel, logits: Any) -> None:
        super().__init__()
        self.model = model
        self._logits = logits

    def forward(self, batch: TargetBatch) -> torch.Tensor:
        states = self.model.base_model(**batch.inputs, use_cache=False).last_hidden_state
        logits: torch.Tensor = self._logits(self.model, batch.pick(states)).float()
        return logits


def replace_packed(model: nn.Module) -> Mapping[str, TunedWeight]:
    """Put tuned layers in place of packed ones; return path of each weight, `….weight` -> what is tuned of it.

    Layers that share a weight go on sharing it; it is named by the path of the first.
    """
    tuned: dict[PackedTensor, TunedWeight] = {}
    found: dict[str, TunedWeight] = {}
    for path, layer in list(model.named_modules()):
        if not isinstance(layer, (PackedLinear, PackedEmbedding)):
            continue
        if layer.weight not in tuned:
            tuned[layer.weight] = found[f"{path}.weight"] = TunedWeight(layer.weight)
        weight = tuned[layer.weight]
        if isinstance(layer, PackedLinear):
            model.set_submodule(path, TunedLinear(weight, layer.bias))
        else:
            model.set_submodule(path, TunedEmbedding(weight, layer.scale))
    return found
