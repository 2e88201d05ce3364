from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from quantize.bench.solver import bench_solver
from quantize.solvers.bound import bind_solver
from quantize.solvers.feedback import Moments
from quantize.solvers.hqq import solve_hqq
from quantize.solvers.hqq_library import quantize_with_library, solve_hqq_library
from quantize.solvers.hqq_torch import refit_pieces, solve_pieces
from submission.errors import UserError
from submission.model.codecs import Affine
from submission.model.codecs.affine import CODE_BITS, AffineSolution
from submission.model.solvers import SOLVERS
from tests.support.launching import HANG_SECONDS

PARTS = ("codes", "scale", "zero")
AFFINE_SOLVERS = [name for name, solver in SOLVERS.items() if "affine" in solver.functions]


def solve(solver: str, weight: torch.Tensor, bits: int, group_size: int) -> AffineSolution:
    side_data = {"moments": Moments()} if SOLVERS[solver].side_data else {}
    return SOLVERS[solver].function("affine")(weight, bits, group_size, **side_data)


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def student(rows: int, columns: int) -> torch.Tensor:
    """Student's t with three degrees of freedom."""
    parts = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(3)).square().mean(0)
    return gaussian(rows, columns) / parts.sqrt()


def with_outliers(rows: int, columns: int) -> torch.Tensor:
    chosen = torch.rand(rows, columns, generator=torch.Generator().manual_seed(4)) < 1e-3
    return torch.where(chosen, 40 * gaussian(rows, columns), gaussian(rows, columns))


def flat_and_stepped(rows: int, columns: int) -> torch.Tensor:
    """Constant rows, zeros, and rows of few values, whose codes lie on the edges between two numbers."""
    steps = torch.randint(-3, 4, (rows, columns), generator=torch.Generator().manual_seed(5)) * 0.1
    steps[0::4], steps[1::4] = 0.3, 0.0
    return steps


WEIGHTS = {
    "gaussian": gaussian,
    "student": student,
    "outliers": with_outliers,
    "tiny": lambda rows, columns: gaussian(rows, columns) * 5e-3,  # the scale is at its bound
    "flat to hqq": lambda rows, columns: gaussian(rows, columns) * 5e-4,
    "large": lambda rows, columns: gaussian(rows, columns) * 500,  # the shrinkage works
    "huge": lambda rows, columns: student(rows, columns) * 2e4,
    "flat": flat_and_stepped,
}


def group_errors(weight: torch.Tensor, solution: AffineSolution) -> torch.Tensor:
    """The squared error of every group, float64 [rows, groups]."""
    codes = solution.codes.double().view(*solution.scale.shape, -1)
    restored = (codes - solution.zero.double().unsqueeze(2)) * solution.scale.double().unsqueeze(2)
    return (restored - weight.double().view(codes.shape)).square().sum(2)


def restored(weight: torch.Tensor, bits: int, group_size: int) -> torch.Tensor:
    """The weight as it comes back from a packed model."""
    codec = Affine(bits=bits, group_size=group_size)
    return codec.decode(codec.encode(weight, solve_hqq), tuple(weight.shape), torch.float32)


def relative_error(weight: torch.Tensor, bits: int, group_size: int) -> float:
    return float((restored(weight, bits, group_size) - weight).square().sum() / weight.square().sum())


def differing(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first != second).float().mean())


# A rounding tie may turn dozens of codes of its group, at 8 bits more often than below: there more weights are drawn.
@pytest.mark.parametrize(("bits", "rows"), [(2, 128), (3, 128), (4, 128), (8, 384)])
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("group_size", [64, 128])
def test_codes_are_those_of_the_hqq_library_up_to_ties(kind, bits, rows, group_size):
    weight = WEIGHTS[kind](rows, 2048)
    ours, theirs = solve("hqq", weight, bits, group_size), solve_hqq_library(weight, bits, group_size)
    assert differing(ours.codes, theirs.codes) <= 1e-4
    assert torch.equal(ours.scale, theirs.scale)
    assert group_errors(weight, ours).sum() <= group_errors(weight, theirs).sum() * (1 + 1e-4)


