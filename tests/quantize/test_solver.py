from __future__ import annotations

import functools

import pytest
import torch

from quantize.solver import solve
from submission.codecs import Affine
from submission.codecs.affine import CODE_BITS
from submission.errors import UserError


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def restored(weight: torch.Tensor, bits: int, group_size: int) -> torch.Tensor:
    """The weight as it comes back from a packed model."""
    codec = Affine(bits=bits, group_size=group_size)
    parts = codec.encode(weight, functools.partial(solve, "hqq"))
    return codec.decode(parts, weight.shape[1], torch.float32)


def relative_error(weight: torch.Tensor, bits: int, group_size: int) -> float:
    return float((restored(weight, bits, group_size) - weight).square().sum() / weight.square().sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [64, 128])
def test_our_weights_equal_hqqs_own_dequantization(bits, group_size):
    from hqq.core.quantize import Quantizer

    weight = gaussian(48, 256)
    codes, meta = Quantizer.quantize(weight, nbits=bits, group_size=group_size, axis=1, device="cpu")
    meta |= {"scale": meta["scale"].half(), "zero": meta["zero"].half(), "compute_dtype": torch.float32}
    assert torch.equal(restored(weight, bits, group_size), Quantizer.dequantize(codes, meta))


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
    tail = solve("hqq", weight[:, 128:], 4, 64)
    assert torch.equal(solution.codes[:, 128:], tail.codes)
    assert relative_error(weight, 4, 64) < 0.0085


@pytest.mark.parametrize("bits", CODE_BITS)
def test_rows_shorter_than_a_group_and_constant_rows_survive(bits):
    weight = torch.cat([gaussian(3, 20), torch.full((1, 20), 0.25), torch.zeros(1, 20)])
    assert torch.allclose(restored(weight, bits, 64)[3:], weight[3:], atol=1e-4)


def test_a_solution_is_the_same_every_time():
    first, second = (solve("hqq", gaussian(64, 256), 3, 128) for _ in range(2))
    assert all(torch.equal(getattr(first, n), getattr(second, n)) for n in ("codes", "scale", "zero"))


def test_an_unknown_solver_is_refused_by_name():
    with pytest.raises(UserError, match="unknown solver 'hq'; did you mean 'hqq'"):
        solve("hq", gaussian(2, 8), 4, 8)
