"""Second moments of what weights take in and of the gradients at their outputs: what error feedback weighs errors by.

For a linear y = W x, H = E[x x^T] over all positions that it reads, and g_i = sum over positions of (dL/dy_i)^2, over
the number of target tokens, where L is the log-likelihood of labels that are drawn from the model itself: the
diagonal of the Fisher information (Martens 2020, section 9), not of the empirical one. For the embedding, the second
moment of the gradient at the rows that it looks up stands in the place of H, and a row's importance is how often its
token is read, mixed with 30 % uniform. For the head, H is of its inputs and a row's importance is E[p (1 - p)], mixed
likewise: the Fisher information of a softmax over its logits, without a backward pass. Where logits are capped,
y = c tanh(z / c) of the head's outputs z, the gradient at z is that at y times 1 - (y / c)^2, which therefore enters
squared: E[p (1 - p) (1 - (y / c)^2)^2]. A weight that is both has the moments of both uses
(`quantize.calibration.tied_weights`).

Sums are collected by hooks on modules, so that any torch model will do: one that is whole in memory
(`collect_input_moments`, `collect_gradient_moments`), or one of which a layer at a time is
(`quantize.calibration.layerwise_moments`). Sums of products are float32, sums of squares over positions float64. A
second moment of 11008 channels is 485 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from quantize.calibration.moment_files import write_importance, write_second_moment
from quantize.calibration.shared_sums import SharedSums
from quantize.calibration.shrinkage import shrunk_importance

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
    lookup_scale: float = 1.0
    """What an embedding multiplies its rows by."""

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


Positions = Callable[[Any, ObservedWeight, tuple[int, ...]], torch.Tensor | None]
"""(batch, weight, shape of its inputs but for channels) -> bool of that shape: which are no padding; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How the model is run on a batch."""

    logits: Callable[[Any], torch.Tensor]
    """Batch -> float [target tokens, vocabulary], with gradients where they are enabled."""
    positions: Positions
    logit_cap: float | None = None
    """c where logits are c tanh(z / c) of what the head puts out."""


class InputMoments:
    """Sums of x x^T over positions, by input key; float32, a product for each batch, in the batches' order."""

    def __init__(self, positions: Positions | None = None) -> None:
        """positions: which positions of an observed input count."""
        self.batch: Any = None
        """The batch that the model runs on; set by the caller."""
        self._positions = positions
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

    def hook(self, weight: ObservedWeight) -> Callable[..., None]:
        """Return a hook that a weight's module calls before its forward pass."""

        def see_input(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            assert self._positions is not None, "an observer of inputs knows which positions count"
            self.add(weight.input_key, _real(args[0], self._positions(self.batch, weight, args[0].shape[:-1])))

        return see_input

    def add_up(self, shared: SharedSums) -> None:
        """Add what other processes have seen, and keep the keys that this one owns."""
        counts = shared.add_counts(self._counts)
        self._sums = shared.add_up(self._sums)
        self._counts = {key: counts[key] for key in self._sums}

    def take(self, *, count: int | None = None) -> Iterator[tuple[str, torch.Tensor, int]]:
        """Yield key, mean and number of positions, and forget the sums; count: what to divide by in place of it."""
        for key in sorted(self._sums):
            mean = self._sums.pop(key).div_(max(count or self._counts[key], 1))
            yield key, mean, self._counts.pop(key)


class HeadMoments:
    """Sums over target tokens of the squared gradient at the head's outputs, in the mean over labels by the model.

    That is p (1 - p), times the square of what a cap leaves of the gradient at the logits.
    """

    def __init__(self, logit_cap: float | None) -> None:
        """logit_cap: c where logits are c tanh(z / c) of what the head puts out."""
        self.targets = 0
        self._cap = logit_cap
        self._spread: torch.Tensor | None = None

    def add(self, logits: torch.Tensor) -> None:
        """Add the logits of some target tokens, float [targets, vocabulary]."""
        capped = logits.detach().float()
        share = capped.softmax(dim=-1)
        squares = share.mul_(1 - share)
        if self._cap is not None:
            squares *= (capped / self._cap).square_().neg_().add_(1).square_()
        added = squares.sum(dim=0, dtype=torch.float64)
        self._spread = added if self._spread is None else self._spread + added
        self.targets += len(logits)

    def importance(self) -> torch.Tensor:
        """Return the importance of the head's rows, float64 [vocabulary]."""
        assert self._spread is not None, "there are target tokens"
        return mixed(self._spread / max(self.targets, 1))


def readers(weights: Sequence[ObservedWeight]) -> list[ObservedWeight]:
    """Return one weight for each input that linears and heads read."""
    return list({w.input_key: w for w in reversed(weights) if w.kind != "embedding"}.values())


def collect_input_moments(weights: Sequence[ObservedWeight], run: Run, batches: Iterable[Any], folder: Path) -> None:
    """Write the second moments of the inputs of linears and heads, and the importance of heads; no gradients.

    Embeddings are left to `collect_gradient_moments`. Sums are in the order of the batches. Raises ValueError for an
    input that is not finite.
    """
    moments, spread = InputMoments(run.positions), HeadMoments(run.logit_cap)
    handles = [w.module.register_forward_pre_hook(moments.hook(w)) for w in readers(weights)]
    with removed(handles), torch.no_grad():
        for batch in batches:
            moments.batch = batch
            spread.add(run.logits(batch))
    for key, mean, count in moments.take():
        write_second_moment(folder, key, mean, count)
    for head in weights:
        if head.kind == "head":
            write_importance(folder, head.name, spread.importance(), spread.targets)


class GradientMoments:
    """Sums over positions of squared gradients, by weight; for embeddings of their outer products, and token counts."""

    def __init__(self, positions: Positions) -> None:
        """positions: which positions of an observed output count."""
        self._batch: Any = None
        self._number = 0
        self.outer = InputMoments()
        """Of embeddings."""
        self._positions = positions
        self._sums: dict[str, torch.Tensor] = {}
        """Squared gradients of every other utterance and of the rest by row, float64 [2, rows]; of embeddings how often
        each row is read, int64."""

    def take_batch(self, number: int, batch: Any) -> None:
        """Make it known which batch the model runs on next, and its number among those of all processes."""
        self._batch, self._number = batch, number

    def hook(self, weight: ObservedWeight) -> Callable[..., None]:
        """Return a forward hook for a weight's module."""

        def see_output(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            mask = self._positions(self._batch, weight, output.shape[:-1])
            if not output.requires_grad:  # nothing before it is observed
                output.requires_grad_()
            output.register_hook(lambda gradient: self._add(weight, gradient.detach(), args[0], mask))

        return see_output

    def _add(
        self, weight: ObservedWeight, gradients: torch.Tensor, inputs: torch.Tensor, mask: torch.Tensor | None
    ) -> None:
        if weight.kind == "embedding":
            read = torch.bincount(_real(inputs[..., None], mask).flatten().cpu(), minlength=weight.rows)
            self._sums[weight.name] = self._sums.get(weight.name, 0) + read
            at_rows = _real(gradients, mask) * weight.lookup_scale  # from what it puts out to its rows
            self.outer.add(weight.input_key, at_rows)
            return
        halves = [slice((half + self._number) % 2, None, 2) for half in (0, 1)]  # of batches of one, too
        added = [_squares(gradients[half], None if mask is None else mask[half]) for half in halves]
        self._sums[weight.name] = self._sums.get(weight.name, 0) + torch.stack(added)

    def add_up(self, shared: SharedSums) -> None:
        """Add what other processes have seen, `outer` apart, and keep the weights that this one owns."""
        self._sums = shared.add_up(self._sums)

    def write_importances(
        self, weights: Sequence[ObservedWeight], folder: Path, *, targets: int, token_counts: torch.Tensor | None = None
    ) -> None:
        """Write the importance of those weights that gradients reached; targets: tokens that they are of.

        token_counts: how often each token is read, [vocabulary], where a larger corpus gives it better.
        """
        for weight in weights:
            if weight.name not in self._sums:
                continue
            if weight.kind == "embedding":
                read = self._sums[weight.name] if token_counts is None else token_counts
                importance = mixed(read.double() / read.sum().clamp_min(1))
            else:
                importance = shrunk_importance(self._sums[weight.name] / max(targets, 1))
            write_importance(folder, weight.name, importance, targets)


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
    sums, targets = GradientMoments(run.positions), 0
    handles = [w.module.register_forward_hook(sums.hook(w)) for w in observed]
    with removed(handles), _frozen(model), torch.enable_grad():
        for number, batch in enumerate(batches):
            sums.take_batch(number, batch)
            logits = run.logits(batch)
            sampled_loss(logits, generator).backward()
            targets += len(logits)
    for key, mean, count in sums.outer.take(count=targets):
        write_second_moment(folder, key, mean, count)
    sums.write_importances(observed, folder, targets=targets, token_counts=token_counts)


def sampled_loss(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the negative log-likelihood, a sum, of labels drawn from the model: float [targets, vocabulary]."""
    log_likelihood = logits.float().log_softmax(dim=-1)
    labels = torch.multinomial(log_likelihood.detach().exp(), 1, generator=generator)
    return -log_likelihood.gather(1, labels).sum()


def mixed(importance: torch.Tensor) -> torch.Tensor:
    """Return importance, float64 [rows], with 30 % of its sum spread evenly, so that no token counts for nothing."""
    return importance * (1 - UNIFORM_PART) + UNIFORM_PART * importance.mean()


def _squares(gradients: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the sums of squared gradients over positions that are no padding, float64 [rows]."""
    return _real(gradients, mask).float().square().sum(dim=0, dtype=torch.float64)


def _real(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the positions that are no padding, [positions, channels]."""
    return values.reshape(-1, values.shape[-1]) if mask is None else values[mask.to(values.device)]


@contextmanager
def removed(handles: Sequence[Any]) -> Iterator[None]:
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
