from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from submission.runtime.packed import PackedEmbedding, PackedLinear, PackedTensor, prepack_linears
from submission.runtime.products import byte_tiles, int8_kernels
from submission.runtime.products.block_products import KERNEL_ROWS, kernel_rows
from submission.runtime.products.byte_tiles import PrepackedTiles, tiles_pass_proof
from submission.runtime.products.int8_kernels import passes_proof
from tests.runtime.entropy.support import encoded, random_weight
from tests.support.packed_weights import relative_error

SHAPE = (320, 160)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[False, True], autouse=True, ids=["codes", "tiles"])
def tiles(request):
    """Let products be those of tiles, or not."""
    if request.param and not tiles_pass_proof():
        pytest.skip("the processor has no dot products of bfloat16 pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_tiles, "tiles_pass_proof", lambda: request.param)
        yield request.param


@pytest.fixture(scope="module", params=[False, True], ids=["free", "trellis"])
def parts(request):
    return encoded(random_weight(*SHAPE), trellis=request.param)


def layer_of(parts, dtype: torch.dtype = torch.bfloat16, bias: bool = False) -> PackedLinear:
    codec, found = parts
    weight = PackedTensor(codec, SHAPE, dtype=dtype, device="cpu")
    for name, part in weight.parts.items():
        part.copy_(found[name])
    return PackedLinear(weight, nn.Parameter(torch.randn(SHAPE[0]).to(dtype), requires_grad=False) if bias else None)


def test_the_kernel_of_this_processor_passes_its_proof():
    assert passes_proof(CPU)


@pytest.mark.parametrize("count", [1, 7, *KERNEL_ROWS[8].values(), 60])
@pytest.mark.parametrize("proved", [True, False])
def test_products_are_those_of_the_dequantized_weight(parts, count, proved, monkeypatch):
    monkeypatch.setattr(int8_kernels, "passes_proof", lambda device: proved)
    layer = layer_of(parts, bias=True)
    inputs = torch.randn(2, count, SHAPE[1], generator=torch.Generator().manual_seed(count)).to(torch.bfloat16)[:1]
    expected = F.linear(inputs.double(), layer.weight.dequantize(torch.float32).double(), layer.bias.double())
    plain = relative_error(layer(inputs), expected)
    assert layer.weight.prepack() and layer.weight.prepacked.supports(inputs)
    outputs = layer(inputs)
    assert outputs.shape == expected.shape and outputs.dtype == torch.bfloat16
    assert relative_error(outputs, expected) < max(1.5 * plain, 0.006)


def test_a_code_beyond_127_is_multiplied_whole(parts):
    layer = layer_of(parts)
    weight = parts[0].scaled_codes(parts[1], SHAPE)
    assert layer.weight.prepack()
    assert weight.positions.numel() >= 3
    row, column = divmod(int(weight.positions[0]), SHAPE[1])
    inputs = torch.zeros(1, SHAPE[1], dtype=torch.bfloat16)
    inputs[0, column] = 1
    expected = layer.weight.dequantize(torch.float32)[row, column]
    capped = 127 / abs(127 + abs(int(weight.remainders[0])))
    assert abs(float(layer(inputs)[0, row]) / float(expected) - 1) < 0.01 < 1 - capped


def test_a_row_does_not_depend_on_the_rows_beside_it(parts, tiles):
    layer = layer_of(parts)
    layer.weight.prepack()
    assert isinstance(layer.weight.prepacked, PrepackedTiles) == tiles
    inputs = torch.randn(1100 if tiles else kernel_rows(8), SHAPE[1]).to(torch.bfloat16)
    assert torch.equal(torch.cat([layer(row) for row in inputs.split(1)]), layer(inputs))


def test_prepacking_changes_neither_the_weight_nor_what_is_saved(parts):
    layer = layer_of(parts)
    before, whole = copy.deepcopy(layer.state_dict()), layer.weight.dequantize(torch.bfloat16)
    rows = torch.tensor([5, 319, 5])
    assert layer.weight.prepack() and layer.weight.prepack()
    assert torch.equal(layer.weight.dequantize(torch.bfloat16), whole)
    assert torch.equal(layer.weight.dequantize(torch.bfloat16, slice(3, 77)), whole[3:77])
    assert torch.equal(layer.weight.dequantize(torch.bfloat16, rows), whole[rows])
    after = layer.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.float(),
        lambda layer: layer.to("cpu"),
        lambda layer: layer.load_state_dict(copy.deepcopy(layer.state_dict())),
    ],
    ids=["cast", "move", "load"],
)
def test_casting_moving_and_loading_undo_prepacking(parts, change):
    layer = layer_of(parts)
    before = copy.deepcopy(layer.state_dict())
    assert prepack_linears(nn.Sequential(layer)) == 1
    change(layer)
    assert layer.weight.prepacked is None
    assert all(torch.equal(layer.state_dict()[name], before[name]) for name in before)


