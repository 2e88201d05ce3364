"""Dot products of bfloat16 pairs: exact where the numbers are, alike for any number of rows and threads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from submission.model.codecs.codec import ScaledCodes
from submission.runtime.products import processor
from submission.runtime.products.byte_tiles import PrepackedTiles, prepack_codes, tiles_pass_proof
from submission.runtime.products.int8_kernels import PrepackedCodes
from submission.runtime.products.processor import multiplies_pairs

needs_pairs = pytest.mark.skipif(not multiplies_pairs(), reason="the processor has no dot products of bfloat16 pairs")
COUNTS = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 511, 512, 513])


@pytest.fixture
def threads():
    """Set the number of torch's threads, and set it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def whole_numbers(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Activations whose products with codes are exact in float32."""
    return torch.randint(-8, 9, shape, generator=generator).to(torch.bfloat16)


def rounded(product: torch.Tensor) -> torch.Tensor:
    """A product in float64, rounded as outputs are: to float32 and to bfloat16."""
    return product.float().to(torch.bfloat16)


@needs_pairs
@settings(deadline=None, max_examples=60)
@given(
    count=COUNTS,
    tiles=st.integers(1, 3),
    group_size=st.sampled_from([32, 64, 128, 256]),
    groups=st.integers(1, 3),
    seed=st.integers(0, 1 << 16),
)
def test_products_of_whole_numbers_with_4_bit_codes_are_exact(count, tiles, group_size, groups, seed):
    from submission.runtime.products.dot_kernels import Tiles

    generator = torch.Generator().manual_seed(seed)
    rows, columns = 64 * tiles, group_size * groups
    codes = torch.randint(0, 16, (rows, columns), generator=generator)
    scale = 2.0 ** torch.randint(-3, 4, (groups, rows), generator=generator)
    zero, middle = torch.randint(0, 16, (groups, rows), generator=generator), seed % 9
    low, high = codes.view(tiles, 64, columns).chunk(2, dim=1)
    packed = (high << 4 | low).transpose(1, 2).to(torch.uint8).contiguous()
    weight = Tiles(codes=packed, scale=scale.half(), zero=zero.half(), group_size=group_size, middle=middle)
    of_weight = ((codes - 8 + middle).view(rows, groups, -1) - zero.t().unsqueeze(2)) * scale.t().unsqueeze(2)
    inputs = whole_numbers((count, columns), generator)
    expected = rounded(inputs.double() @ of_weight.view(rows, columns).double().t())
    assert torch.equal(weight.multiply(inputs), expected)


def scaled_codes(rows: int, columns: int, generator: torch.Generator) -> ScaledCodes:
    """A decoded weight with scales that are powers of two and some codes beyond 8 bits."""
    codes = torch.randint(-127, 128, (rows, columns), dtype=torch.int8, generator=generator)
    positions = torch.randint(0, codes.numel(), (rows // 8,), generator=generator).unique()
    codes.view(-1)[positions] = 127
    row_scale, column_scale = (2.0 ** torch.randint(-3, 4, (n,), generator=generator) for n in codes.shape)
    remainders = torch.randint(1, 400, positions.shape, generator=generator)
    return ScaledCodes(
        codes=codes,
        row_scale=row_scale.half(),
        column_scale=column_scale.half(),
        positions=positions,
        remainders=remainders,
    )


@needs_pairs
@settings(deadline=None, max_examples=60)
@given(
    count=COUNTS,
    tiles=st.integers(1, 3),
    columns=st.sampled_from([32, 96, 128, 160, 384]),
    seed=st.integers(0, 1 << 16),
)
def test_products_of_whole_numbers_with_8_bit_codes_are_exact(count, tiles, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = scaled_codes(64 * tiles, columns, generator)
    inputs = whole_numbers((count, columns), generator)
    prepacked = prepack_codes(weight, {})
    assert isinstance(prepacked, PrepackedTiles)
    whole = weight.dequantize(torch.float64, slice(None))
    assert torch.equal(prepacked.multiply(inputs), rounded(inputs.double() @ whole.t()))
    assert torch.equal(prepacked.dequantize(torch.float32, slice(5, -3)).double(), whole[5:-3])


@needs_pairs
def test_outputs_depend_neither_on_threads_nor_on_the_rows_beside_them(threads):
    generator = torch.Generator().manual_seed(0)
    prepacked = prepack_codes(scaled_codes(192, 224, generator), {})
    inputs = torch.randn(40, 224, generator=generator).to(torch.bfloat16)
    threads(1)
    expected = torch.cat([prepacked.multiply(row) for row in inputs.split(1)])
    for count in (1, 2, 3, 5):  # more than there are tiles, too
        threads(count)
        assert torch.equal(prepacked.multiply(inputs), expected)


@needs_pairs
def test_a_number_that_is_none_stays_in_its_row():
    generator = torch.Generator().manual_seed(0)
    prepacked = prepack_codes(scaled_codes(64, 64, generator), {})
    inputs = torch.randn(3, 64, generator=generator).to(torch.bfloat16)
    expected = prepacked.multiply(inputs)
    inputs[1, 5] = float("nan")
    found = prepacked.multiply(inputs)
    assert found[1].isnan().all() and torch.equal(found[[0, 2]], expected[[0, 2]])


def test_weights_that_are_no_whole_tiles_are_multiplied_otherwise():
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((72, 64), (64, 72)):
        assert isinstance(prepack_codes(scaled_codes(rows, columns, generator), {}), PrepackedCodes)


@pytest.mark.parametrize(
    ("features", "expected"),
    [({}, False), ({"avx512_bf16": True, "amx_bf16": True}, False), ({"avx512_bf16": True}, multiplies_pairs())],
    ids=["none", "matrices", "pairs"],
)
def test_the_processor_decides(features, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert processor.multiplies_pairs.__wrapped__() == expected


@needs_pairs
def test_a_processor_that_a_person_chose_for_compiled_functions_is_not_overruled(monkeypatch):
    monkeypatch.setattr("numba.config.CPU_NAME", "generic")
    assert not multiplies_pairs.__wrapped__()


@needs_pairs
def test_products_that_are_wrong_or_cannot_run_are_not_used(monkeypatch):
    right = PrepackedTiles.multiply
    with monkeypatch.context() as patch:
        patch.setattr(PrepackedTiles, "multiply", lambda self, inputs: right(self, inputs) * 1.01)
        assert not tiles_pass_proof.__wrapped__()

    def missing(*_: object) -> None:
        raise AttributeError("undefined symbol: GOMP_parallel")

    with monkeypatch.context() as patch:
        patch.setattr("submission.runtime.products.dot_kernels.run_in_team", missing)
        assert not tiles_pass_proof.__wrapped__()
    assert tiles_pass_proof.__wrapped__()
