"""Numbers that are tuned: what is stored, what the forward pass sees, and what gradients are."""

from __future__ import annotations

import pytest
import torch

from quantize.recovery.tuned_numbers import TunedNumbers

START = torch.tensor([[0.5, -0.25, 3.0], [1e-3, 60000.0, 0.0]])


@pytest.mark.parametrize("kind", ["scale", "offset"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_without_a_change_they_are_those_that_they_start_from(kind, dtype):
    numbers = TunedNumbers(START.to(dtype), kind)
    assert torch.equal(numbers.stored(), START.to(dtype)) and torch.equal(numbers(), START.to(dtype).float())


def test_the_forward_pass_sees_what_is_stored():
    numbers = TunedNumbers(torch.rand(50).half(), "scale")
    numbers.change.data.normal_(0, 0.01, generator=torch.Generator().manual_seed(0))
    assert numbers.stored().dtype == torch.float16
    torch.testing.assert_close(numbers(), numbers.stored().float(), rtol=1e-7, atol=0)
    assert not torch.equal(numbers.stored(), numbers.start)


def test_a_factor_changes_in_proportion_to_itself_and_keeps_its_sign():
    numbers = TunedNumbers(torch.tensor([0.5, -0.25]).half(), "scale")
    numbers.change.data.fill_(1.0)
    torch.testing.assert_close(numbers.stored().float(), torch.e * torch.tensor([0.5, -0.25]), rtol=1e-3, atol=0)
    numbers().sum().backward()
    torch.testing.assert_close(numbers.change.grad, torch.e * torch.tensor([0.5, -0.25]))


def test_a_summand_changes_by_the_root_mean_square_of_all():
    numbers = TunedNumbers(torch.tensor([3.0, 0.0, 4.0, 0.0]).half(), "offset")
    numbers.change.data.fill_(0.2)
    torch.testing.assert_close(numbers.stored(), torch.tensor([3.5, 0.5, 4.5, 0.5]).half())


def test_a_number_that_its_dtype_cannot_hold_stays_as_it_was():
    numbers = TunedNumbers(torch.tensor([6e-8, 60000.0, 1.0]).half(), "scale")
    numbers.change.data.copy_(torch.tensor([-5.0, 5.0, 1.0]))
    assert numbers.stored().tolist() == [numbers.start[0], 60000.0, pytest.approx(2.718, rel=1e-3)]
