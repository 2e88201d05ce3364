"""Moments of a model of any size, with the weights of one layer in memory at a time.

Forward: each layer runs over all batches, whose hidden states come from files and go to files; the second moments of
what its weights read are complete when it has run, and their factors are written. Of the batches on which gradients are
measured, the inputs of some layers stay on the disk: six of 32 (`layer_blocks`).

Head: from the last hidden states of target tokens come its moments, labels that are drawn from the model, and the
gradient of their log-likelihood at these states.

Backward, from the last block of layers to the first: its layers run forward again from the inputs that stayed, so that
those of each are on the disk. From the block's last layer to its first, a layer then runs on its inputs with a graph;
the gradient at its output, from a file, goes back through it; squares of the gradients at its weights' outputs are
complete when all batches have been through, and the gradient at its inputs goes to files for the layer before. What
lies between two stacks of layers is a part like a layer. So gradients are those of the whole model, and most layers are
loaded three times. What a part has read is removed when its gradient is complete.

Everything is float32: bfloat16 weights are exact in it, and gradients, of which squares are summed, span more octaves
than bfloat16 has digits. Sums are in the order of the batches. A point that is complete is not made again: a killed run
loses the layer that it was at.

Several processes share the batches: of n, process r takes each n-th one from number r through every layer, and reads
and writes the files of these alone. At the end of a layer their sums are added up (`quantize.calibration.shared_sums`).
The head is the first process's, so that labels do not depend on the number of processes. The first process also decides
what is complete, and marks it once all have written what belongs to it: any number of processes resumes a killed run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from quantize.calibration.activations import ActivationStore, StoredCalls
from quantize.calibration.layerwise import LayerwiseModel
from quantize.calibration.moment_files import input_path, output_path, write_factor, write_importance
from quantize.calibration.moments import (
    GradientMoments,
    HeadMoments,
    InputMoments,
    ObservedWeight,
    Positions,
    readers,
    removed,
    sampled_loss,
)
from quantize.calibration.shared_sums import SharedSums
from quantize.solvers.feedback import factorize
from submission.model.moments_size import layer_blocks
from submission.runtime.loss import LOGITS, TargetBatch
from submission.store.launch import ONE_PROCESS, Launch

HEAD = "head"
"""The point of the last hidden states of target tokens."""
SUMS = "sums"
"""Below the scratch folder: what processes have summed for one another."""

Tick = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentsBatch:
    """A batch on the processor, and how much of each of its rows is no padding."""

    targets: TargetBatch
    lengths: dict[str, list[int]]
    """Stack -> positions of each row."""


def _inputs_of(stack: str, layer: int) -> str:
    """Return the point before a layer; of the number of layers: behind the last one."""
    return f"{stack}.{layer}"


def _gradient_at(point: str) -> str:
    return f"gradient.{point}"


def _again(point: str) -> str:
    """Return the point of what was removed in the forward pass and is computed again for the backward pass."""
    return f"again.{point}"


class LayerwiseMoments:
    """Measures the moments of weights: `forward`, then `head`, then `backward` where there are gradient batches."""

    def __init__(
        self,
        model: LayerwiseModel,
        weights: Sequence[ObservedWeight],
        positions: Positions,
        batches: Sequence[MomentsBatch],
        *,
        gradient_batches: int,
        out: Path,
        scratch: Path,
        launch: Launch = ONE_PROCESS,
    ) -> None:
        """gradient_batches: on how many of the first batches gradients are measured; scratch: for activations.

        launch: the processes that share the batches; each calls the same with the same, and all see both folders.
        """
        self._model, self._weights, self._positions = model, weights, positions
        self._batches, self._gradient_batches, self._out = batches, gradient_batches, out
        self.store, self._launch = ActivationStore(scratch), launch
        self._sums = SharedSums(launch, scratch / SUMS, model.device)
        self._share = range(launch.rank, len(batches), launch.processes)
        self._gradient_share = range(launch.rank, gradient_batches, launch.processes)
        self._rest = [number for number in self._share if number not in self._gradient_share]
        self._blocks = {stack: layer_blocks(depth) for stack, depth in model.depths.items()}
        stacks = model.family.stacks
        self._places = {s.name: s.layers for s in stacks if s.layers is not None}

    # --- forward ---

    def forward(self) -> None:
        """Write the factors of the second moments of all inputs but the head's."""
        with self._launch.progress("calibrate: inputs", self._model.parts, "layers") as tick:
            for stack, depth in self._model.depths.items():
                if self._is_complete(_inputs_of(stack, depth)):
                    tick(1 + depth)
                    continue
                calls = self._enter(stack, self._share)
                tick(1)
                for number in range(depth):
                    if self._is_complete(_inputs_of(stack, number + 1)):
                        tick(1)
                    else:
                        self._forward_layer(stack, number, calls, tick)

    def _enter(self, stack: str, numbers: Iterable[int]) -> StoredCalls:
        """Run some batches up to a stack; return the calls of its layers, and store the inputs of the first one."""
        point, calls = _inputs_of(stack, 0), StoredCalls(self.store, f"calls.{stack}")
        needed = not self._is_complete(point)
        moments = InputMoments(self._positions)
        with self._model.before(stack) as enter, self._seen(moments, self._around()), torch.no_grad():
            for number in numbers:
                moments.batch = batch = self._batches[number]
                entry = enter(batch.targets.inputs, self._outputs(number, before=stack))
                calls.add(number, entry.calls)
                if needed:
                    self.store.write(point, number, entry.states)
        self._write_factors(moments)
        self._complete(point)
        return calls

    def _forward_layer(self, stack: str, layer: int, calls: StoredCalls, tick: Tick) -> None:
        source, target = _inputs_of(stack, layer), _inputs_of(stack, layer + 1)
        self._run_layer(stack, layer, source, target, self._share, calls, tick)
        kept = any(layer == block.start for block in self._blocks[stack])
        self.store.forget(source, self._rest if kept else self._share)

    def _run_layer(
        self, stack: str, layer: int, source: str, target: str, numbers: range, calls: StoredCalls, tick: Tick
    ) -> None:
        """Run a layer over some batches from one point to another; measure what is not written yet."""
        device, moments = self._model.device, InputMoments(self._positions)
        with (
            self._model.layer(stack, layer) as module,
            self._seen(moments, self._inside(stack, layer)),
            torch.no_grad(),
        ):
            for number in numbers:
                moments.batch = self._batches[number]
                call = calls.read(number, layer, device)
                states = self.store.read(source, number, device)
                self.store.write(target, number, module(states, *call.args, **call.kwargs))
                tick(1 / len(numbers))
        self._write_factors(moments)
        self._complete(target)

    def _seen(self, moments: InputMoments, weights: Sequence[ObservedWeight]) -> AbstractContextManager[None]:
        """Observe what weights read whose moments are not written yet."""
        observed = [w for w in readers(weights) if w.kind != "head"]
        missing = self._missing(observed, [input_path(self._out, w.input_key) for w in observed])
        return removed([w.module.register_forward_pre_hook(moments.hook(w)) for w in missing])

    def _write_factors(self, moments: InputMoments, *, count: int | None = None) -> None:
        """Write the factors of what all processes have seen, each process those of its keys."""
        moments.add_up(self._sums)
        for key, mean, positions in moments.take(count=count):
            write_factor(self._out, key, factorize(mean, len(mean)), positions)

    # --- head ---

    def head(self, generator: torch.Generator) -> None:
        """Write the moments of the head; store the gradient at what it reads, with labels from a generator."""
        self._last_states()
        if self._is_complete(_gradient_at(HEAD)):
            return
        if self._launch.rank == 0:
            self._measure_head(generator)
        self._complete(_gradient_at(HEAD))
        self.store.forget(HEAD, self._share)

    def _measure_head(self, generator: torch.Generator) -> None:
        moments, spread = InputMoments(), HeadMoments(self._model.logit_cap)
        heads = [w for w in self._weights if w.kind == "head"]
        with (
            self._model.head() as logits_of,
            self._launch.progress("calibrate: head", len(self._batches), "batches") as tick,
        ):
            for number in range(len(self._batches)):
                states = self.store.read(HEAD, number, self._model.device)
                for head in heads:
                    moments.add(head.input_key, states)
                drawing = generator if number < self._gradient_batches else None
                gradient = self._head_gradient(logits_of, states, spread, drawing)
                if gradient is not None:
                    self.store.write(_gradient_at(HEAD), number, gradient)
                tick(1)
        for key, mean, positions in moments.take():
            write_factor(self._out, key, factorize(mean, len(mean)), positions)
        for head in heads:
            write_importance(self._out, head.name, spread.importance(), spread.targets)

    def _head_gradient(
        self,
        logits_of: Callable[[torch.Tensor], torch.Tensor],
        states: torch.Tensor,
        spread: HeadMoments,
        generator: torch.Generator | None,
    ) -> torch.Tensor | None:
        """Return the gradient at states [targets, width] of a loss with labels drawn; None without a generator."""
        pieces = []
        for part in states.split(max(1, LOGITS // self._model.model.get_output_embeddings().out_features)):
            leaf = part.detach().requires_grad_(generator is not None)
            with torch.set_grad_enabled(generator is not None):
                logits = logits_of(leaf)
                if generator is not None:
                    pieces += torch.autograd.grad(sampled_loss(logits, generator), leaf)
            spread.add(logits)
        return None if generator is None else torch.cat([states[:0], *pieces])

    def _last_states(self) -> None:
        """Store the last hidden states of target tokens, and measure what lies behind the last layer."""
        if self._is_complete(HEAD):
            return
        moments = InputMoments(self._positions)
        with self._model.behind() as finish, self._seen(moments, self._around()), torch.no_grad():
            for number in self._share:
                moments.batch = batch = self._batches[number]
                states = finish(batch.targets.inputs, self._outputs(number))
                self.store.write(HEAD, number, batch.targets.pick(states))
        self._write_factors(moments)
        self._complete(HEAD)
        for stack, depth in self._model.depths.items():
            self.store.forget(_inputs_of(stack, depth), self._rest)

    # --- backward ---

    def backward(self, token_counts: torch.Tensor) -> None:
        """Write the importance of the rows of all weights but the head's, and the embedding's gradient moment.

        token_counts: how often each token is read, [vocabulary].
        """
        stacks = list(self._model.depths.items())
        again = sum(len(block) - 1 for blocks in self._blocks.values() for block in blocks)
        with self._launch.progress("calibrate: gradients", self._model.parts + 1 + again, "layers") as tick:
            self._backward_behind(*stacks[-1], token_counts)
            tick(1)
            for stack, _ in reversed(stacks):
                self._backward_stack(stack, tick)
                self._backward_before(stack, token_counts)
                tick(1)

    def _backward_behind(self, stack: str, depth: int, token_counts: torch.Tensor) -> None:
        """Take the gradient from the last hidden states to the output of the last layer."""
        point = _inputs_of(stack, depth)
        if self._is_complete(_gradient_at(point)):
            return
        sums = GradientMoments(self._positions)
        with self._model.behind() as finish, self._traced(sums, self._around()), torch.enable_grad():
            for number in self._gradient_share:
                batch = self._batches[number]
                sums.take_batch(number, batch)
                outputs = self._outputs(number)
                outputs[stack].requires_grad_()
                picked = batch.targets.pick(finish(batch.targets.inputs, outputs))
                picked.backward(self.store.read(_gradient_at(HEAD), number, picked.device))
                self._write_gradient(point, number, outputs[stack])
        self._write_importances(sums, token_counts)
        self._complete(_gradient_at(point))
        self._forget(point, _gradient_at(HEAD))

    def _backward_stack(self, stack: str, tick: Tick) -> None:
        if self._is_complete(_gradient_at(_inputs_of(stack, 0))):
            tick(sum(2 * len(block) - 1 for block in self._blocks[stack]))
            return
        calls = self._enter(stack, self._gradient_share)
        for block in reversed(self._blocks[stack]):
            if self._is_complete(_gradient_at(_inputs_of(stack, block.start))):
                tick(2 * len(block) - 1)
            else:
                self._backward_block(stack, block, calls, tick)

    def _backward_block(self, stack: str, block: range, calls: StoredCalls, tick: Tick) -> None:
        """Store the inputs of a block's layers, of which those of the first are there, and go backward through them."""
        inputs = [_inputs_of(stack, block.start), *(_again(_inputs_of(stack, layer)) for layer in block[1:])]
        for layer, source, target in zip(block, inputs, inputs[1:], strict=False):
            if self._is_complete(target):
                tick(1)
            else:
                self._run_layer(stack, layer, source, target, self._gradient_share, calls, tick)
        for layer, source in zip(reversed(block), reversed(inputs), strict=True):
            if self._is_complete(_gradient_at(_inputs_of(stack, layer))):
                tick(1)
            else:
                self._backward_layer(stack, layer, source, calls, tick)

    def _backward_layer(self, stack: str, layer: int, inputs: str, calls: StoredCalls, tick: Tick) -> None:
        """Take the gradient from the output of a layer to its inputs, which are stored at a point."""
        source, target, device = _inputs_of(stack, layer), _inputs_of(stack, layer + 1), self._model.device
        sums = GradientMoments(self._positions)
        with (
            self._model.layer(stack, layer) as module,
            self._traced(sums, self._inside(stack, layer)),
            torch.enable_grad(),
        ):
            for number in self._gradient_share:
                sums.take_batch(number, self._batches[number])
                call = calls.read(number, layer, device)
                states = self.store.read(inputs, number, device).requires_grad_()
                output = module(states, *call.args, **call.kwargs)
                output.backward(self.store.read(_gradient_at(target), number, device))
                self._write_gradient(source, number, states)
                tick(1 / len(self._gradient_share))
        self._write_importances(sums)
        self._complete(_gradient_at(source))
        self._forget(inputs, _gradient_at(target))

    def _backward_before(self, stack: str, token_counts: torch.Tensor) -> None:
        """Take the gradient from the inputs of a stack to the output of the stack before it."""
        stacks = list(self._model.depths)
        previous = stacks[stacks.index(stack) - 1] if stack != stacks[0] else None
        point = _inputs_of(previous, self._model.depths[previous]) if previous else "start"
        around = [w for w in self._around() if w.kind != "head"]
        missing = self._missing(around, [output_path(self._out, w.name) for w in around])
        if self._is_complete(_gradient_at(point)) or not (previous or missing):
            return
        sums = GradientMoments(self._positions)
        with self._model.before(stack) as enter, self._traced(sums, missing), torch.enable_grad():
            for number in self._gradient_share:
                batch = self._batches[number]
                sums.take_batch(number, batch)
                outputs = self._outputs(number, before=stack)
                if previous:
                    outputs[previous].requires_grad_()
                states = enter(batch.targets.inputs, outputs).states
                states.backward(self.store.read(_gradient_at(_inputs_of(stack, 0)), number, states.device))
                if previous:
                    self._write_gradient(point, number, outputs[previous])
        self._write_importances(sums, token_counts)
        self._complete(_gradient_at(point))
        self._forget(point, _gradient_at(_inputs_of(stack, 0)))

    def _traced(self, sums: GradientMoments, weights: Sequence[ObservedWeight]) -> AbstractContextManager[None]:
        """Observe the gradients at the outputs of weights."""
        return removed([w.module.register_forward_hook(sums.hook(w)) for w in weights if w.kind != "head"])

    def _write_gradient(self, point: str, number: int, states: torch.Tensor) -> None:
        assert states.grad is not None, f"no gradient reaches {point}"
        self.store.write(_gradient_at(point), number, states.grad)

    def _forget(self, *points: str) -> None:
        """Remove what the gradient share has at some points."""
        for point in points:
            self.store.forget(point, self._gradient_share)

    def _write_importances(self, sums: GradientMoments, token_counts: torch.Tensor | None = None) -> None:
        targets = sum(len(batch.targets.ids) for batch in self._batches[: self._gradient_batches])
        self._write_factors(sums.outer, count=targets)  # first: a weight with an importance is done
        sums.add_up(self._sums)  # returns when all processes have written their factors
        sums.write_importances(self._weights, self._out, targets=targets, token_counts=token_counts)

    # --- what all processes agree on ---

    def _is_complete(self, point: str) -> bool:
        """Return whether the first process finds a point complete."""
        return self._launch.broadcast(self.store.is_complete(point))

    def _missing(self, weights: Sequence[ObservedWeight], files: Sequence[Path]) -> list[ObservedWeight]:
        """Return the weights whose files the first process does not find."""
        there = self._launch.broadcast([path.is_file() for path in files])
        return [weight for weight, found in zip(weights, there, strict=True) if not found]

    def _complete(self, point: str) -> None:
        """Mark a point as complete, once all processes have written what belongs to it."""
        self._launch.barrier()
        if self._launch.rank == 0:
            self.store.complete(point)
        self._launch.barrier()  # without the mark, a run that is resumed needs what is forgotten next

    # --- parts ---

    def _outputs(self, number: int, before: str | None = None) -> dict[str, torch.Tensor]:
        """Return the outputs of the stacks before one, or of all, in a batch."""
        outputs = {}
        for stack, depth in self._model.depths.items():
            if stack == before:
                break
            outputs[stack] = self.store.read(_inputs_of(stack, depth), number, self._model.device)
        return outputs

    def _inside(self, stack: str, layer: int) -> list[ObservedWeight]:
        """Return the weights of a layer."""
        return [w for w in self._weights if w.name.startswith(f"{self._places[stack]}.{layer}.")]

    def _around(self) -> list[ObservedWeight]:
        """Return the weights that are in no layer."""
        return [w for w in self._weights if not w.name.startswith(tuple(f"{p}." for p in self._places.values()))]
