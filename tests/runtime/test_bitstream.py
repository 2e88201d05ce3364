from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from submission.model.codecs import Affine
from submission.model.codecs.affine import CODE_BITS
from submission.model.codecs.bitstream import pack_codes, padding_is_zero, unpack_codes


def slow_pack(codes: np.ndarray, bits: int) -> list[list[int]]:
    """The definition: code j of a row is added at bit j * bits of one long little-endian number."""
    size = -(-codes.shape[1] * bits // 8)
    numbers = [sum(int(code) << (j * bits) for j, code in enumerate(row)) for row in codes]
    return [list(number.to_bytes(size, "little")) for number in numbers]


@st.composite
def coded(draw):
    """Bits, and codes of any shape that they can hold."""
    bits = draw(st.sampled_from(CODE_BITS))
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 150))
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    return bits, generator.integers(0, 1 << bits, shape, dtype=np.uint8)


@given(coded())
def test_packing_makes_a_little_endian_bit_stream_of_every_row(case):
    bits, codes = case
    assert pack_codes(torch.from_numpy(codes), bits).tolist() == slow_pack(codes, bits)


@given(coded(), st.sampled_from([1, 7, 64, 128]))
def test_codes_survive_packing_exactly_and_take_the_bytes_that_the_codec_says(case, group_size):
    bits, codes = case
    packed = pack_codes(torch.from_numpy(codes), bits)
    assert packed.shape == Affine(bits=bits, group_size=group_size).parts(codes.shape)["codes"][1]
    assert np.array_equal(unpack_codes(packed, bits, codes.shape[1]).numpy(), codes)


def test_eight_three_bit_codes_take_three_bytes():
    assert pack_codes(torch.arange(8, dtype=torch.uint8)[None], 3).tolist() == [[0x88, 0xC6, 0xFA]]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_a_code_that_its_bits_cannot_hold_is_refused(bits):
    with pytest.raises(ValueError, match=f"{1 << bits} does not fit in {bits} bits"):
        pack_codes(torch.tensor([[0, 1 << bits]], dtype=torch.uint8), bits)


def slow_unpack(rows: torch.Tensor, bits: int, columns: int) -> list[list[int]]:
    """The definition: a row is one long little-endian number, read `bits` bits at a time."""
    numbers = [int.from_bytes(bytes(row.tolist()), "little") for row in rows]
    return [[number >> (j * bits) & ((1 << bits) - 1) for j in range(columns)] for number in numbers]


@given(
    bits=st.sampled_from(CODE_BITS),
    rows=st.integers(1, 5),
    columns=st.integers(1, 70),
    seed=st.integers(0, 2**31),
)
def test_unpacking_reads_a_little_endian_bit_stream(bits, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (rows, -(-columns * bits // 8)), dtype=torch.uint8, generator=generator)
    codes = unpack_codes(data, bits, columns)
    assert codes.dtype == torch.uint8 and codes.shape == (rows, columns)
    assert codes.tolist() == slow_unpack(data, bits, columns)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_what_stands_behind_the_last_code_is_found(bits):
    packed = pack_codes(torch.full((3, 5), (1 << bits) - 1, dtype=torch.uint8), bits)
    assert padding_is_zero(packed, bits, 5)
    packed[1, -1] |= 0x80
    assert not padding_is_zero(packed, bits, 5)
