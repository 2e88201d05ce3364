"""Run hqq and alternating least squares in torch's own operations, on a GPU; the algorithms are those of `hqq_kernels`.

Every pass goes over the whole weight, as in hqq, and in float32 (hqq takes float16 on a GPU).
"""

from __future__ import annotations

import torch

from quantize.solvers.hqq_kernels import BETA, FLAT, INERT, LP_NORM, MOST_STEPS, REFITS, STARTS

Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def solve_pieces(weight: torch.Tensor, group_size: int, top: int, *, round_zero: bool, iterations: int) -> Parts:
    """Return codes, scale and zero-point of a weight by hqq's iteration, as `hqq_kernels.solve_groups` does."""
    whole = weight.shape[1] - weight.shape[1] % group_size
    pieces = [(weight[:, :whole], group_size), (weight[:, whole:], weight.shape[1] - whole)]
    solved = [_solve(piece, width, top, round_zero, iterations) for piece, width in pieces if piece.shape[1]]
    codes, scale, zero = (torch.cat(parts, dim=1) for parts in zip(*solved, strict=True))
    return codes, scale, zero


def _solve(weight: torch.Tensor, width: int, top: int, round_zero: bool, iterations: int) -> Parts:
    values = weight.reshape(-1, width).float()
    low, high = values.aminmax(dim=1, keepdim=True)
    if not (torch.isfinite(low) & torch.isfinite(high)).all():
        raise ValueError("holds a number that is not finite; fetch or train it again")
    steps = torch.where(high - low > float(FLAT), top / (high - low), 1.0).clamp(max=float(MOST_STEPS))
    zero = -low * steps
    if round_zero:
        zero = zero.round_()
    mean_steps = values.mean(dim=1, keepdim=True, dtype=torch.float64) * steps
    best = torch.tensor(torch.inf, device=weight.device)
    for _ in range(iterations):
        codes = _codes(values, steps, zero, top)
        errors = values - (codes - zero) / steps
        target = codes.mean(dim=1, keepdim=True, dtype=torch.float64) - mean_steps
        if errors.abs().amax() > float(INERT):
            target += _shrunk(errors).mean(dim=1, keepdim=True, dtype=torch.float64) * steps
        zero = target.float()
        mean_error = errors.abs().mean(dtype=torch.float64).float()
        if not mean_error < best:
            break
        best = mean_error
    rows = len(weight)
    codes = _codes(values, steps, zero, top).to(torch.uint8)
    return codes.view(weight.shape), (1 / steps).view(rows, -1), zero.view(rows, -1)


def _codes(values: torch.Tensor, steps: torch.Tensor, zero: torch.Tensor, top: int) -> torch.Tensor:
    return (values * steps).add_(zero).round_().clamp_(0, top)


def _shrunk(errors: torch.Tensor) -> torch.Tensor:
    sizes = errors.abs()
    return (sizes - sizes ** (float(LP_NORM) - 1) / float(BETA)).clamp_min_(0).mul_(errors.sign())


def refit_pieces(weight: torch.Tensor, group_size: int, top: int, scale: torch.Tensor, zero: torch.Tensor) -> Parts:
    """Return codes, scale and zero-point after alternating least squares, as `hqq_kernels.refit_groups` does."""
    whole = weight.shape[1] // group_size
    columns = whole * group_size
    pieces = [
        (weight[:, :columns], group_size, scale[:, :whole], zero[:, :whole]),
        (weight[:, columns:], weight.shape[1] - columns, scale[:, whole:], zero[:, whole:]),
    ]
    refitted = [_refit(piece, width, top, s, z) for piece, width, s, z in pieces if piece.shape[1]]
    codes, scale, zero = (torch.cat(parts, dim=1) for parts in zip(*refitted, strict=True))
    return codes, scale, zero


def _refit(weight: torch.Tensor, width: int, top: int, scale: torch.Tensor, zero: torch.Tensor) -> Parts:
    values = weight.reshape(-1, width).float()
    shape = scale.shape
    given, origin = scale.reshape(-1, 1), zero.reshape(-1, 1)
    best: Parts = (_codes(values, 1 / given, origin, top), given, origin)
    least = _squared_errors(values, *best)
    for start in STARTS:
        *found, errors = _least_squares(values, given * start, top / 2 - (top / 2 - origin) / start, top)
        better = (errors < least) & (found[1] * float(MOST_STEPS) >= 1)
        codes, scale, zero = (torch.where(better, new, old) for new, old in zip(found, best, strict=True))
        best = (codes, scale, zero)
        least = torch.where(better, errors, least)
    codes, scale, zero = best
    return codes.to(torch.uint8).view(weight.shape), scale.view(shape), zero.view(shape)


def _least_squares(
    values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, top: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return codes, scale, zero-point and squared errors after regressions of the values on their codes."""
    means = values.mean(dim=1, keepdim=True, dtype=torch.float64)
    codes = _codes(values, 1 / scale, zero, top)
    errors = _squared_errors(values, codes, scale, zero)
    for _ in range(REFITS):
        centre = codes.mean(dim=1, keepdim=True, dtype=torch.float64)
        centred = codes - centre
        slope = ((centred * values).sum(dim=1, keepdim=True) / centred.square_().sum(dim=1, keepdim=True)).float()
        origin = (centre - means / slope).float()
        nearest = _codes(values, 1 / slope, origin, top)
        fresh = _squared_errors(values, nearest, slope, origin)
        # A slope that is not a number fails the comparisons, so its group stays as it is.
        better = (slope * float(MOST_STEPS) >= 1) & (fresh < errors)
        if not better.any():
            break
        scale, zero = torch.where(better, slope, scale), torch.where(better, origin, zero)
        codes, errors = torch.where(better, nearest, codes), torch.where(better, fresh, errors)
    return codes, scale, zero, errors


def _squared_errors(values: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    return (values - (codes - zero) * scale).double().square_().sum(dim=1, keepdim=True)
