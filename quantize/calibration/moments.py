"""Second moments of what weights take in and of the gradients at their outputs: what error feedback weighs errors by.

For a linear y = W x, H = E[x x^T] over all positions that it reads, and g_i = sum over positions of (dL/dy_i)^2, over
the number of target tokens, where L is the log-likelihood of labels that are drawn from the model itself: the
diagonal of the Fisher information (Martens 2020, section 9), not of the empirical one. For the embedding, the second
moment of its output's gradient stands in the place of H, and a row's importance is how often its token is read, mixed
with 30 % uniform. For the head, H is of its inputs and a row's importance is E[p (1 - p)], mixed likewise: the Fisher
information of a softmax over its logits, without a backward pass.

Any torch model will do: the caller names the modules and says how a batch becomes logits of target tokens. Moments are
float32 files, one for each shared input and one for each output, written aside and renamed. The caller observes as many
weights at once as memory holds: a second moment of 11008 channels is 485 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

UNIFORM_PART = 0.3
"""Part of the importance of embedding and head that is spread evenly over all tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedWeight:
    """A weight whose moments are taken."""

    name: str
    """Of the weight, and of the file of its importance."""
    module: nn.Module
    """Called with its input first; puts out one tensor [..., rows]."""
    input_key: str
    """Weights with the same key read the same input; names the file of the second moment."""
    kind: Literal["linear", "embedding", "head"] = "linear"
    """An embedding is called with token numbers; the head puts out the logits."""

    @property
    def rows(self) -> int:
        """Outputs of the weight."""
        return self._shape[0]

    @property
    def columns(self) -> int:
        """Inputs of the weight."""
        return self._shape[1]

    @property
    def _shape(self) -> torch.Size:
        weight = self.module.weight
        assert isinstance(weight, torch.Tensor), f"{self.name}: its module has no weight"
        return weight.shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How the model is run on a batch."""

    logits: Callable[[Any], torch.Tensor]
    """Batch -> float [target tokens, vocabulary], with gradients where they are enabled."""
    positions: Callable[[Any, ObservedWeight, tuple[int, ...]], torch.Tensor | None]
    """(batch, weight, shape of its inputs without their channels) -> bool of that shape: which are no padding; None:
    all."""


class InputMoments:
    """Sums of x x^T over positions, by input key; float32, a product for each batch, in the batches' order."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, key: str, inputs: torch.Tensor) -> None:
        """Add inputs, float [positions, channels]."""
        rows = inputs.detach().float()
        total = self._sums.get(key)
        if total is None:
            self._sums[key] = rows.t() @ rows
        else:
            total.addmm_(rows.t(), rows)
        self._counts[key] = self._counts.get(key, 0) + len(rows)

    def write(self, folder: Path, *, count: int | None = None) -> None:
        """Write the means and forget the sums; count: what to divide by, the number of positions where it is None."""
        for key in sorted(self._sums):
            mean = self._sums.pop(key).div_(max(count or self._counts[key], 1))
            write_second_moment(folder, key, mean, self._counts.pop(key))


def collect_input_moments(weights: Sequence[ObservedWeight], run: Run, batches: Iterable[Any], folder: Path) -> None:
    """Write the second moments of the inputs of linears and heads, and the importance of heads; no gradients.

    Embeddings are left to `collect_gradient_moments`. Sums are in the order of the batches. Raises ValueError for an
    input that is not finite.
    """
    readers = {w.input_key: w for w in reversed(weights) if w.kind != "embedding"}
    heads = [w for w in weights if w.kind == "head"]
    moments, targets = InputMoments(), 0
    spread: dict[str, torch.Tensor] = {}
    current: dict[str, Any] = {}

    def see_input(weight: ObservedWeight) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            moments.add(weight.input_key, _real(args[0], run.positions(current["batch"], weight, args[0].shape[:-1])))

        return hook

    handles = [w.module.register_forward_pre_hook(see_input(w)) for w in readers.values()]
    with _removed(handles), torch.no_grad():
        for batch in batches:
            current["batch"] = batch
            logits = run.logits(batch)
            targets += len(logits)
            for head in heads:
                share = logits.float().softmax(dim=-1)
                added = (share * (1 - share)).sum(dim=0, dtype=torch.float64)
                spread[head.name] = spread.get(head.name, 0) + added
    moments.write(folder)
    for name, total in spread.items():
        write_importance(folder, name, mixed(total / max(targets, 1)), targets)


