"""Codecs as functions of their scales and zero-points: the weight that `decode` returns, and its derivative."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from quantize.recovery import tuned_layers
from quantize.recovery.tuned_layers import TunedEmbedding, TunedLinear, TunedWeight
from quantize.solvers.hqq import solve_hqq
from submission.model.codecs import Affine, Codec
from submission.runtime.packed import PackedEmbedding, PackedLinear, PackedTensor
from tests.runtime.entropy.support import encoded, random_weight

KINDS = ["affine", "ragged", "meta", "entropy"]
SHAPE = (48, 160)


def stored(kind: str) -> tuple[Codec, dict[str, torch.Tensor]]:
    weight = random_weight(*SHAPE)
    if kind == "entropy":
        return encoded(weight)
    codec = Affine(bits=3, group_size=48 if kind == "ragged" else 32, meta_bits=8 if kind == "meta" else None)
    return codec, codec.encode(weight, solve_hqq)


@pytest.fixture(params=KINDS)
def packed(request) -> PackedTensor:
    codec, parts = stored(request.param)
    tensor = PackedTensor(codec, SHAPE, dtype=torch.float32, device="cpu")
    tensor.load_state_dict(parts)
    return tensor


@pytest.mark.parametrize("rows", [slice(None), slice(7, 20), torch.tensor([5, 5, 40, 0])])
def test_of_stored_numbers_the_weight_is_what_is_decoded(packed, rows):
    tunable = packed.codec.tunable(packed.parts, SHAPE)
    numbers = {name: packed.parts[name].float() for name in (*tunable.scales, *tunable.offsets)}
    assert numbers and all(packed.parts[name].dtype == torch.float16 for name in numbers)
    decoded = packed.codec.decode(packed.parts, SHAPE, torch.float32, rows)
    assert torch.equal(tunable.dequantize(numbers, rows), decoded)


def test_the_derivative_is_that_of_the_weight(packed):
    """Against differences of the decoded weight, in the direction of a random change of each part."""
    tunable = packed.codec.tunable(packed.parts, SHAPE)
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(SHAPE, generator=generator)
    for name in (*tunable.scales, *tunable.offsets):
        numbers = {n: packed.parts[n].float() for n in (*tunable.scales, *tunable.offsets)}
        leaf = numbers[name].clone().requires_grad_()
        (tunable.dequantize(numbers | {name: leaf}, slice(None)) * direction).sum().backward()
        change = numbers[name] * torch.randn(leaf.shape, generator=generator) * 1e-2
        after, before = (
            tunable.dequantize(numbers | {name: numbers[name] + sign * change}, slice(None)).double()
            for sign in (1, -1)
        )
        found = ((after - before) * direction).sum() / 2
        torch.testing.assert_close(found.float(), (leaf.grad * change).sum(), rtol=2e-3, atol=1e-6)


def test_a_tuned_linear_is_the_packed_one_with_gradients(packed, monkeypatch):
    monkeypatch.setattr(tuned_layers, "LINEAR_ELEMENTS", 1000)  # some rows at a time
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(2, 3, SHAPE[1], generator=generator, requires_grad=True)
    target, bias = torch.randn(2, 3, SHAPE[0], generator=generator), torch.nn.Parameter(torch.randn(SHAPE[0]))
    tuned = TunedLinear(TunedWeight(packed), bias)
    outputs = tuned(inputs)
    torch.testing.assert_close(outputs, PackedLinear(packed, bias)(inputs))
    (outputs * target).sum().backward()
    numbers, to_inputs = tuned.weight.numbers, inputs.grad.clone()
    inputs.grad = None
    leaves = {name: n.start.float().requires_grad_() for name, n in numbers.items()}
    whole = packed.codec.tunable(packed.parts, SHAPE).dequantize(leaves, slice(None))
    (F.linear(inputs, whole) * target).sum().backward()
    torch.testing.assert_close(to_inputs, inputs.grad)
    for name, leaf in leaves.items():
        unit = leaf.detach() if numbers[name].kind == "scale" else numbers[name].unit
        torch.testing.assert_close(numbers[name].change.grad, leaf.grad * unit, rtol=1e-4, atol=1e-4)


def test_a_tuned_embedding_is_the_packed_one_with_gradients(packed):
    ids = torch.tensor([[3, 3, 47], [0, 9, 1]])
    tuned = TunedEmbedding(TunedWeight(packed))
    assert torch.equal(tuned(ids), PackedEmbedding(packed)(ids))
    tuned(ids).square().sum().backward()
    assert all(numbers.change.grad.abs().sum() > 0 for numbers in tuned.weight.numbers.values())


def test_a_codec_without_tunable_numbers_stays_as_it_is(packed, monkeypatch):
    monkeypatch.setattr(type(packed.codec), "tunable", lambda self, parts, shape: None)
    tuned = TunedLinear(TunedWeight(packed), None)
    inputs = torch.randn(4, SHAPE[1], requires_grad=True)
    torch.testing.assert_close(tuned(inputs), PackedLinear(packed, None)(inputs))
    tuned(inputs).sum().backward()
    assert not list(tuned.parameters()) and inputs.grad.abs().sum() > 0
