"""Search for one smoothing group's scales, by the error of the codes that will be stored.

Columns of a weight are multiplied by s = mean|x| ** exponent, per channel, normalised to sqrt(max * min) = 1, and the
group's sources are divided by s: columns with large inputs get finer steps. Of a grid of exponents from 0 (nothing
moves) to below 1 the one with the least squared error of the group's outputs is taken. Every candidate goes through the
recipe's codec and solver, with the scales that remain after rounding (`quantize.calibration.folding.effective_scales`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from quantize.calibration.folding import effective_scales
from quantize.solvers.bound import SolveFor
from submission.errors import UserError
from submission.model.codecs import Codec

SCALE_LIMIT = 16.0
"""Scales are kept within it and its inverse. Rows of a weight are divided by them, and solvers have absolute bounds
(scales of at least 5e-5, errors that hqq's shrinkage takes up): at 3 and 4 bits, rows of ordinary weights keep their
codes when divided by 16, and lose them from 128 on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleChoice:
    """The scales of one smoothing group and the errors without and with them."""

    exponent: float
    before: dict[str, float]
    """Packed target -> squared error of its output, relative to the output, without scales."""
    after: dict[str, float]
    """The same with them."""
    scales: list[float]
    """Effective scales, float32, one a channel."""


def search(
    mean: torch.Tensor,
    sample: torch.Tensor,
    sources: Sequence[torch.Tensor],
    targets: Iterable[tuple[str, torch.Tensor, Codec]],
    solve_for: SolveFor,
    exponents: int,
) -> ScaleChoice:
    """Return the exponent of the grid i / exponents with the least error, summed over targets, and its scales.

    mean: magnitudes, float64 [channels]; sample: inputs, float32 [positions, channels]; sources: as in
    `effective_scales`; targets: name, weight float32 [rows, channels], codec. Of equals the smaller exponent is taken.
    """
    grid = [number / exponents for number in range(exponents)]
    candidates = [effective_scales(scales_of(mean, exponent), sources) for exponent in grid]
    errors = {
        name: output_errors(name, weight, codec, candidates, sample, solve_for) for name, weight, codec in targets
    }
    sums = [math.fsum(column) for column in zip(*errors.values(), strict=True)]
    best = sums.index(min(sums))
    return ScaleChoice(
        exponent=grid[best],
        before={name: row[0] for name, row in errors.items()},
        after={name: row[best] for name, row in errors.items()},
        scales=candidates[best].tolist(),
    )


def scales_of(mean: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return float32 [channels]: mean ** exponent with sqrt(max * min) = 1; 1 where all inputs are zero."""
    scales, alive = torch.ones_like(mean), mean > 0
    if alive.any():
        powers = mean[alive].pow(exponent)
        scales[alive] = (powers / (powers.max() * powers.min()).sqrt()).clamp(1 / SCALE_LIMIT, SCALE_LIMIT)
    return scales.float()


def output_errors(
    name: str,
    weight: torch.Tensor,
    codec: Codec,
    candidates: Sequence[torch.Tensor],
    sample: torch.Tensor,
    solve_for: SolveFor,
) -> list[float]:
    """Return ||(Q(W s) / s - W) x||^2 / ||W x||^2 for each candidate s, summed over the sample's positions x.

    Q is encoding and decoding by the codec; a candidate that it cannot store has an infinite error, and where it
    cannot store the weight itself, UserError says so. weight: float32 [rows, channels], name: what errors call it.
    """
    power = float((sample @ weight.T).square().sum(dtype=torch.float64))
    errors: list[float] = []
    for scales in candidates:
        scaled = weight * scales
        try:
            parts = codec.encode(scaled, solve_for(name, codec))
        except ValueError as error:
            if not errors:
                what, _, fix = str(error).partition("; ")
                raise UserError(name, what, fix) from error
            errors.append(math.inf)
            continue
        difference = codec.decode(parts, tuple(weight.shape), torch.float32).sub_(scaled)
        squared = float(((sample / scales) @ difference.T).square().sum(dtype=torch.float64))
        errors.append(squared / power if power else 0.0)
    return errors
