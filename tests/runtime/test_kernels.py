from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from quantize.packing.pack import pack_checkpoint
from submission.miniature.model import SMALL
from submission.model.codecs import Affine
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.loading import load_model
from submission.runtime.packed import PackedLinear, prepack_linears
from submission.runtime.products import kernels
from submission.runtime.products.block_products import kernel_rows
from submission.runtime.products.kernels import GROUP_SIZES, KERNELS, CPUKernel, DotKernel, proved_layout
from submission.runtime.products.processor import multiplies_pairs
from submission.store.digests import tree_digest
from tests.support.packed_weights import filled, relative_error, same, state
from tests.support.tiny_qwen import build_checkpoint

CPU = torch.device("cpu")
MOST = CPUKernel.most_rows


@pytest.fixture(scope="module", params=[CPUKernel, DotKernel], autouse=True, ids=lambda kernel: kernel.__name__)
def kernel(request):
    """Let one of the kernels be the only one of processors."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param is DotKernel and not multiplies_pairs():
            pytest.skip("the processor has no dot products of bfloat16 pairs")
        patch.setitem(KERNELS, "cpu", (request.param(),))
        yield KERNELS["cpu"][0]


def test_the_kernel_of_this_processor_is_verified(kernel):
    assert proved_layout(kernel, CPU) is not None


cases = {
    "bits": st.sampled_from([2, 3, 4]),
    "group_size": st.sampled_from(GROUP_SIZES),
    "meta_bits": st.sampled_from([None, 8]),
    "tiles": st.integers(1, 3),
    "groups": st.integers(1, 4),
}


@settings(deadline=None, max_examples=60)
@given(**cases, data=st.data())
def test_an_arranged_weight_is_the_weight(bits, group_size, meta_bits, tiles, groups, data):
    shape = (64 * tiles, group_size * groups)
    weight = filled(Affine(bits=bits, group_size=group_size, meta_bits=meta_bits), shape, seed=groups)
    before = state(weight)
    whole = {dtype: weight.dequantize(dtype) for dtype in (torch.float32, torch.bfloat16)}
    assert weight.prepack() and weight.prepacked is not None
    assert same(state(weight), before)
    begin = data.draw(st.integers(0, shape[0] - 1))
    rows = slice(begin, data.draw(st.integers(begin + 1, shape[0])))
    for dtype, expected in whole.items():
        assert torch.equal(weight.dequantize(dtype), expected)
        assert torch.equal(weight.dequantize(dtype, rows), expected[rows])


@settings(deadline=None, max_examples=60)
@given(**cases, count=st.integers(1, MOST))
def test_a_kernel_computes_what_the_dequantized_weight_computes(bits, group_size, meta_bits, tiles, groups, count):
    shape = (64 * tiles, group_size * groups)
    weight = filled(Affine(bits=bits, group_size=group_size, meta_bits=meta_bits), shape, seed=count)
    generator = torch.Generator().manual_seed(count)
    inputs = torch.randn(count, shape[1], generator=generator).to(torch.bfloat16)
    bias = nn.Parameter(torch.randn(shape[0], generator=generator).to(torch.bfloat16), requires_grad=False)
    expected = F.linear(inputs.double(), weight.dequantize(torch.float32).double(), bias.double())
    layer = PackedLinear(weight, bias)
    plain = relative_error(layer(inputs), expected)
    assert weight.prepack() and weight.prepacked.supports(inputs)
    # Rounding to bfloat16 is 2 ** -9 at most; scale and offset are rounded once each beside the output, or not at all.
    assert relative_error(layer(inputs), expected) < (
        max(2 * plain, 0.008) if weight.prepacked.kernel.most_rows else 0.004
    )


def test_a_wide_weight_is_arranged_tile_by_tile():
    weight = filled(Affine(bits=3, group_size=128), (128, 11008))
    before, whole = state(weight), weight.dequantize(torch.bfloat16)
    assert weight.prepack() and same(state(weight), before)
    assert torch.equal(weight.dequantize(torch.bfloat16), whole)


def test_a_row_does_not_depend_on_the_rows_beside_it(kernel):
    layer = PackedLinear(filled(Affine(bits=4, group_size=64), (128, 256)), None)
    layer.weight.prepack()
    inputs = torch.randn(kernel_rows(4) if kernel.most_rows else 1100, 256).to(torch.bfloat16)
    assert torch.equal(torch.cat([layer(row) for row in inputs.split(1)]), layer(inputs))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_what_the_kernel_does_not_take_is_computed_from_the_dequantized_weight(bits, kernel, monkeypatch):
    monkeypatch.setattr(kernels, "_unpacks", lambda layout: False)
    layer = PackedLinear(filled(Affine(bits=bits, group_size=64), (128, 256)), None)
    long = torch.randn(MOST + 1, 256)
    expected = {dtype: layer(long.to(dtype)) for dtype in (torch.bfloat16, torch.float32)}
    layer.weight.prepack()
    assert layer.weight.prepacked.supports(long.to(torch.bfloat16)) == (kernel.most_rows is None)
    for dtype in (torch.float32,) if kernel.most_rows is None else expected:
        assert torch.allclose(layer(long.to(dtype)).float(), expected[dtype].float(), atol=1e-4, rtol=1e-2)
    assert not layer.weight.prepacked.supports(long[:1])
    learned = torch.randn(1, 256, dtype=torch.bfloat16, requires_grad=True)
    layer(learned).sum().backward()
    assert learned.grad is not None and learned.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("codec", "shape"),
    [
        (Affine(bits=5, group_size=64), (40, 128)),
        (Affine(bits=8, group_size=512), (64, 512)),
        (Affine(bits=4, group_size=48), (64, 96)),
        (Affine(bits=4, group_size=64), (64, 96)),  # a shorter last group
        (Affine(bits=4, group_size=64), (40, 128)),  # rows that fill no tile
        (Affine(bits=4, group_size=512), (64, 512)),
    ],
    ids=str,
)
def test_a_weight_that_no_kernel_takes_stays_as_it_is(codec, shape):
    layer = PackedLinear(filled(codec, shape), None)
    before, inputs = state(layer), torch.randn(2, shape[1]).to(torch.bfloat16)
    outputs = layer(inputs)
    assert prepack_linears(layer) == 0 and layer.weight.prepacked is None
    assert same(state(layer), before) and torch.equal(layer(inputs), outputs)


def test_codes_of_4_bits_are_prepacked_in_place():
    weight = filled(Affine(bits=4, group_size=64), (128, 256))
    place = weight.codes.data_ptr()
    weight.prepack()
    assert weight.prepacked.codes.data_ptr() == place and weight.codes is None


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.float(),
        lambda layer: layer.to("cpu"),
        lambda layer: layer.load_state_dict(copy.deepcopy(layer.state_dict())),
    ],
    ids=["cast", "move", "load"],
)
def test_casting_moving_and_loading_undo_prepacking(change):
    layer = PackedLinear(filled(Affine(bits=3, group_size=64), (128, 256)), None)
    before = state(layer)
    assert prepack_linears(layer) == 1
    change(layer)
    assert layer.weight.prepacked is None and same(state(layer), before)
    again = layer.to(torch.bfloat16)
    assert prepack_linears(again) == 1 and prepack_linears(again) == 1


def test_a_model_that_computes_in_float32_is_left_alone():
    layer = PackedLinear(filled(Affine(bits=4, group_size=64), (128, 256)), None).float()
    assert prepack_linears(layer) == 0


def test_a_copy_of_a_prepacked_layer_has_its_own_codes():
    layer = PackedLinear(filled(Affine(bits=4, group_size=64), (128, 256)), None)
    prepack_linears(layer)
    inputs = torch.randn(3, 256).to(torch.bfloat16)
    other, outputs = copy.deepcopy(layer), layer(inputs)
    other.weight.prepacked.codes.zero_()
    assert torch.equal(layer(inputs), outputs) and not torch.equal(other(inputs), outputs)


# --- layouts are learned ---


class Invented:
    """A kernel as another machine may have it: tiles of 8 x 128 codes, in an order that nobody would guess."""

    name = "invented"
    tiles = ((64, 1), (8, 128))
    most_rows = 4

    def __init__(self) -> None:
        self.order = torch.randperm(8 * 128, generator=torch.Generator().manual_seed(1))

    def prepack(self, codes: torch.Tensor) -> torch.Tensor:
        rows, columns = codes.shape
        tiles = codes.view(rows // 8, 8, columns // 128, 128).transpose(1, 2).reshape(-1, 1024)[:, self.order]
        return (tiles[:, ::2] << 4 | tiles[:, 1::2]).view(torch.int32).view(rows // 8, columns // 128, 32, 4)

    def prepare(self, weight, scale, zero):
        return torch.stack([scale, (weight.middle - zero) * scale])

    def multiply(self, inputs, weight):
        codes = weight.codes
        tiles = codes.reshape(-1, 512)
        nibbles = torch.stack([tiles >> 4, tiles & 15], dim=2).view(-1, 1024)[:, self.order.argsort()]
        rows, columns = codes.shape[0], codes.shape[1] * 2
        codes = nibbles.view(rows // 8, columns // 128, 8, 128).transpose(1, 2).reshape(rows, columns).float()
        scale, offset = weight.prepared.repeat_interleave(weight.codec.group_size, dim=2)
        return F.linear(inputs.float(), (codes - 8) * scale + offset).to(inputs.dtype)


class Wrong(Invented):
    def prepare(self, weight, scale, zero):
        return super().prepare(weight, scale, zero).flip(1)


class Backwards(Invented):
    """Its tiles lie the other way round, which a single one cannot show."""

    def multiply(self, inputs, weight):
        other = copy.copy(weight)
        other.codes = weight.codes.view(-1, 8, weight.codes.shape[1]).flip(0).reshape(weight.codes.shape)
        return super().multiply(inputs, other)


class Missing(Invented):
    def prepack(self, codes):
        return torch.ops.aten._weight_int4pack_mm(codes, codes, 32, codes)  # not on this device, or not with this


def test_the_order_of_a_kernel_is_determined(monkeypatch):
    monkeypatch.setitem(KERNELS, "cpu", (Invented(),))
    for bits in (2, 3, 4):
        weight = filled(Affine(bits=bits, group_size=128), (24, 256))
        before, whole = state(weight), weight.dequantize(torch.float32)
        assert weight.prepack()
        assert (weight.prepacked.layout.rows, weight.prepacked.layout.columns) == (8, 128)
        assert same(state(weight), before)
        assert torch.equal(weight.dequantize(torch.float32), whole)
        inputs = torch.randn(4, 256).to(torch.bfloat16)
        assert relative_error(weight.prepacked.multiply(inputs), inputs.double() @ whole.double().T) < 0.01


@pytest.mark.parametrize("wrong", [Wrong, Backwards, Missing])
def test_a_kernel_that_fails_its_proof_is_not_used(wrong, monkeypatch):
    monkeypatch.setitem(KERNELS, "cpu", (wrong(),))
    weight = filled(Affine(bits=4, group_size=128), (24, 256))
    before = state(weight)
    assert not weight.prepack() and same(state(weight), before)


# --- whole models ---


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A small model, 4 bits but for MLPs at 3, groups of 32."""
    folder = tmp_path_factory.mktemp("model")
    base = build_checkpoint(folder / "base", ["the cat sleeps", "die Katze schläft"], SMALL, 1)
    rules = {
        "*": Affine(bits=4, group_size=32),
        "embedding": Affine(bits=2, group_size=32),
        "mlp": Affine(bits=3, group_size=32),
    }
    (folder / "packed").mkdir()
    pack_checkpoint(base, folder / "packed", resolve_codecs(read_config(base), rules), solver="hqq")
    return folder / "packed"