def test_in_float32_a_stream_is_decoded_once_and_products_are_exact(parts):
    layer = layer_of(parts, torch.float32)
    inputs = torch.randn(3, SHAPE[1])
    expected = layer(inputs)
    assert prepack_linears(nn.Sequential(layer)) == 0 and layer.weight.prepacked is not None
    assert torch.equal(layer(inputs), expected)


def test_gradients_flow_through_the_dequantized_weight(parts):
    layer = layer_of(parts)
    layer.weight.prepack()
    inputs = torch.randn(1, SHAPE[1], dtype=torch.bfloat16, requires_grad=True)
    layer(inputs).sum().backward()
    assert inputs.grad is not None and inputs.grad.abs().sum() > 0


def test_an_embedding_looks_up_rows_of_decoded_codes(parts, monkeypatch):
    codec, found = parts
    weight = layer_of(parts, torch.float32).weight
    ids = torch.tensor([[3, 319, 3], [0, 1, 2]])
    expected = codec.decode(found, SHAPE, torch.float32)[ids]
    embedding = PackedEmbedding(weight)
    assert torch.equal(embedding(ids), expected)
    assert prepack_linears(nn.Sequential(embedding)) == 0
    monkeypatch.setattr(type(codec), "decode", None)
    assert torch.equal(embedding(ids), expected)


def test_a_kernel_that_fails_its_proof_is_not_used(monkeypatch):
    monkeypatch.setattr(int8_kernels, "_kernel", lambda codes, inputs: inputs @ codes.t().to(inputs.dtype) * 1.01)
    assert not passes_proof.__wrapped__(CPU)
    assert not passes_proof.__wrapped__(torch.device("meta"))


def test_a_weight_of_columns_that_the_kernel_does_not_take_is_converted(monkeypatch):
    codec, found = encoded(random_weight(64, 70))
    weight = PackedTensor(codec, (64, 70), dtype=torch.bfloat16, device="cpu")
    for name, part in weight.parts.items():
        part.copy_(found[name])
    layer, inputs = PackedLinear(weight, None), torch.randn(5, 70).to(torch.bfloat16)
    expected = inputs.double() @ weight.dequantize(torch.float32).double().T
    assert weight.prepack()
    monkeypatch.setattr(int8_kernels, "_kernel", None)
    assert relative_error(layer(inputs), expected) < 0.006


@pytest.mark.gpu
def test_a_gpu_computes_from_codes(parts):
    layer = layer_of(parts).cuda()
    inputs = torch.randn(9, SHAPE[1], device="cuda").to(torch.bfloat16)
    whole = layer.weight.dequantize(torch.float32)
    assert torch.equal(whole.cpu(), parts[0].decode(parts[1], SHAPE, torch.float32))
    assert layer.weight.prepack()
    assert relative_error(layer(inputs), inputs.double() @ whole.double().T) < 0.01
