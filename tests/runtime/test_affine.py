"""Affine codes: what is encoded comes back, within what the bits allow; what no weight is encoded as is refused."""

from __future__ import annotations

import pytest
import torch

from quantize.solvers.hqq import solve_hqq
from submission.model.codecs import Affine
from submission.model.codecs.dtypes import torch_dtype


def gaussian(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3)) * 0.02


def relative_error(codec: Affine, weight: torch.Tensor) -> float:
    restored = codec.decode(codec.encode(weight, solve_hqq), tuple(weight.shape), torch.float32)
    return float((restored - weight).square().sum() / weight.square().sum())


@pytest.mark.parametrize("meta_bits", [None, 8])
@pytest.mark.parametrize("shape", [(6, 256), (5, 150), (3, 20)])
def test_the_parts_are_those_that_the_codec_says(shape, meta_bits):
    codec = Affine(bits=3, group_size=64, meta_bits=meta_bits)
    found = codec.encode(gaussian(*shape), solve_hqq)
    expected = codec.parts(shape)
    assert list(found) == list(expected)
    for name, (dtype, part_shape) in expected.items():
        assert found[name].dtype == torch_dtype(dtype) and found[name].shape == part_shape
    codec.check(found, shape)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_scales_in_eight_bits_cost_little_and_save_half_their_bytes(bits):
    weight = gaussian(64, 1024)
    plain, meta = (Affine(bits=bits, group_size=64, meta_bits=m) for m in (None, 8))
    # At 8 bits the error of a scale in 8 bits is no longer small beside that of a code.
    assert relative_error(meta, weight) < relative_error(plain, weight) * (1.02 if bits < 8 else 3)
    bytes_of = {c: sum(part.nbytes for part in c.encode(weight, solve_hqq).values()) for c in (plain, meta)}
    assert bytes_of[plain] - bytes_of[meta] == 64 * (16 * 2 - 8)


def test_constant_rows_survive_scales_in_eight_bits():
    weight = torch.cat([torch.full((1, 128), 0.25), torch.zeros(1, 128)])
    codec = Affine(bits=4, group_size=64, meta_bits=8)
    assert torch.allclose(codec.decode(codec.encode(weight, solve_hqq), (2, 128), torch.float32), weight, atol=1e-3)


@pytest.mark.parametrize("rows", [slice(3, 9), torch.tensor([7, 0, 7])])
@pytest.mark.parametrize("meta_bits", [None, 8])
def test_some_rows_decode_as_they_do_among_all(rows, meta_bits):
    codec = Affine(bits=3, group_size=64, meta_bits=meta_bits)
    parts = codec.encode(gaussian(12, 150), solve_hqq)
    whole = codec.decode(parts, (12, 150), torch.float32)
    assert torch.equal(codec.decode(parts, (12, 150), torch.float32, rows), whole[rows])


def test_blocks_of_rows_make_the_whole_weight():
    codec = Affine(bits=3, group_size=64)
    parts = codec.encode(gaussian(12, 150), solve_hqq)
    blocks = list(codec.blocks(parts, (12, 150), torch.float32, 5 * 150 + 1))
    assert [rows for rows, _ in blocks] == [slice(0, 5), slice(5, 10), slice(10, 12)]
    assert torch.equal(torch.cat([block for _, block in blocks]), codec.decode(parts, (12, 150), torch.float32))


def test_a_weight_beyond_float16_is_refused():
    weight = torch.full((2, 64), 1e9)
    weight[:, ::2] *= 3
    with pytest.raises(ValueError, match="is beyond float16; leave the role"):
        Affine(bits=4, group_size=64).encode(weight, solve_hqq)


@pytest.mark.parametrize(
    ("part", "value", "said"), [("scale", float("nan"), "scale: "), ("zero", float("inf"), "zero: ")]
)
def test_numbers_that_are_not_finite_are_refused(part, value, said):
    codec = Affine(bits=4, group_size=64)
    parts = codec.encode(gaussian(2, 64), solve_hqq)
    parts[part][1, 0] = value
    with pytest.raises(ValueError, match=f"^{said}"):
        codec.check(parts, (2, 64))


def test_codes_beyond_the_last_column_are_refused():
    codec = Affine(bits=3, group_size=64)
    parts = codec.encode(gaussian(2, 70), solve_hqq)
    parts["codes"][0, -1] |= 0x80
    with pytest.raises(ValueError, match="^codes: hold more"):
        codec.check(parts, (2, 70))