def test_a_prepacked_model_computes_nearly_the_same_and_its_file_is_untouched(packed, tmp_path):
    digest = tree_digest(packed)
    model, _ = load_model(packed, "bfloat16")
    ids = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = model(input_ids=ids).logits.float()
        prepacked = prepack_linears(model)
        fast = model(input_ids=ids).logits.float()
    linears = [module for module in model.modules() if isinstance(module, PackedLinear)]
    assert prepacked == len(linears) > 10
    assert (fast - plain).norm() < 0.05 * plain.norm() and not torch.equal(fast, plain)
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()
    assert tree_digest(packed) == digest


def test_a_prepacked_model_can_be_turned_into_a_plain_one(packed):
    model, _ = load_model(packed, "bfloat16")
    expected = load_model(packed, "bfloat16")[0].dequantize().state_dict()
    prepack_linears(model)
    plain = model.dequantize().state_dict()
    assert plain.keys() == expected.keys()
    assert all(torch.equal(plain[name], expected[name]) for name in plain)


@pytest.mark.gpu
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", [64, 128])
def test_a_gpu_computes_from_codes(bits, group_size):
    weight = filled(Affine(bits=bits, group_size=group_size), (256, 1024)).cuda()
    before, whole = state(weight), weight.dequantize(torch.float32)
    assert weight.prepack(), "the kernel of this GPU failed its proof"
    assert same(state(weight), before) and torch.equal(weight.dequantize(torch.float32), whole)
    inputs = torch.randn(kernels.CUDAKernel.most_rows, 1024, device="cuda").to(torch.bfloat16)
    assert relative_error(weight.prepacked.multiply(inputs), inputs.double() @ whole.double().T) < 0.01
