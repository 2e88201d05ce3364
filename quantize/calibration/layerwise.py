"""Run a model of any size over a corpus with one layer's weights in memory.

The model is built on the meta device, where tensors have shapes and no numbers. Its layers are taken out and run one by
one, each over all batches, with weights that are read from the checkpoint for it and released after it. What lies
around the layers (embeddings, convolutions, masks, rotary positions, the projector) is the library's own forward pass,
run with stand-ins in the layers' places: those of the next stack record the call of each layer and stop the pass; those
of a finished stack return its recorded outputs. The family gives the stacks and their order.

In memory at any time: one layer, or what lies around the layers except the head, or the head. `run` besides holds the
hidden states of all batches in the compute dtype, on the CPU, and the masks of all batches; a caller of `before`,
`layer`, `behind` and `head` keeps them where it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

Inputs = Mapping[str, torch.Tensor]
"""What a model's forward takes, or outputs of stacks by name."""


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
class LayerCall:
    """The arguments of a layer besides hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackEntry:
    """What reaches the layers of a stack in one batch."""

    states: torch.Tensor
    """Inputs of the first layer, [rows, positions, channels]."""
    calls: tuple[LayerCall, ...]
    """Of each layer."""


class _Stop(Exception):
    """Ends a forward pass at the last layer that records its call."""


class _CallRecorder(nn.Module):
    """Replaces a layer: records its call, and returns its input or stops the pass."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self.last = last
        self.states: torch.Tensor | None = None
        self.call: LayerCall | None = None

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.states, self.call = states, LayerCall(args=args, kwargs=kwargs)
        if self.last:
            raise _Stop
        return states


class _OutputReplayer(nn.Module):
    """Replaces all layers of a stack: returns the output that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.states: torch.Tensor | None = None

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        assert self.states is not None, "the stack has run"
        return self.states.to(states.device)


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

    @property
    def depths(self) -> dict[str, int]:
        """Stack -> number of its layers, in the order in which activations reach the stacks."""
        return {name: len(layers) for name, layers in self._layers.items()}

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

            def report(_: nn.Module, args: tuple[torch.Tensor, ...], weight: str = name) -> None:
                observer(weight, current["batch"], args[0])

            handles.append(self.module(name.removesuffix(".weight")).register_forward_pre_hook(report))
        finished: dict[str, list[torch.Tensor]] = {}
        try:
            for stack in self._layers:
                yield from self._run_stack(stack, batches, current, finished)
        finally:
            for handle in handles:
                handle.remove()

    def _run_stack(
        self,
        stack: str,
        batches: Sequence[Mapping[str, torch.Tensor]],
        current: dict[str, int],
        finished: dict[str, list[torch.Tensor]],
    ) -> Iterator[LayerOutput]:
        states: list[torch.Tensor] = []
        calls: list[tuple[LayerCall, ...]] = []
        with self.before(stack) as enter:
            for batch, inputs in enumerate(batches):
                current["batch"] = batch
                entry = enter(inputs, {name: outputs[batch] for name, outputs in finished.items()})
                states.append(entry.states.cpu())
                calls.append(entry.calls)
        yield LayerOutput(stack=stack, layer=None, states=states)
        for number in range(len(self._layers[stack])):
            with self.layer(stack, number) as layer:
                for batch, of_layers in enumerate(calls):
                    current["batch"] = batch
                    call = of_layers[number]
                    states[batch] = layer(states[batch].to(self.device), *call.args, **call.kwargs).cpu()
            yield LayerOutput(stack=stack, layer=number, states=states)
        finished[stack] = states

    @contextmanager
    def before(self, stack: str) -> Iterator[Callable[[Inputs, Inputs], StackEntry]]:
        """Load what lies around the layers; yield (a batch's inputs, outputs by stack) -> what reaches the stack.

        Of every earlier stack the output is needed, on any device; gradients flow into it where they are enabled.
        """
        last = len(self._layers[stack]) - 1
        recorders = [_CallRecorder(last=number == last) for number in range(last + 1)]

        def enter(inputs: Inputs, outputs: Inputs) -> StackEntry:
            try:
                run(inputs, outputs)
            except _Stop:
                states, calls = recorders[0].states, tuple(recorder.call for recorder in recorders)
                for recorder in recorders:
                    recorder.states = recorder.call = None
                assert states is not None
                return StackEntry(states=states, calls=tuple(call for call in calls if call is not None))
            raise AssertionError(f"the forward pass did not stop at the last layer of {stack}")

        with self._around(stack, recorders) as run:
            yield enter

    @contextmanager
    def behind(self) -> Iterator[Callable[[Inputs, Inputs], torch.Tensor]]:
        """Load what lies around the layers; yield (a batch's inputs, outputs by stack) -> the last hidden states."""
        with self._around(None, []) as run:
            yield lambda inputs, outputs: run(inputs, outputs).last_hidden_state

    @contextmanager
    def _around(self, stack: str | None, recorders: Sequence[nn.Module]) -> Iterator[Callable[[Inputs, Inputs], Any]]:
        """Load what lies around the layers, replace those of a stack by recorders and of others by their outputs."""
        replayers = {name: _OutputReplayer() for name in self._paths if name != stack}
        for name in self._paths:
            self._put(name, recorders if name == stack else [replayers[name]])

        def run(inputs: Inputs, outputs: Inputs) -> Any:
            for name, states in outputs.items():
                replayers[name].states = states
            on_device = {name: tensor.to(self.device) for name, tensor in inputs.items()}
            return self.model.base_model(**on_device, use_cache=False)

        try:
            with self._loaded("", self.model):
                yield run
        finally:
            for name in self._paths:
                self._put(name, [])

    @contextmanager
    def layer(self, stack: str, number: int) -> Iterator[nn.Module]:
        """Load a layer, and yield it: it takes hidden states and the arguments of its call."""
        layer = self._layers[stack][number]
        with self._loaded(f"{self._paths[stack]}.{number}", layer):
            yield layer

    @property
    def logit_cap(self) -> float | None:
        """The cap of the logits, None where they are what the head puts out."""
        return runtime_of(self.checkpoint.config).logit_cap(self.model)

    @contextmanager
    def head(self) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
        """Load the head; yield hidden states [..., channels] -> logits."""
        module = self.model.get_output_embeddings()
        path = next(name for name, other in self.model.named_modules() if other is module)
        with self._loaded(path, module, head=True):
            yield lambda states: runtime_of(self.checkpoint.config).logits(self.model, states)

    @contextmanager
    def _loaded(self, path: str, module: nn.Module, *, head: bool = False) -> Iterator[None]:
        """Load a module's parameters and stored buffers for a while; those of the head only where that is the module.

        A tied head has no weight of its own in the checkpoint and takes the embedding's.
        """
        owners = []
        try:
            for name, owner in module.named_modules(prefix=path):
                for parameter, empty in owner._parameters.items():
                    hub = self.family.hub_name(f"{name}.{parameter}")
                    if empty is None or not head and (hub in self._tied or self.family.role_of(hub) == "lm_head"):
                        continue
                    stored = self._tied.get(hub, hub)
                    tensor = read_tensor(self.checkpoint.located[stored], stored).to(self.device, self.dtype)
                    owners.append((owner, parameter, empty))
                    owner._parameters[parameter] = nn.Parameter(tensor, requires_grad=False)
                for buffer, unread in owner._buffers.items():
                    hub = self.family.hub_name(f"{name}.{buffer}")
                    if unread is not None and buffer not in owner._non_persistent_buffers_set:
                        place = self.checkpoint.located[hub]
                        owner._buffers[buffer] = read_tensor(place, hub).to(self.device, self.dtype)
            yield
        finally:
            for owner, parameter, empty in owners:
                owner._parameters[parameter] = empty

    def _put(self, stack: str, modules: Iterable[nn.Module]) -> None:
        """Replace a stack's layers by stand-ins."""
        parent, _, attribute = self._paths[stack].rpartition(".")
        setattr(self.model.get_submodule(parent), attribute, nn.ModuleList(modules))

    def module(self, name: str) -> nn.Module:
        """Return a module by its name on the hub, also where it is in a layer that was taken out."""
        path = self.family.module_name(name)
        for stack, layers in self._paths.items():
            if path.startswith(f"{layers}."):
                return self._layers[stack].get_submodule(path[len(layers) + 1 :])
        return self.model.get_submodule(path)