@pytest.mark.parametrize("bits", [3, 4])
def test_the_zero_point_starts_rounded_at_4_bits_if_requested(bits):
    weight = gaussian(128, 1024)
    ours = solve("hqq-rounded-zero", weight, bits, 64)
    theirs = quantize_with_library(weight, bits, 64, round_zero=bits == 4)
    assert differing(ours.codes, theirs.codes) <= 1e-4
    assert (differing(ours.codes, solve("hqq", weight, bits, 64).codes) > 0.1) == (bits == 4)


@pytest.mark.parametrize("seed", range(12))
def test_a_weight_of_few_groups_stops_when_hqq_does(seed):
    weight = gaussian(2, 128, seed) * 300
    ours, theirs = solve("hqq", weight, 2, 64), solve_hqq_library(weight, 2, 64)
    assert torch.equal(ours.codes, theirs.codes)
    assert torch.allclose(ours.zero, theirs.zero, atol=1e-4)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [64, 128])
def test_our_weights_equal_hqqs_own_dequantization(bits, group_size):
    from hqq.core.quantize import Quantizer

    weight = gaussian(48, 256)
    codes, meta = Quantizer.quantize(weight, nbits=bits, group_size=group_size, axis=1, device="cpu")
    meta |= {"scale": meta["scale"].half(), "zero": meta["zero"].half(), "compute_dtype": torch.float32}
    # Zero-points may differ in the last bit of float32, and one in thousands is on an edge of float16.
    assert differing(restored(weight, bits, group_size), Quantizer.dequantize(codes, meta)) < 0.01


@pytest.mark.parametrize(
    ("bits", "group_size", "error"),
    [(4, 64, 0.0074), (4, 128, 0.0094), (3, 64, 0.034), (2, 64, 0.19)],
)
def test_gaussian_weights_lose_what_hqq_is_known_to_lose(bits, group_size, error):
    assert relative_error(gaussian(128, 512), bits, group_size) == pytest.approx(error, rel=0.05)


def test_the_last_group_of_ragged_rows_is_solved_by_itself():
    weight = gaussian(32, 150)
    solution = solve("hqq", weight, 4, 64)
    assert solution.codes.shape == (32, 150) and solution.scale.shape == solution.zero.shape == (32, 3)
    whole, tail = solve("hqq", weight[:, :128], 4, 64), solve("hqq", weight[:, 128:], 4, 64)
    for part in PARTS:
        pieces = [getattr(whole, part), getattr(tail, part)]
        assert torch.equal(getattr(solution, part), torch.cat(pieces, dim=1)), part
    assert relative_error(weight, 4, 64) < 0.0085


@pytest.mark.parametrize("bits", CODE_BITS)
def test_rows_shorter_than_a_group_and_constant_rows_survive(bits):
    weight = torch.cat([gaussian(3, 20), torch.full((1, 20), 0.25), torch.zeros(1, 20)])
    assert torch.allclose(restored(weight, bits, 64)[3:], weight[3:], atol=1e-4)


@pytest.mark.parametrize("solver", AFFINE_SOLVERS)
def test_a_solution_is_the_same_bytes_on_any_number_of_threads(solver):
    weight, before = gaussian(700, 1024), torch.get_num_threads()
    solutions = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            solutions.append(solve(solver, weight, 3, 128))
    finally:
        torch.set_num_threads(before)
    for other in solutions[1:]:
        assert all(torch.equal(getattr(solutions[0], name), getattr(other, name)) for name in PARTS)


