"""Activations and gradients of a model between its layers, in files: memory does not grow with the utterances."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quantize.calibration.layerwise import LayerCall
from quantize.calibration.moment_files import read_tensors, write_tensors

STATES = "states"
COMPLETE = "complete"
"""Marks a point at which all batches are stored and whatever follows from them is written."""


class ActivationStore:
    """Tensors by point of the model and number of the batch; a point is complete or is made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, point: str, batch: int, states: torch.Tensor) -> None:
        """Store what a batch has at a point."""
        self.write_named(point, batch, {STATES: states})

    def read(self, point: str, batch: int, device: torch.device) -> torch.Tensor:
        """Return what a batch has at a point."""
        return read_tensors(self._path(point, batch), STATES)[0].to(device)

    def write_named(self, point: str, batch: int, tensors: dict[str, torch.Tensor]) -> None:
        """Store several tensors of a batch."""
        path = self._path(point, batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, tensors)

    def read_named(self, point: str, batch: int, names: Iterable[str]) -> list[torch.Tensor]:
        """Return some of the tensors that `write_named` stored."""
        return read_tensors(self._path(point, batch), *names)

    def complete(self, point: str) -> None:
        """Mark a point as complete."""
        (self.folder / point).mkdir(parents=True, exist_ok=True)
        (self.folder / point / COMPLETE).touch()

    def is_complete(self, point: str) -> bool:
        """Return whether a point was marked as complete."""
        return (self.folder / point / COMPLETE).is_file()

    def forget(self, point: str, batches: Iterable[int]) -> None:
        """Remove the tensors of some batches; the point stays complete."""
        for batch in batches:
            self._path(point, batch).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, point: str, batch: int) -> Path:
        return self.folder / point / f"{batch:05d}.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    """Stands for a tensor that is in a file."""

    name: str


class StoredCalls:
    """The arguments of layers: their tensors in files, each once a batch however many layers share it.

    Attention masks of a whole audio window are 2 MB an utterance.
    """

    def __init__(self, store: ActivationStore, point: str) -> None:
        self._store, self._point = store, point
        self._calls: dict[int, tuple[LayerCall, ...]] = {}

    def add(self, batch: int, calls: Iterable[LayerCall]) -> None:
        """Store the calls of all layers in a batch."""
        tensors: dict[int, torch.Tensor] = {}

        def refer(tensor: torch.Tensor) -> _Reference:
            tensors[id(tensor)] = tensor
            return _Reference(name=f"{list(tensors).index(id(tensor))}")

        self._calls[batch] = tuple(_mapped_call(call, torch.Tensor, refer) for call in calls)
        self._store.write_named(self._point, batch, {str(n): t for n, t in enumerate(tensors.values())})

    def read(self, batch: int, layer: int, device: torch.device) -> LayerCall:
        """Return the call of a layer in a batch."""

        def load(reference: _Reference) -> torch.Tensor:
            return self._store.read_named(self._point, batch, [reference.name])[0].to(device)

        return _mapped_call(self._calls[batch][layer], _Reference, load)


def _mapped_call(call: LayerCall, kind: type, change: Callable[[Any], Any]) -> LayerCall:
    return LayerCall(args=_mapped(call.args, kind, change), kwargs=_mapped(call.kwargs, kind, change))


def _mapped(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Return a value in which everything of a kind is changed, within tuples, lists and dicts too."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(_mapped(item, kind, change) for item in value)
    if isinstance(value, dict):
        return {key: _mapped(item, kind, change) for key, item in value.items()}
    return value