class _GradientSums:
    """Sums over positions of squared gradients, by weight; for embeddings of their outer products, and token counts."""

    def __init__(self, run: Run) -> None:
        self.batch: Any = None
        self.squares: dict[str, torch.Tensor] = {}
        self.outer = InputMoments()
        self.tokens: dict[str, torch.Tensor] = {}
        self._run = run

    def hook(self, weight: ObservedWeight) -> Callable[..., None]:
        """Return a forward hook for a weight's module."""

        def see_output(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            mask = self._run.positions(self.batch, weight, output.shape[:-1])
            if weight.kind == "embedding":
                tokens = _real(args[0][..., None], mask).flatten().cpu()
                read = torch.bincount(tokens, minlength=weight.rows)
                self.tokens[weight.name] = self.tokens.get(weight.name, 0) + read
            if not output.requires_grad:  # nothing before it is observed
                output.requires_grad_()
            output.register_hook(lambda gradient: self._add(weight, _real(gradient.detach(), mask)))

        return see_output

    def _add(self, weight: ObservedWeight, gradients: torch.Tensor) -> None:
        if weight.kind == "embedding":
            self.outer.add(weight.input_key, gradients)
            return
        added = gradients.float().square().sum(dim=0, dtype=torch.float64)
        self.squares[weight.name] = self.squares.get(weight.name, 0) + added


def collect_gradient_moments(
    model: nn.Module,
    weights: Sequence[ObservedWeight],
    run: Run,
    batches: Iterable[Any],
    folder: Path,
    *,
    generator: torch.Generator,
    token_counts: torch.Tensor | None = None,
) -> None:
    """Write the importance of the rows of linears; of embeddings both the gradients' moment and the importance.

    Heads are left to `collect_input_moments`. generator: draws the labels, on the logits' device. token_counts: how
    often each token is read, [vocabulary], where a larger corpus gives it better than the batches. No parameter of the
    model gets a gradient. Raises ValueError for a gradient that is not finite.
    """
    observed = [w for w in weights if w.kind != "head"]
    sums, targets = _GradientSums(run), 0
    handles = [w.module.register_forward_hook(sums.hook(w)) for w in observed]
    with _removed(handles), _frozen(model), torch.enable_grad():
        for batch in batches:
            sums.batch = batch
            targets += _backward(run.logits(batch), generator)
    sums.outer.write(folder, count=targets)
    for weight in observed:
        if weight.kind == "embedding":
            read = sums.tokens[weight.name] if token_counts is None else token_counts
            write_importance(folder, weight.name, mixed(read.double() / read.sum().clamp_min(1)), targets)
        elif weight.name in sums.squares:
            write_importance(folder, weight.name, sums.squares[weight.name] / max(targets, 1), targets)


def mixed(importance: torch.Tensor) -> torch.Tensor:
    """Return importance, float64 [rows], with 30 % of its sum spread evenly, so that no token counts for nothing."""
    return importance * (1 - UNIFORM_PART) + UNIFORM_PART * importance.mean()


def input_path(folder: Path, key: str) -> Path:
    """Return the file of a second moment: `second_moment` float32 [columns, columns], `positions` int64."""
    return folder / f"input.{key}.safetensors"


def output_path(folder: Path, name: str) -> Path:
    """Return the file of an importance: `importance` float32 [rows], `targets` int64."""
    return folder / f"output.{name}.safetensors"


def read_second_moment(folder: Path, key: str) -> torch.Tensor:
    """Return the second moment of an input, float32 [columns, columns]."""
    return _read(input_path(folder, key), "second_moment")


def read_importance(folder: Path, name: str) -> torch.Tensor:
    """Return the importance of a weight's rows, float32 [rows], as it was measured: not floored."""
    return _read(output_path(folder, name), "importance")


def _backward(logits: torch.Tensor, generator: torch.Generator) -> int:
    """Take the gradient of the log-likelihood of labels drawn from the model; return their number."""
    log_likelihood = logits.float().log_softmax(dim=-1)
    labels = torch.multinomial(log_likelihood.detach().exp(), 1, generator=generator)
    (-log_likelihood.gather(1, labels).sum()).backward()
    return len(labels)


def _real(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the positions that are no padding, [positions, channels]."""
    return values.reshape(-1, values.shape[-1]) if mask is None else values[mask.to(values.device)]


@contextmanager
def _removed(handles: Sequence[Any]) -> Iterator[None]:
    """Remove hooks at the end, whatever happens."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter of a model ask for a gradient for a while."""
    asked = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in asked:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


def _check_finite(values: torch.Tensor, where: str) -> None:
    if not torch.isfinite(values).all():
        raise ValueError(f"{where}: a moment is not finite; the model is damaged: train it again")


def write_second_moment(folder: Path, key: str, moment: torch.Tensor, positions: int) -> None:
    """Write the second moment of an input, [columns, columns]; positions: the number that it is the mean over."""
    _check_finite(moment, key)
    _write(input_path(folder, key), {"second_moment": moment.float(), "positions": torch.tensor(positions)})


def write_importance(folder: Path, name: str, importance: torch.Tensor, targets: int) -> None:
    """Write the importance of a weight's rows; targets: the number of target tokens that it was measured on."""
    _check_finite(importance, name)
    _write(output_path(folder, name), {"importance": importance.float(), "targets": torch.tensor(targets)})


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    aside = path.with_name(path.name + ".part")
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, aside)
    aside.replace(path)


def _read(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, "pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor
