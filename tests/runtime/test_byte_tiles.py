"""Grouped codes of 5 to 8 bits as bytes in tiles: the codec's weight, its products, and its parts again."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from submission.model.codecs import Affine
from submission.runtime.packed import PackedLinear, prepack_linears
from submission.runtime.products import kernels
from submission.runtime.products.byte_tiles import PrepackedBytes, tiles_pass_proof
from tests.support.packed_weights import filled, relative_error, same, state

needs_pairs = pytest.mark.skipif(not tiles_pass_proof(), reason="the processor has no dot products of bfloat16 pairs")


@needs_pairs
@settings(deadline=None, max_examples=60)
@given(
    bits=st.sampled_from([5, 6, 8]),
    group_size=st.sampled_from([32, 64, 128, 256]),
    meta_bits=st.sampled_from([None, 8]),
    tiles=st.integers(1, 3),
    groups=st.integers(1, 3),
    count=st.integers(1, 40),
    data=st.data(),
)
def test_products_and_weight_are_those_of_the_codec(bits, group_size, meta_bits, tiles, groups, count, data):
    shape = (64 * tiles, group_size * groups)
    weight = filled(Affine(bits=bits, group_size=group_size, meta_bits=meta_bits), shape, seed=count)
    before, whole = state(weight), weight.dequantize(torch.float32)
    assert weight.prepack() and isinstance(weight.prepacked, PrepackedBytes)
    assert same(state(weight), before) and torch.equal(weight.dequantize(torch.float32), whole)
    begin = data.draw(st.integers(0, shape[0] - 1))
    rows = slice(begin, data.draw(st.integers(begin + 1, shape[0])))
    assert torch.equal(weight.dequantize(torch.float32, rows), whole[rows])
    inputs = torch.randn(2, count, shape[1], generator=torch.Generator().manual_seed(count)).to(torch.bfloat16)
    outputs = PackedLinear(weight, None)(inputs)
    assert outputs.shape == (2, count, shape[0]) and outputs.dtype == torch.bfloat16
    assert relative_error(outputs, inputs.double() @ whole.double().t()) < 0.004  # what rounding the outputs costs


@needs_pairs
def test_a_wide_weight_is_prepacked_in_steps():
    weight = filled(Affine(bits=6, group_size=128), (2112, 256))
    before, whole = state(weight), weight.dequantize(torch.bfloat16)
    assert weight.prepack() and same(state(weight), before)
    assert torch.equal(weight.dequantize(torch.bfloat16), whole)


@needs_pairs
def test_casts_undo_it_and_copies_are_their_own():
    layer = PackedLinear(filled(Affine(bits=8, group_size=64), (128, 256)), None)
    before, inputs = state(layer), torch.randn(3, 256).to(torch.bfloat16)
    assert prepack_linears(layer) == 1 and layer.weight.codes is None
    other, outputs = copy.deepcopy(layer), layer(inputs)
    other.weight.prepacked._tiles.codes.zero_()
    assert torch.equal(layer(inputs), outputs) and not torch.equal(other(inputs), outputs)
    layer.float()
    assert layer.weight.prepacked is None and same(state(layer), before)


def test_without_dot_products_codes_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(kernels, "tiles_pass_proof", lambda: False)
    layer = PackedLinear(filled(Affine(bits=8, group_size=64), (64, 128)), None)
    assert prepack_linears(layer) == 0 and layer.weight.prepacked is None
