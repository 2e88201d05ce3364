"""Tune the numbers of a packed model by their divergence from the original: Adam, in steps that a killed run resumes.

A step of Adam is as long as the learning rate says, however small gradients are, so the rate has to know how far the
optimum is. Near the original the divergence is quadratic in the errors of the weights: errors s times as large start
at s² times the loss, with an optimum s times as far away. So the rate goes with the root of the loss at the start.

The order of utterances is drawn from the seed alone, so a step does not depend on where a run was interrupted.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from quantize.recovery.teacher import Teacher
from quantize.recovery.tunable_model import TunableModel
from submission.progress import progress
from submission.runtime.loss import Estimate, make_batch, ratio, standard_error, target_tokens
from submission.runtime.prompt import Example
from submission.store.digests import write_bytes
from submission.system.recipe.quantize_options import RecoveryOptions

SAVE_EVERY_STEPS = 25
POSITIONS = 2048
"""Positions of the decoder that a pass with gradients runs over at a time."""
WARMUP_SHARE = 20
BETAS = (0.9, 0.95)


def tune(
    student: TunableModel,
    teacher: Teacher,
    examples: Sequence[Example],
    chosen: Sequence[int],
    pad: int,
    state: Path,
    options: RecoveryOptions,
) -> list[float]:
    """Tune the student on the chosen examples; return the divergence per target token of every step, before it.

    state: the file from which a killed run resumes.
    """
    tokens = target_tokens(examples)

    def backward(batch: list[int]) -> float:
        total, count = 0.0, int(tokens[batch].sum())
        for part in _parts(batch, examples):
            loss = _divergences(student, teacher, examples, part, pad).sum() / count
            loss.backward()
            total += float(loss.detach())
        return total

    return optimize(student.parameters(), list(_orders(chosen, options)), backward, options.learning_rate, state)


def optimize(
    parameters: Sequence[torch.nn.Parameter],
    batches: Sequence[list[int]],
    backward: Callable[[list[int]], float],
    learning_rate: float,
    state: Path | None = None,
) -> list[float]:
    """Take a step of Adam for each batch; return the loss of every step, before it.

    backward: adds the gradients of a batch's loss to those of the parameters, and returns the loss. learning_rate: the
    largest, over the root of the loss that the first steps find, while the rate still rises. state: the file from which
    a killed run resumes.
    """
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=BETAS)
    losses = _resume(optimizer, parameters, state) if state else []
    with progress("recover: tuning", len(batches), "steps", note=lambda _: _recent(losses)) as tick:
        tick(len(losses))
        for step in range(len(losses), len(batches)):
            optimizer.zero_grad()
            losses.append(backward(batches[step]))
            start = losses[: warmup_steps(len(batches))]
            largest = learning_rate * math.sqrt(max(sum(start) / len(start), 0.0))  # rounded, a loss can be below 0
            optimizer.param_groups[0]["lr"] = largest * rate_at(step, len(batches))
            optimizer.step()
            if state and (step + 1) % SAVE_EVERY_STEPS == 0:
                _save(optimizer, parameters, losses, state)
            tick(1)
    return losses


@torch.no_grad()
def mean_divergence(
    student: TunableModel, teacher: Teacher, examples: Sequence[Example], chosen: Sequence[int], pad: int
) -> Estimate:
    """Return the divergence per target token on the chosen examples, in nats."""
    sums = []
    for part in _parts(chosen, examples):
        found = _divergences(student, teacher, examples, part, pad).double().cpu()
        lengths = target_tokens([examples[index] for index in part]).tolist()
        sums += [piece.sum() for piece in found.split(lengths)]
    value, residuals = ratio(torch.stack(sums), target_tokens([examples[index] for index in chosen]))
    return Estimate(value=value, standard_error=standard_error(residuals))


def warmup_steps(steps: int) -> int:
    """Return over how many of the steps the learning rate rises: the first twentieth."""
    return -(-steps // WARMUP_SHARE)


def rate_at(step: int, steps: int) -> float:
    """Return the learning rate of a step from 0, as a share: up over the first steps, then down to 0."""
    warmup = warmup_steps(steps)
    return min((step + 1) / warmup, (steps - step) / (steps - warmup + 1))


def _divergences(
    student: TunableModel, teacher: Teacher, examples: Sequence[Example], indices: Sequence[int], pad: int
) -> torch.Tensor:
    batch = make_batch([examples[index] for index in indices], pad, student.device)
    return teacher.divergences(student.logits(batch), indices)


def _orders(chosen: Sequence[int], options: RecoveryOptions) -> Iterator[list[int]]:
    """Yield the examples of every step: all of them in a new order, again and again."""
    generator, queue = random.Random(f"{options.seed} order"), list[int]()
    for _ in range(options.steps):
        while len(queue) < options.batch_size:
            queue += generator.sample(chosen, len(chosen))
        yield queue[: options.batch_size]
        del queue[: options.batch_size]


def _parts(indices: Sequence[int], examples: Sequence[Example]) -> Iterator[list[int]]:
    """Yield indices in runs of at most POSITIONS positions, padding counted."""
    part: list[int] = []
    longest = 0
    for index in indices:
        length = len(examples[index].input_ids)
        if part and max(longest, length) * (len(part) + 1) > POSITIONS:
            yield part
            part, longest = [], 0
        part.append(index)
        longest = max(longest, length)
    yield part


def _recent(losses: Sequence[float]) -> str:
    last = losses[-10:]
    return f"KL {sum(last) / len(last):.4f}" if last else "KL unknown"


def _save(optimizer: torch.optim.Adam, parameters: Sequence[torch.Tensor], losses: Sequence[float], path: Path) -> None:
    tensors = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for number, parameter in enumerate(parameters):
        held = optimizer.state[parameter]
        tensors[f"{number}.change"] = parameter.detach()
        tensors[f"{number}.exp_avg"], tensors[f"{number}.exp_avg_sq"] = held["exp_avg"], held["exp_avg_sq"]
    write_bytes(path, save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))


def _resume(optimizer: torch.optim.Adam, parameters: Sequence[torch.Tensor], path: Path) -> list[float]:
    """Put parameters and optimizer where a killed run saved them; return the losses of its steps, or none."""
    if not path.is_file():
        return []
    tensors = load_file(path)
    losses: list[float] = tensors["losses"].tolist()
    for number, parameter in enumerate(parameters):
        parameter.data.copy_(tensors[f"{number}.change"])
        optimizer.state[parameter] = {
            "step": torch.tensor(float(len(losses))),
            **{name: tensors[f"{number}.{name}"].to(parameter.device) for name in ("exp_avg", "exp_avg_sq")},
        }
    return losses
