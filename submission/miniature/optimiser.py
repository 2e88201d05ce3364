"""Muon for the matrices and AdamW for the rest, divided among a few single-threaded processes.

Why not `torch.optim.Muon`: it orthogonalises one matrix at a time in bfloat16, which a processor without
bfloat16 arithmetic emulates. Here matrices of one shape are orthogonalised together in float32 (three times
faster on such a machine), and the processes divide the matrices among themselves. The mathematics
is Keller Jordan's Muon (kellerjordan.github.io/posts/muon): Nesterov momentum, five Newton-Schulz steps, a
step scaled by sqrt(rows / columns).

Why processes and not threads: on a machine that is busy with other work, two OpenMP threads wait for each
other at every operation and can be slower than one; processes synchronise only twice per step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
BARRIER_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGroup:
    """One process' rank among those that train together, and the memory that they share."""

    rank: int
    size: int
    board: torch.Tensor
    """Shared float32 [size, elements]: each process writes its own row."""
    barrier: Barrier | None
    """None for a single process."""

    def total(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the sum of every process's vector, the same bits everywhere: float32 [elements]."""
        if self.barrier is None:
            return vector
        count = vector.numel()
        self.board[self.rank, :count] = vector
        self.barrier.wait(BARRIER_SECONDS)
        result = self.board[:, :count].sum(0)
        self.barrier.wait(BARRIER_SECONDS)
        return result


def single_process() -> ProcessGroup:
    """Return the group of one process."""
    return ProcessGroup(rank=0, size=1, board=torch.empty(1, 0), barrier=None)


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Return matrices [count, rows, columns] with their singular values moved to about 1, float32.

    Newton-Schulz iteration with the coefficients of Muon; it ends between 0.7 and 1.2, which serves as well.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.size(1) > matrices.size(2)
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return the gradient of a parameter that has one."""
    assert parameter.grad is not None
    return parameter.grad


class Muon:
    """Muon over 2-D parameters, their orthogonalisation divided among the processes of a group."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], momentum: float, weight_decay: float) -> None:
        self.parameters = list(parameters)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.velocity = [torch.zeros_like(parameter) for parameter in self.parameters]

    def step(self, learning_rate: float, processes: ProcessGroup) -> None:
        """Move every parameter that has a gradient; gradients must already be the same in every process."""
        live = [index for index, parameter in enumerate(self.parameters) if parameter.grad is not None]
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, index in enumerate(live):
            self.velocity[index].lerp_(gradient(self.parameters[index]), 1 - self.momentum)
            if place % processes.size == processes.rank:
                by_shape[tuple(self.parameters[index].shape)].append(index)
        updates = {index: torch.zeros_like(self.parameters[index]) for index in live}
        for indices in by_shape.values():
            looked_ahead = [
                gradient(self.parameters[index]).lerp(self.velocity[index], self.momentum) for index in indices
            ]
            updates |= zip(indices, orthogonalise(torch.stack(looked_ahead)), strict=True)
        flat = processes.total(torch.cat([updates[index].reshape(-1) for index in live]))
        pieces = flat.split([self.parameters[index].numel() for index in live])
        with torch.no_grad():
            for index, piece in zip(live, pieces, strict=True):
                parameter = self.parameters[index]
                rows, columns = parameter.shape
                parameter.mul_(1 - learning_rate * self.weight_decay)
                parameter.add_(piece.view(rows, columns), alpha=-learning_rate * max(1.0, rows / columns) ** 0.5)


class Optimiser:
    """Muon for the hidden matrices, AdamW for embeddings, heads, convolutions, norms and biases."""

    def __init__(self, modules: torch.nn.Module, *, muon_rate: float, adam_rate: float, weight_decay: float) -> None:
        named = [(name, p) for name, p in modules.named_parameters() if p.requires_grad]
        hidden = [p for name, p in named if is_hidden_matrix(name, p)]
        rest = [p for name, p in named if not is_hidden_matrix(name, p)]
        self.parameters = [p for _, p in named]
        self.muon_rate, self.adam_rate = muon_rate, adam_rate
        self.muon = Muon(hidden, momentum=0.95, weight_decay=weight_decay)
        self.adam = torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.98), weight_decay=weight_decay)

    def step(self, scale: float, processes: ProcessGroup) -> None:
        """Average the group's gradients, move every parameter at `scale` times its rate, and clear the gradients."""
        live = [parameter for parameter in self.parameters if parameter.grad is not None]
        flat = processes.total(torch.cat([gradient(parameter).reshape(-1) for parameter in live])) / processes.size
        for parameter, piece in zip(live, flat.split([p.numel() for p in live]), strict=True):
            gradient(parameter).copy_(piece.view_as(parameter))
        self.muon.step(self.muon_rate * scale, processes)
        for group in self.adam.param_groups:
            group["lr"] = self.adam_rate * scale
        self.adam.step()
        for parameter in live:
            parameter.grad = None


def is_hidden_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Return whether a parameter is Muon's: 2-D, and neither embedding nor head."""
    return parameter.ndim == 2 and not any(part in name for part in ("embed", "head"))


def rate_scale(step: int, steps: int, *, warm_up: int = 20, flat_share: float = 0.4) -> float:
    """Return the learning rate's factor: up in `warm_up` steps, level, then straight down to zero at the end.

    Most of the quality comes in the second half of the decay.
    """
    rising = (step + 1) / warm_up
    falling = (steps - step) / (steps * (1 - flat_share))
    return min(1.0, rising, falling)