@pytest.mark.parametrize("solver", AFFINE_SOLVERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_views_are_solved_as_their_float32_copy(solver, dtype):
    weight = gaussian(96, 40).to(dtype)
    for view in (weight, weight.t(), weight[::2, 1:]):
        ours, copied = solve(solver, view, 4, 16), solve(solver, view.float().contiguous(), 4, 16)
        assert all(torch.equal(getattr(ours, name), getattr(copied, name)) for name in PARTS)


@pytest.mark.parametrize("kind", ["gaussian", "student", "tiny", "large", "flat"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_alternating_least_squares_is_worse_than_hqq_on_no_group(kind, bits):
    weight = WEIGHTS[kind](64, 1024)
    hqq, als = (group_errors(weight, solve(solver, weight, bits, 64)) for solver in ("hqq", "als"))
    assert (als <= hqq * (1 + 1e-9) + 1e-20).all()
    if kind in ("gaussian", "student", "large"):
        assert als.sum() < hqq.sum() * 0.98


def test_alternating_least_squares_loses_a_tenth_less_at_4_bits():
    weight = gaussian(128, 1024)
    error = group_errors(weight, solve("als", weight, 4, 64)).sum() / weight.double().square().sum()
    assert error < 0.0068


@pytest.mark.parametrize("kind", ["gaussian", "student", "tiny", "large", "flat"])
@pytest.mark.parametrize("columns", [1024, 1000, 50])
def test_what_runs_on_a_gpu_finds_what_the_kernels_find(kind, columns):
    weight = WEIGHTS[kind](128, columns)
    kernels, refitted = solve("hqq", weight, 4, 64), solve("als", weight, 4, 64)
    codes, scale, zero = solve_pieces(weight, 64, 15, round_zero=False, iterations=20)
    assert differing(codes, kernels.codes) <= 1e-4
    assert torch.equal(scale, kernels.scale) and torch.allclose(zero, kernels.zero, rtol=1e-3, atol=1e-3)
    codes, scale, zero = refit_pieces(weight, 64, 15, kernels.scale, kernels.zero)
    assert differing(codes, refitted.codes) <= 1e-3
    assert torch.allclose(scale, refitted.scale, rtol=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("solver", AFFINE_SOLVERS)
def test_a_gpu_solves_as_the_cpu_does(solver):
    weight = gaussian(128, 1000)
    here, there = solve(solver, weight, 4, 64), solve(solver, weight.cuda(), 4, 64)
    assert there.codes.is_cuda and there.scale.is_cuda and there.zero.is_cuda
    assert differing(here.codes, there.codes.cpu()) <= 1e-3


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused_by_its_row(number):
    weight = gaussian(600, 1024)
    weight[431, 1000] = number
    with pytest.raises(ValueError, match="row 431 holds a number that is not finite"):
        solve("hqq", weight, 4, 64)
    with pytest.raises(ValueError, match="not finite"):
        solve_pieces(weight, 64, 15, round_zero=False, iterations=20)


def test_a_forked_process_solves_too():
    """OpenMP's threads, torch's among them, do not survive the fork; ours are made for each call."""
    program = """
import os, sys, torch
from quantize.solvers.hqq import solve_hqq
torch.set_num_threads(2)
weight = torch.randn(600, 1024)
weight @ weight.t()
codes = solve_hqq(weight, 4, 64).codes.numpy()
child = os.fork()
if not child:
    os._exit(0 if (solve_hqq(weight, 4, 64).codes.numpy() == codes).all() else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=HANG_SECONDS).returncode == 0


def test_the_bench_measures_both_and_compares_their_results():
    result = bench_solver(rows=4, columns=256, runs=1)
    assert result["shape"] == [4, 256] and result["seconds"]["ours"] > 0 and result["seconds"]["hqq"] > 0
    assert result["ratio"] == pytest.approx(result["seconds"]["hqq"] / result["seconds"]["ours"])
    assert result["differing_codes"] <= 1e-2
    assert result["relative_mse"]["ours"] == pytest.approx(result["relative_mse"]["hqq"], rel=1e-3)


def test_an_unknown_solver_is_refused_by_name():
    with pytest.raises(UserError, match="unknown solver 'hq'; did you mean 'hqq'"):
        bind_solver("hq")
