"""Products from codes block by block: the codec's weights, on one thread or several, in either dtype of products."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from submission.model.codecs import Affine
from submission.runtime.packed import PackedLinear, PackedTensor
from submission.runtime.products import block_products, int8_kernels, kernels
from submission.runtime.products.block_products import KERNEL_ROWS, scratch
from submission.runtime.products.processor import product_dtype
from submission.runtime.products.unpack_kernels import unpack_tiles
from tests.support.launching import HANG_SECONDS

DTYPES = pytest.mark.parametrize("dtype", list(KERNEL_ROWS[4]), ids=str)


@pytest.fixture(scope="module", autouse=True)
def blocks():
    """Let torch's kernel, which has blocks for more rows, be the only one of processors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kernels.KERNELS, "cpu", (kernels.CPUKernel(),))
        yield


@pytest.fixture
def threads():
    """Set the number of torch's threads, and set it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def compute_in(dtype: torch.dtype, monkeypatch) -> None:
    """Let products be in a dtype whatever the processor is fastest with."""
    for module in (block_products, kernels, int8_kernels):
        monkeypatch.setattr(module, "product_dtype", lambda: dtype)


def packed_weight(bits: int, group_size: int, shape: tuple[int, int], seed: int = 0) -> PackedTensor:
    """A packed weight with random codes and ordinary scales and zero-points."""
    generator = torch.Generator().manual_seed(seed)
    weight = PackedTensor(Affine(bits=bits, group_size=group_size), shape, dtype=torch.bfloat16, device="cpu")
    for name, part in weight.parts.items():
        values = torch.rand(part.shape, generator=generator)
        part.copy_(values * 256 if name == "codes" else values * (0.02 if name == "scale" else 1 << bits))
    return weight


def test_unpacked_weights_are_those_of_the_codec_to_the_bit():
    @settings(deadline=None, max_examples=40)
    @given(st.sampled_from([2, 3, 4]), st.sampled_from([32, 64, 128]), st.integers(1, 3), st.integers(1, 3))
    def check(bits, group_size, tiles, groups):
        weight = packed_weight(bits, group_size, (64 * tiles, group_size * groups), seed=bits)
        expected = weight.dequantize(torch.bfloat16)
        assert weight.prepack()
        prepacked = weight.prepacked
        codes = prepacked.codes.view(tiles, -1, 32).numpy()
        scale, zero = (part.numpy() for part in prepacked.codec.scale_and_zero(prepacked.others))
        for kind, stored in ((torch.float32, torch.int32), (torch.bfloat16, torch.int16)):
            found = torch.zeros(expected.t().shape, dtype=kind)
            unpack_tiles(codes, prepacked.shift, scale, zero, group_size, found.view(stored).numpy())
            assert torch.equal(found.t(), expected.to(kind))

    check()


def test_halves_are_rounded_to_even():
    """(code - zero) * scale with a scale of 1 and zeros that put every weight halfway between two bfloat16 numbers."""
    codes = np.arange(32, dtype=np.uint8).reshape(1, 1, 32).repeat(32, axis=1)  # low: 0 to 15 and again, high: 0 and 1
    zero = -(256 + np.arange(64, dtype=np.float32)[:, None])  # from 256 on, every other whole number is a bfloat16
    weight = torch.zeros(32, 64, dtype=torch.bfloat16)
    unpack_tiles(codes, 0, np.ones((64, 1), np.float32), zero, 32, weight.view(torch.int16).numpy())
    low, high = torch.arange(32) % 16, torch.arange(32) // 16
    exact = torch.cat([low, high]).float() + 256 + torch.arange(64)
    assert torch.equal(weight, exact.to(torch.bfloat16).expand(32, 64))


@DTYPES
@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("count", [1, 2])
def test_more_rows_are_multiplied_with_the_weights_of_the_codec(bits, count, dtype, monkeypatch, threads):
    compute_in(dtype, monkeypatch)
    monkeypatch.setattr(block_products, "BLOCK_BYTES", 1)  # one tile is a block
    threads(count)
    layer = PackedLinear(packed_weight(bits, 64, (64 * 5, 256)), None)
    inputs = torch.randn(3, 70, 256).to(torch.bfloat16)
    expected = F.linear(inputs.double(), layer.weight.dequantize(torch.bfloat16).double())
    assert layer.weight.prepack()
    monkeypatch.setattr(layer.weight.prepacked.kernel.__class__, "multiply", None)  # is not what computes them
    with torch.inference_mode():
        outputs = layer(inputs)
    assert outputs.dtype == torch.bfloat16 and outputs.shape == expected.shape
    assert float((outputs.double() - expected).norm() / expected.norm()) < 0.003  # what rounding the outputs costs
    assert torch.get_num_threads() == count


def test_threads_share_the_blocks_and_keep_to_one_each(threads):
    threads(3)
    seen: dict[int, int] = {}
    meet = threading.Barrier(3, timeout=HANG_SECONDS)
    weight = torch.randn(6, 8)

    def decode(rows: slice) -> torch.Tensor:
        if rows.start % 2 == 0:
            meet.wait()  # passes only when three threads work at once
        seen[threading.get_ident()] = torch.get_num_threads()
        return scratch((1, 8), product_dtype()).copy_(weight[rows])

    inputs = torch.randn(4, 8)
    found = block_products.block_products(inputs, [slice(i, i + 1) for i in range(6)], decode)
    expected = F.linear(inputs.to(product_dtype()), weight.to(product_dtype()))
    assert torch.allclose(found.float(), expected.float(), atol=1e-2)
    assert len(seen) == 3 and set(seen.values()) == {1} and torch.get_num_threads() == 3


def test_an_error_in_a_thread_reaches_the_caller(threads):
    threads(2)

    def decode(rows: slice) -> torch.Tensor:
        raise ValueError(f"row {rows.start}")

    with pytest.raises(ValueError, match="row 0"):
        block_products.block_products(torch.randn(2, 4), [slice(0, 1), slice(1, 2)], decode)


def test_a_new_number_of_threads_is_followed(threads):
    layer = PackedLinear(packed_weight(4, 64, (256, 256)), None)
    layer.weight.prepack()
    inputs = torch.randn(64, 256).to(torch.bfloat16)
    found = []
    for count in (1, 2, 3, 1):
        threads(count)
        found.append(layer(inputs))
        assert torch.get_num_threads() == count
    assert all(torch.equal(outputs, found[0]) for outputs in found)


def test_without_the_compiler_long_inputs_are_computed_all_the_same(monkeypatch):
    monkeypatch.setitem(
        __import__("sys").modules, "submission.runtime.products.unpack_kernels", None
    )  # its import fails
    layer = PackedLinear(packed_weight(4, 64, (64, 128)), None)
    inputs = torch.randn(250, 128).to(torch.bfloat16)
    expected = layer(inputs)
    assert layer.weight.prepack() and not layer.weight.prepacked.supports(inputs)
    assert torch.allclose(layer(inputs).float(), expected.float(), atol=1e-3, rtol=1e-2)
    assert layer.weight.prepacked.supports(inputs[:20])
