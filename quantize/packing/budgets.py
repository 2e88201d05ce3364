"""Allocation of a model: how many bytes each weight with a budget gets, so that the folder meets a target exactly.

Every weight is read once, for a sample of its rows and for the constant at which all of them together come to the
target, in closed form. The samples, a sixteenth of a weight of 4096 rows, stay in memory, and give the bytes of each
weight at constants around that one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from quantize.calibration.model_moments import MomentsFolder
from quantize.packing.pack import read_tensor
from quantize.packing.weights_at_once import each_weight
from quantize.solvers.allocation import Allocation, allocate
from quantize.solvers.feedback import InputFactor, Moments
from quantize.solvers.rate import RateCurve, RowSample, draw_sample, estimate_rate, expected_log2_constant
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
    if not codecs:
        raise UserError("quantize.codecs", "no weight has a codec with a budget", "leave the target out")
    names = sorted(codecs, key=lambda name: (_input_key(name, moments), name))

    def draw(name: str) -> tuple[RowSample, float]:
        """Return a weight's sample, and what its constant is in closed form."""
        weight = read_tensor(checkpoint.located[name], name)
        found = _read_moments(name, moments)
        diagonal = InputFactor(diagonal=found.read_diagonal(weight.shape[1]), feedback=None)
        sample = draw_sample(weight, diagonal, found.importance)
        return sample, expected_log2_constant(sample, diagonal, bits, trellis=_has_trellis(codecs[name]))

    with progress("allocate: closed form", len(names), "weights") as tick:
        elements = {name: math.prod(checkpoint.located[name].shape) for name in names}
        drawn = dict(zip(names, each_weight(draw, names, elements.__getitem__, lambda _: tick(1)), strict=True))
    total = sum(elements.values())
    log2_constant = sum(elements[name] * drawn[name][1] for name in codecs) / total

    def estimate(together: list[str]) -> dict[str, RateCurve]:
        """Return the curves of weights that read one input: its factor is read once."""
        factor = _read_moments(together[0], moments).read_factor(drawn[together[0]][0].shape[1])
        return {
            name: estimate_rate(drawn[name][0], factor, log2_constant, trellis=_has_trellis(codecs[name]))
            for name in together
        }

    groups = [list(group) for _, group in groupby(names, key=lambda name: _input_key(name, moments))]
    with progress("allocate: rates", len(names), "weights") as tick:
        curves = each_weight(estimate, groups, lambda group: elements[group[0]], lambda group: tick(len(group)))
    return {name: curve for found in curves for name, curve in found.items()}


def _input_key(name: str, moments: MomentsFolder | None) -> str:
    """Return what weights that read one input have in common."""
    return moments.inputs.get(name, name) if moments else name


def _has_trellis(codec: Codec) -> bool:
    return isinstance(codec, Entropy) and codec.trellis


def _read_moments(name: str, moments: MomentsFolder | None) -> Moments:
    return Moments() if moments is None else moments.read(name)
