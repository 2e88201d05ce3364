"""Divergence from distributions of which the most probable tokens are kept."""

from __future__ import annotations

import torch

from quantize.recovery.teacher import divergences


def kept(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    values, ids = logits.log_softmax(dim=1).topk(count, dim=1)
    return ids, values


def logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(6, 40, generator=torch.Generator().manual_seed(seed))


def test_with_every_token_kept_it_is_the_divergence():
    teacher, student = logits(0), logits(1)
    expected = torch.nn.functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True
    ).sum(1)
    torch.testing.assert_close(divergences(student, *kept(teacher, 40)), expected)


def test_what_is_not_kept_is_one_outcome():
    teacher, student = logits(0), logits(1)
    ids, log_probabilities = kept(teacher, 7)
    p, q = teacher.softmax(1).double(), student.softmax(1).double()
    in_both = [torch.cat([m.gather(1, ids), 1 - m.gather(1, ids).sum(1, keepdim=True)], dim=1) for m in (p, q)]
    expected = (in_both[0] * (in_both[0] / in_both[1]).log()).sum(1)
    torch.testing.assert_close(divergences(student, ids, log_probabilities), expected.float(), rtol=1e-4, atol=1e-6)


def test_of_the_same_logits_it_is_zero_and_its_gradient_too():
    student = logits(0).requires_grad_()
    found = divergences(student, *kept(logits(0), 7))
    found.sum().backward()
    assert float(found.detach().abs().max()) < 1e-5 and float(student.grad.abs().max()) < 1e-6
