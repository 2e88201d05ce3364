"""Allocation of a model: how many bytes each weight with a budget gets, so that the folder meets a target exactly.

Every weight is sampled twice: once for the constant at which all of them together come to the target, in closed form,
once for its bytes at constants around that one. Only one weight, its second moment and its factor are in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from quantize.calibration.model_moments import MomentsFolder
from quantize.packing.pack import read_tensor
from quantize.solvers.allocation import Allocation, allocate
from quantize.solvers.feedback import InputFactor, Moments
from quantize.solvers.rate import RateCurve, estimate_rate, expected_log2_constant
from submission.errors import UserError
from submission.model.budgets import BUDGETS, budgeted_shapes, equal_rate_shares, fit_budgets, least_budget
from submission.model.checkpoint import Checkpoint, read_checkpoint
from submission.model.codecs import Codec
from submission.model.codecs.entropy.codec import Entropy
from submission.model.families import tensors, without_parts
from submission.model.forecast import add_up, allotted, companion_bytes
from submission.model.safetensors_header import tensor_bytes
from submission.progress import progress
from submission.store.digests import canonical_json, write_text

Weighed = tuple[str, torch.Tensor, InputFactor, torch.Tensor | None]
"""Name of a weight, its values, the factor of its inputs, the importance of its rows."""


def allot(
    folder: Path,
    codecs: Mapping[str, Codec],
    out: Path,
    *,
    target_bytes: int,
    moments: MomentsFolder | None,
    drop: Sequence[str] = (),
) -> dict[str, Any]:
    """Write budgets.json into `out` and return what it holds.

    folder: the checkpoint; codecs: of every packed weight; moments: what errors are weighed by; None: the weights
    alone; drop: parts that are left out. Raises UserError for a target below the least that the model can weigh.
    """
    checkpoint = read_checkpoint(folder)
    config = without_parts(checkpoint.config, drop)
    shapes = budgeted_shapes(config, codecs)
    other_bytes = companion_bytes(folder)
    least = {name: least_budget(codecs[name], shape) for name, shape in shapes.items()}
    equal = fit_budgets(config, codecs, target_bytes, equal_rate_shares(shapes, least), other_bytes=other_bytes)
    weights = sum(math.prod(shape) for shape in shapes.values())
    budgeted = {name: codecs[name] for name in shapes}
    curves = rate_curves(checkpoint, budgeted, moments, bits=8 * sum(equal.values()) / weights)
    beside = {name: _bytes_beside(codecs[name].allotted(equal[name]), shape) for name, shape in shapes.items()}
    found: Allocation | None = None

    def shares(stream_bytes: int) -> Mapping[str, int]:
        nonlocal found
        found = allocate(curves, stream_bytes + sum(beside.values()))
        return {name: budget - beside[name] for name, budget in found.budget_bytes.items()}

    budgets = fit_budgets(config, codecs, target_bytes, shares, other_bytes=other_bytes)
    assert found is not None, "budgets are shared out at least once"
    used = add_up(config, tensors(config), allotted(codecs, budgets), other_bytes).total_bytes
    fisher = moments is not None and moments.fisher
    report = {
        "budgets": budgets,
        "constant": found.constant,
        "target_bytes": target_bytes,
        "total_bytes": used,
        "weights": weights,
        "bits_per_weight": float(f"{8 * (sum(budgets.values()) + sum(beside.values())) / weights:.6g}"),
        "predicted_divergence": float(f"{predicted_divergence(found.constant, weights):.6g}") if fisher else None,
    }
    write_text(out / BUDGETS, canonical_json(report))
    return report


def _bytes_beside(codec: Codec, shape: tuple[int, ...]) -> int:
    """Return the bytes of a weight's parts that its budget does not cover: scales, for instance."""
    return sum(tensor_bytes(*part) for part in codec.parts(shape).values()) - (codec.budget_bytes or 0)


def predicted_divergence(constant: float, weights: int) -> float:
    """Return the divergence from the unpacked model in nats per target token at a high rate, to second order.

    It is by gradients with labels that the model itself draws. Every weight's error has the variance
    step ** 2 / 12 in units in which its loss is half a square. Measured divergences are 1.4 to 3 times as much
    at 3 bits a weight and more, up to 6 times at 2.
    """
    return weights * constant**2 / 24


def rate_curves(
    checkpoint: Checkpoint, codecs: Mapping[str, Codec], moments: MomentsFolder | None, *, bits: float
) -> dict[str, RateCurve]:
    """Return weight name -> its size against the constant; codecs: by that name; bits: what a weight has on average."""
    names = list(codecs)
    expected, total = 0.0, 0
    with progress("allocate: closed form", len(names), "weights") as tick:
        for name in names:
            weight, found = _read(checkpoint, name, moments)
            diagonal = InputFactor(diagonal=found.read_diagonal(weight.shape[1]), feedback=None)
            trellis = _has_trellis(codecs[name])
            expected += weight.numel() * expected_log2_constant(
                weight, diagonal, found.importance, bits, trellis=trellis
            )
            total += weight.numel()
            tick(1)
    if not total:
        raise UserError("quantize.codecs", "no weight has a codec with a budget", "leave the target out")
    log2_constant = expected / total
    return {
        name: estimate_rate(weight, factor, importance, log2_constant, trellis=_has_trellis(codecs[name]))
        for name, weight, factor, importance in _weighed(checkpoint, names, moments)
    }


def _has_trellis(codec: Codec) -> bool:
    return isinstance(codec, Entropy) and codec.trellis


def _read(checkpoint: Checkpoint, name: str, moments: MomentsFolder | None) -> tuple[torch.Tensor, Moments]:
    """Return a weight in its own dtype, since an embedding in float32 takes 2.6 GB, and its moments."""
    return read_tensor(checkpoint.located[name], name), Moments() if moments is None else moments.read(name)


def _weighed(checkpoint: Checkpoint, names: list[str], moments: MomentsFolder | None) -> Iterator[Weighed]:
    """Yield weights with what their errors are weighed by; those that share an input follow each other."""
    keys = moments.inputs if moments else {}
    previous: tuple[str, InputFactor] | None = None
    with progress("allocate: rates", len(names), "weights") as tick:
        for name in sorted(names, key=lambda name: (keys.get(name, name), name)):
            weight, found = _read(checkpoint, name, moments)
            key = keys.get(name, name)
            if previous is None or previous[0] != key:
                previous = key, found.read_factor(weight.shape[1])
            yield name, weight, previous[1], found.importance
            tick(1)
