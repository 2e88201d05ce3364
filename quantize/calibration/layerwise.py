"""Run a model of any size over a corpus with one layer's weights in memory.

The model is built on the meta device, where tensors have shapes and no numbers. Its layers are taken out and run one by
one, each over all batches, with weights that are read from the checkpoint for it and let go after it. What lies around
the layers (embeddings, convolutions, masks, rotary positions, the projector) is the library's own forward pass, run
with stand-ins in the layers' places: those of the stack to come note what each layer is called with and stop the pass;
a stack that is done is replaced by what it put out.

In memory at any time: one layer, or what lies around the layers except the head; the hidden states of all batches in
the compute dtype, on the CPU; and the masks of all batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig

from quantize.packing.pack import read_tensor
from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.model.families import architecture_of
from submission.runtime.loading import MODELS


class InputObserver(Protocol):
    """Is shown what a linear takes in."""

    def __call__(self, weight: str, batch: int, inputs: torch.Tensor) -> None:
        """weight: its name on the hub; batch: number of the batch; inputs: float [rows, positions, channels]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOutput:
    """A part of the model that has been run over all batches."""

    stack: str
    layer: int | None
    """None: all that lies before the stack's first layer."""
    states: list[torch.Tensor]
    """For each batch what the part put out, [rows, positions, channels] in the compute dtype, on the CPU; the same list
    every time, so what is to be kept must be copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What the model calls a layer with, besides hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Stop(Exception):
    """Ends a forward pass behind the last layer that notes its call."""


class _CallRecorder(nn.Module):
    """Stands in for a layer: notes its call, and hands its input on or stops the pass."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self.last = last
        self.states: list[torch.Tensor] = []
        self.calls: list[_Call] = []

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.states.append(states.cpu())
        self.calls.append(_Call(args=args, kwargs=kwargs))
        if self.last:
            raise _Stop
        return states


class _Replaying(nn.Module):
    """Stands in for all layers of a stack: puts out what they have put out, batch by batch."""

    def __init__(self, states: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.states = iter(states)

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return next(self.states).to(states.device)


class LayerwiseModel:
    """A checkpoint's model without its weights, and the way to get at them one layer at a time."""

    def __init__(self, folder: Path, *, dtype: torch.dtype, device: str | torch.device) -> None:
        """dtype: what is computed in; device: where. UserError for a checkpoint that is incomplete or packed."""
        self.checkpoint = read_checkpoint(folder)
        if self.checkpoint.codecs:
            raise UserError(str(folder), "is packed already", "name the checkpoint at full precision")
        self.dtype, self.device = dtype, torch.device(device)
        self.architecture = architecture_of(self.checkpoint.config)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with init_empty_weights(include_buffers=False):
            self.model = MODELS[self.architecture.name]._from_config(config, dtype=dtype).eval()
        for module in self.model.modules():
            module._buffers.update({n: b.to(device) for n, b in module._buffers.items() if b is not None})
        stacks = [stack for stack in self.architecture.stacks if stack.layers is not None]
        self._paths = {stack.name: self.architecture.module_name(stack.layers) for stack in stacks}
        self._layers = {name: self.model.get_submodule(path) for name, path in self._paths.items()}
        for name in self._paths:
            self._put(name, [])

    @property
    def parts(self) -> int:
        """Number of parts that `run` yields: the layers, and what lies before each stack of them."""
        return sum(1 + len(layers) for layers in self._layers.values())

    def loaded_parameters(self) -> int:
        """Return how many parameters have their numbers in memory now."""
        modules = [self.model, *self._layers.values()]
        return sum(p.numel() for module in modules for p in module.parameters() if not p.is_meta)

    @torch.no_grad()
    def run(
        self, batches: Sequence[Mapping[str, torch.Tensor]], observed: Iterable[str], see: InputObserver
    ) -> Iterator[LayerOutput]:
        """Run the model over batches, as `collate` makes them, up to its last layer; yield each part once it has run.

        watched: names on the hub of the weights whose inputs `see` is shown. Whoever has seen enough may stop early.
        """
        current = {"batch": 0}
        handles = []
        for name in observed:
            module = self._module(self.architecture.module_name(name.removesuffix(".weight")))

            def show(_: nn.Module, args: tuple[torch.Tensor, ...], weight: str = name) -> None:
                see(weight, current["batch"], args[0])

            handles.append(module.register_forward_pre_hook(show))
        try:
            for stack in self._layers:
                yield from self._run_stack(stack, batches, current)
        finally:
            for handle in handles:
                handle.remove()

    def _run_stack(
        self, stack: str, batches: Sequence[Mapping[str, torch.Tensor]], current: dict[str, int]
    ) -> Iterator[LayerOutput]:
        layers = self._layers[stack]
        calls, states = self._note(stack, batches, current)
        yield LayerOutput(stack=stack, layer=None, states=states)
        for number, layer in enumerate(layers):
            with self._loaded(self._paths[stack] + f".{number}", layer):
                for batch, call in enumerate(calls[number]):
                    current["batch"] = batch
                    states[batch] = layer(states[batch].to(self.device), *call.args, **call.kwargs).cpu()
            yield LayerOutput(stack=stack, layer=number, states=states)
        self._put(stack, [_Replaying(states)])

    def _note(
        self, stack: str, batches: Sequence[Mapping[str, torch.Tensor]], current: dict[str, int]
    ) -> tuple[list[list[_Call]], list[torch.Tensor]]:
        """Run all that lies before a stack; return the calls of each layer, by batch, and what the first one takes."""
        last = len(self._layers[stack]) - 1
        noting = [_CallRecorder(last=number == last) for number in range(last + 1)]
        self._put(stack, noting)
        with self._loaded("", self.model):
            for batch, inputs in enumerate(batches):
                current["batch"] = batch
                try:
                    self.model(**{name: t.to(self.device) for name, t in inputs.items()}, use_cache=False)
                except _Stop:
                    continue
                raise AssertionError(f"the model came past the last layer of {stack}")
        return [layer.calls for layer in noting], noting[0].states

    @contextmanager
    def _loaded(self, path: str, module: nn.Module) -> Iterator[None]:
        """Give a module its parameters for a while; the whole model all but the head's and those taken out of it."""
        owners = []
        try:
            for name, owner in module.named_modules(prefix=path):
                for parameter, empty in owner._parameters.items():
                    hub = self.architecture.hub_name(f"{name}.{parameter}")
                    if empty is None or self.architecture.role_of(hub) == "lm_head":
                        continue
                    tensor = read_tensor(self.checkpoint.located[hub], hub).to(self.device, self.dtype)
                    owners.append((owner, parameter, empty))
                    owner._parameters[parameter] = nn.Parameter(tensor, requires_grad=False)
            yield
        finally:
            for owner, parameter, empty in owners:
                owner._parameters[parameter] = empty

    def _put(self, stack: str, modules: Iterable[nn.Module]) -> None:
        """Put stand-ins into the place of a stack's layers."""
        parent, _, attribute = self._paths[stack].rpartition(".")
        setattr(self.model.get_submodule(parent), attribute, nn.ModuleList(modules))

    def _module(self, path: str) -> nn.Module:
        """Return a module by its path in the whole model, also where it has been taken out of it."""
        for stack, layers in self._paths.items():
            if path.startswith(f"{layers}."):
                return self._layers[stack].get_submodule(path[len(layers) + 1 :])
        return self.model.get_submodule(path)
