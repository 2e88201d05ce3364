"""Compute the losses of a model with each of its layers in turn swapped for another version, in one run.

What enters a layer does not depend on how that layer is stored. So the model runs once, with a fork at every layer:
the layer's swapped version gets the same inputs, and its output passes through the layers above beside the model's own
hidden states. L layers cost L + L (L + 1) / 2 runs of a layer where L + 1 whole models cost L (L + 1), and the part
before the layers (audio, embedding, masks) runs once in place of L + 1 times. Packed weights are unpacked once per
layer.

Layers are called by the model's own forward with its own arguments, so this depends on no family; it requires that
layers return their hidden states alone, as those of transformers 5 do. The price is memory: at the last layer there is
a fork for each layer, with 32 layers 4096 wide in bfloat16 262 kB a token of the batch in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from submission.runtime.loss import TargetBatch, target_losses
from submission.runtime.packed import PackedLinear
from submission.runtime.quantizer import plain_layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Swaps:
    """The swapped versions of layers."""

    stack: str
    """Path of the list of layers in the loaded model, `model.language_model.layers`."""
    by_layer: dict[int, dict[str, PackedLinear]]
    """Layer number -> path within the layer, `mlp.up_proj` -> its replacement."""

    def apply(self, model: PreTrainedModel, layer: int) -> Any:
        """Return the context in which one layer of the model is swapped, as a reference for a sweep."""
        return replaced(model, {f"{self.stack}.{layer}.{path}": part for path, part in self.by_layer[layer].items()})


@contextmanager
def replaced(module: nn.Module, parts: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put other modules at some paths below a module, for as long as the context lasts."""
    kept = {path: module.get_submodule(path) for path in parts}
    try:
        for path, part in parts.items():
            module.set_submodule(path, part)
        yield
    finally:
        for path, part in kept.items():
            module.set_submodule(path, part)


@torch.inference_mode()
def sweep_batch(model: PreTrainedModel, swaps: Swaps, batch: TargetBatch) -> torch.Tensor:
    """Return the summed loss of each utterance, float64 [1 + swapped layers, batch].

    The first row is the model's as it is; those with one layer swapped follow, by ascending number.
    """
    picked = [batch.pick(states) for states in last_states(model, swaps, batch.inputs)]
    losses = target_losses(model, torch.cat(picked), batch.ids.repeat(len(picked)))
    return torch.stack([batch.sum_by_utterance(part) for part in losses.view(len(picked), -1)])


def last_states(model: PreTrainedModel, swaps: Swaps, inputs: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield what enters the head, [batch, tokens, width]: of the model as it is, then with each layer swapped."""
    layers, decoder = model.get_submodule(swaps.stack), model.get_decoder()
    assert isinstance(layers, nn.ModuleList)  # what a family's stack names
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = decoder.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    forks: dict[int, torch.Tensor] = {}
    stack = nn.ModuleList(
        _Fork(layer, forks, number, swaps.by_layer.get(number)) for number, layer in enumerate(layers)
    )
    try:
        with replaced(model, {swaps.stack: stack}):
            states = model.base_model(**inputs, use_cache=False).last_hidden_state
    finally:
        hook.remove()
    yield states
    args, kwargs = calls[0]
    within = any(module is layers for module in decoder.modules())
    for number in sorted(forks):
        stack = nn.ModuleList(_Kept(layer, forks[number]) for layer in layers)
        # The model also runs the part after the layers, on the hidden states that the stand-ins return.
        with replaced(model, {swaps.stack: stack}):
            output = decoder(*args, **kwargs) if within else model.base_model(**inputs, use_cache=False)
        yield output.last_hidden_state
        del forks[number]


class _StandIn(nn.Module):
    """Replaces a layer in its stack; attributes are those of the layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


class _Fork(_StandIn):
    """A layer that also runs on the forks of the layers below, and adds its own fork."""

    def __init__(
        self, layer: nn.Module, forks: dict[int, torch.Tensor], number: int, swap: dict[str, PackedLinear] | None
    ) -> None:
        """forks: layer number -> hidden states of the run in which that layer is swapped; shared by the stack."""
        super().__init__(layer)
        self.forks = forks
        self.number = number
        self.swap = swap

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        layer = self.layer
        with replaced(layer, _unpacked(layer)):
            output = layer(hidden_states, *args, **kwargs)
            if not isinstance(output, torch.Tensor):
                raise TypeError(f"{type(layer).__name__} returns {type(output).__name__}, expected its hidden states")
            for number in self.forks:
                self.forks[number] = layer(self.forks[number], *args, **kwargs)
            if self.swap is not None:
                with replaced(layer, self.swap):
                    self.forks[self.number] = layer(hidden_states, *args, **kwargs)
        return output


class _Kept(_StandIn):
    """A layer whose output is known: returns the same hidden states for any input."""

    def __init__(self, layer: nn.Module, states: torch.Tensor) -> None:
        super().__init__(layer)
        self.states = states

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.states


def _unpacked(layer: nn.Module) -> dict[str, nn.Module]:
    """Return the packed linears of a layer as plain ones, by path, in the dtype that the model computes in."""
    packed = {path: part for path, part in layer.named_modules() if isinstance(part, PackedLinear)}
    return {path: plain_layer(part, part.weight.dtype) for path, part in packed.items()}
