"""The learning rate of recovery: how far numbers are moved follows how much there is to recover."""

from __future__ import annotations

import pytest
import torch

from quantize.recovery import tuning

STEPS = 40


def tuned(error: float, learning_rate: float = 0.05, noise: float = 0.0) -> tuple[torch.Tensor, list[float]]:
    """Return the change that is found, and the losses: quadratic, as a divergence is near 0, the optimum about `error`.

    noise: of the gradients, relative to the error.
    """
    generator = torch.Generator().manual_seed(0)
    curvature = torch.rand(30, generator=generator) + 0.1
    optimum = error * torch.randn(30, generator=generator)
    change = torch.nn.Parameter(torch.zeros(30))

    def backward(batch: list[int]) -> float:
        loss = (curvature * (change - optimum).square()).sum() / 2
        loss.backward()
        change.grad += noise * error * torch.randn(30, generator=generator)
        return float(loss.detach())

    losses = tuning.optimize([change], [[step] for step in range(STEPS)], backward, learning_rate)
    return change.detach(), losses


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_of_errors_a_tenth_as_large_the_change_is_a_tenth(noise):
    large, large_losses = tuned(0.3, noise=noise)
    small, small_losses = tuned(0.03, noise=noise)
    torch.testing.assert_close(10 * small, large, rtol=1e-3, atol=1e-4)
    assert large_losses[-1] < 0.5 * large_losses[0]
    assert small_losses[-1] == pytest.approx(large_losses[-1] / 100, rel=1e-2)


def test_a_model_that_is_the_original_stays_so():
    change, losses = tuned(0.0)
    assert losses == [0.0] * STEPS and not change.any()


def test_the_rate_goes_with_the_losses_of_the_steps_in_which_it_rises():
    rates, losses = [], [0.04, 0.08, *[9.0] * (STEPS - 2)]
    parameter = torch.nn.Parameter(torch.zeros(1))

    def backward(batch: list[int]) -> float:
        parameter.grad = torch.ones(1)  # every step of Adam is as long as the rate
        rates.append(-float(parameter.detach()))
        return losses[batch[0]]

    tuning.optimize([parameter], [[step] for step in range(STEPS)], backward, 0.1)
    lengths = [after - before for before, after in zip(rates, rates[1:], strict=False)]
    assert tuning.warmup_steps(STEPS) == 2
    assert lengths[0] == pytest.approx(0.1 * 0.04**0.5 / 2, rel=1e-3)
    assert lengths[1] == pytest.approx(0.1 * 0.06**0.5, rel=1e-3)
    assert max(lengths) == pytest.approx(lengths[1], rel=1e-3)
