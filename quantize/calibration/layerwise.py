"""Run a model of any size over a corpus with one layer's weights in memory.

The model is built on the meta device, where tensors have shapes and no numbers. Its layers are taken out and run one by
one, each over all batches, with weights that are read from the checkpoint for it and released after it. What lies
around the layers (embeddings, convolutions, masks, rotary positions, the projector) is the library's own forward pass,
run with stand-ins in the layers' places: those of the next stack record the call of each layer and stop the pass; those
of a finished stack return its recorded outputs. The family gives the stacks and their order.

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
from transformers import AutoConfig, PreTrainedModel

from quantize.packing.pack import read_tensor
from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.model.families import family_of
from submission.runtime.families import runtime_of


class InputObserver(Protocol):
    """Receives the inputs of a linear."""

    def __call__(self, weight: str, batch: int, inputs: torch.Tensor) -> None:
        """weight: its name on the hub; batch: number of the batch; inputs: float [rows, positions, channels]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOutput:
    """The output of a part of the model over all batches."""

    stack: str
    layer: int | None
    """None: all that lies before the stack's first layer."""
    states: list[torch.Tensor]
    """For each batch the part's output, [rows, positions, channels] in the compute dtype, on the CPU; the same list
    every time, so what is to be kept must be copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """The arguments of a layer besides hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Stop(Exception):
    """Ends a forward pass at the last layer that records its call."""


class _CallRecorder(nn.Module):
    """Replaces a layer: records its call, and returns its input or stops the pass."""

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


class _OutputReplayer(nn.Module):
    """Replaces all layers of a stack: returns their recorded outputs, batch by batch."""

    def __init__(self, states: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.states = iter(states)

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return next(self.states).to(states.device)


def _layer_list(model: PreTrainedModel, path: str) -> nn.ModuleList:
    layers = model.get_submodule(path)
    assert isinstance(layers, nn.ModuleList)  # what a family's stack names
    return layers


class LayerwiseModel:
    """A checkpoint's model without its weights, which are loaded one layer at a time."""

    def __init__(self, folder: Path, *, dtype: torch.dtype, device: str | torch.device) -> None:
        """dtype: of the computation; device: where it runs. UserError for a checkpoint that is incomplete or packed."""
        self.checkpoint = read_checkpoint(folder)
        if self.checkpoint.codecs:
            raise UserError(str(folder), "is packed already", "name the checkpoint at full precision")
        self.dtype, self.device = dtype, torch.device(device)
        self.family = family_of(self.checkpoint.config)
        self._tied = self.family.tied_weights(self.checkpoint.config)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with init_empty_weights(include_buffers=False):
            model_class = runtime_of(self.checkpoint.config).model_class
            self.model: PreTrainedModel = model_class._from_config(config, dtype=dtype).eval()
        for module in self.model.modules():
            module._buffers.update({n: b.to(device) for n, b in module._buffers.items() if b is not None})
        stacks = self.family.stacks
        self._paths = {s.name: self.family.module_name(s.layers) for s in stacks if s.layers is not None}
        self._layers = {name: _layer_list(self.model, path) for name, path in self._paths.items()}
        for name in self._paths:
            self._put(name, [])

    @property
    def parts(self) -> int:
        """Number of parts that `run` yields: the layers, and the part before each stack of them."""
        return sum(1 + len(layers) for layers in self._layers.values())

    def loaded_parameters(self) -> int:
        """Return how many parameters are in memory now."""
        modules = [self.model, *self._layers.values()]
        return sum(p.numel() for module in modules for p in module.parameters() if not p.is_meta)

    @torch.no_grad()
    def run(
        self, batches: Sequence[Mapping[str, torch.Tensor]], observed: Iterable[str], observer: InputObserver
    ) -> Iterator[LayerOutput]:
        """Run the model over batches, as `collate` makes them, up to its last layer; yield each part once it has run.

        observed: names on the hub of the weights whose inputs the observer receives. The caller may stop early.
        """
        current = {"batch": 0}
        handles = []
        for name in observed:
            module = self._module(self.family.module_name(name.removesuffix(".weight")))

            def report(_: nn.Module, args: tuple[torch.Tensor, ...], weight: str = name) -> None:
                observer(weight, current["batch"], args[0])

            handles.append(module.register_forward_pre_hook(report))
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
        calls, states = self._record_calls(stack, batches, current)
        yield LayerOutput(stack=stack, layer=None, states=states)
        for number, layer in enumerate(layers):
            with self._loaded(self._paths[stack] + f".{number}", layer):
                for batch, call in enumerate(calls[number]):
                    current["batch"] = batch
                    states[batch] = layer(states[batch].to(self.device), *call.args, **call.kwargs).cpu()
            yield LayerOutput(stack=stack, layer=number, states=states)
        self._put(stack, [_OutputReplayer(states)])

    def _record_calls(
        self, stack: str, batches: Sequence[Mapping[str, torch.Tensor]], current: dict[str, int]
    ) -> tuple[list[list[_Call]], list[torch.Tensor]]:
        """Run the part before a stack; return the calls of each layer, by batch, and the inputs of the first one."""
        last = len(self._layers[stack]) - 1
        recorders = [_CallRecorder(last=number == last) for number in range(last + 1)]
        self._put(stack, recorders)
        with self._loaded("", self.model):
            for batch, inputs in enumerate(batches):
                current["batch"] = batch
                try:
                    self.model(**{name: t.to(self.device) for name, t in inputs.items()}, use_cache=False)
                except _Stop:
                    continue
                raise AssertionError(f"the forward pass did not stop at the last layer of {stack}")
        return [recorder.calls for recorder in recorders], recorders[0].states

    @contextmanager
    def _loaded(self, path: str, module: nn.Module) -> Iterator[None]:
        """Load a module's parameters for a while; of the whole model all but the head's and those of the layers."""
        owners = []
        try:
            for name, owner in module.named_modules(prefix=path):
                for parameter, empty in owner._parameters.items():
                    hub = self.family.hub_name(f"{name}.{parameter}")
                    if empty is None or hub in self._tied or self.family.role_of(hub) == "lm_head":
                        continue  # the head is never run, whether it has its own weight or the embedding's
                    tensor = read_tensor(self.checkpoint.located[hub], hub).to(self.device, self.dtype)
                    owners.append((owner, parameter, empty))
                    owner._parameters[parameter] = nn.Parameter(tensor, requires_grad=False)
            yield
        finally:
            for owner, parameter, empty in owners:
                owner._parameters[parameter] = empty

    def _put(self, stack: str, modules: Iterable[nn.Module]) -> None:
        """Replace a stack's layers by stand-ins."""
        parent, _, attribute = self._paths[stack].rpartition(".")
        setattr(self.model.get_submodule(parent), attribute, nn.ModuleList(modules))

    def _module(self, path: str) -> nn.Module:
        """Return a module by its path in the whole model, also where it is in a layer that was taken out."""
        for stack, layers in self._paths.items():
            if path.startswith(f"{layers}."):
                return self._layers[stack].get_submodule(path[len(layers) + 1 :])
        return self.model.get_submodule(path)
