from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from submission.model.codecs import Affine, Codec
from submission.model.codecs import affine as affine_module
from submission.model.codecs.affine import CODE_BITS
from submission.model.codecs.bitstream import unpack_codes
from submission.runtime import packed
from submission.runtime.packed import PackedEmbedding, PackedLinear, PackedTensor
from submission.runtime.quantizer import packed_layer, plain_layer


def affine(bits: int, group_size: int) -> Codec:
    return Affine(bits=bits, group_size=group_size)


def filled(codec: Codec, shape: tuple[int, int], dtype: torch.dtype = torch.float32, seed: int = 0) -> PackedTensor:
    """A packed weight with random parts."""
    generator = torch.Generator().manual_seed(seed)
    weight = PackedTensor(codec, shape, dtype=dtype, device="cpu")
    weight.codes.copy_(torch.randint(0, 256, weight.codes.shape, generator=generator))
    weight.scale.copy_(torch.rand(weight.scale.shape, generator=generator) * 0.1 + 0.01)
    weight.zero.copy_(torch.rand(weight.zero.shape, generator=generator) * 2**codec.bits)
    return weight


def slow_dequantize(weight: PackedTensor) -> torch.Tensor:
    """The definition, one number at a time."""
    columns, size = weight.shape[1], weight.codec.group_size
    codes = torch.tensor(unpack_codes(weight.codes, weight.codec.bits, columns).tolist(), dtype=torch.float32)
    group = torch.arange(columns) // size
    return (codes - weight.zero.float()[:, group]) * weight.scale.float()[:, group]


@given(
    bits=st.sampled_from(CODE_BITS),
    group_size=st.sampled_from([1, 8, 48, 64, 128]),
    rows=st.integers(1, 6),
    columns=st.integers(1, 200),
)
def test_dequantizing_follows_its_definition(bits, group_size, rows, columns):
    weight = filled(affine(bits, group_size), (rows, columns), seed=columns)
    assert torch.equal(weight.dequantize(torch.float32), slow_dequantize(weight))


def test_blocks_of_rows_make_no_difference(monkeypatch):
    weight = filled(affine(3, 64), (37, 128))
    whole = weight.dequantize(torch.bfloat16)
    monkeypatch.setattr(affine_module, "CACHE_ELEMENTS", 5 * 128)
    assert torch.equal(weight.dequantize(torch.bfloat16), whole)


def test_bfloat16_weights_are_the_float32_weights_rounded_once():
    weight = filled(affine(4, 64), (16, 128))
    assert torch.equal(weight.dequantize(torch.bfloat16), weight.dequantize(torch.float32).to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_linear_computes_what_the_plain_one_computes(dtype, bias):
    weight = filled(affine(3, 64), (40, 128), dtype)
    layer = PackedLinear(weight, nn.Parameter(torch.randn(40, dtype=dtype)) if bias else None)
    inputs = torch.randn(2, 3, 128, dtype=dtype)
    assert torch.equal(layer(inputs), F.linear(inputs, weight.dequantize(dtype), layer.bias))


def test_a_large_linear_is_computed_in_row_blocks(monkeypatch):
    layer = PackedLinear(filled(affine(4, 64), (50, 64)), nn.Parameter(torch.randn(50)))
    inputs = torch.randn(7, 64)
    whole = layer(inputs)
    monkeypatch.setattr(packed, "LINEAR_ELEMENTS", 16 * 64)
    assert torch.allclose(layer(inputs), whole, atol=1e-6)


def test_a_packed_embedding_gives_the_rows_that_are_looked_up():
    weight = filled(affine(2, 64), (30, 128), torch.bfloat16)
    ids = torch.tensor([[3, 29, 3], [0, 1, 2]])
    rows = PackedEmbedding(weight)(ids)
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows, F.embedding(ids, weight.dequantize(torch.bfloat16)))


@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.double(), lambda m: m.half().float()])
def test_casting_a_model_never_touches_the_stored_parts(cast):
    weight = filled(affine(4, 64), (8, 64))
    before = {name: part.clone() for name, part in weight.state_dict().items()}
    model = cast(nn.Sequential(PackedEmbedding(weight), nn.Linear(64, 2)))
    for name, part in weight.state_dict().items():
        assert part.dtype == before[name].dtype and torch.equal(part, before[name])
    assert weight.dtype == model[1].weight.dtype
    assert model(torch.tensor([1])).dtype == weight.dtype


def test_packed_layers_come_from_plain_ones_and_go_back():
    linear = packed_layer(nn.Linear(64, 8), affine(4, 64), torch.float32)
    embedding = packed_layer(nn.Embedding(8, 64), affine(2, 64), torch.float32)
    assert isinstance(linear, PackedLinear) and isinstance(embedding, PackedEmbedding)
    for part in (*linear.weight.parts.values(), *embedding.weight.parts.values()):
        part.fill_(3)
    inputs, ids = torch.randn(3, 64), torch.tensor([5, 1])
    assert torch.equal(plain_layer(linear, torch.float32)(inputs), linear(inputs))
    assert torch.equal(plain_layer(embedding, torch.float32)(ids), embedding(ids))


@pytest.mark.gpu
@pytest.mark.parametrize("bits", CODE_BITS)
def test_a_gpu_dequantizes_to_the_same_bits(bits):
    weight = filled(affine(bits, 64), (300, 200))
    expected = weight.dequantize(torch.bfloat16)
    assert torch.equal(weight.cuda().dequantize(torch.bfloat16).cpu(), expected)
