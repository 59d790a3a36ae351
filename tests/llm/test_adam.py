"""Adam as a function against torch's AdamW in float64."""

import pytest
import torch

from llm.adam import AdamSettings, adam, no_moments


@pytest.mark.parametrize(
    "settings", [AdamSettings(1e-2), AdamSettings(3e-3, 0.8, 0.999, 1e-8, 0.3), AdamSettings(1e-2, 0.0, 0.0, 1e-3)]
)
def test_ten_steps_are_those_of_torchs_adamw(settings):
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 4, generator=draw)
    exact = weight.double().requires_grad_()
    betas = (settings.beta1, settings.beta2)
    optimizer = torch.optim.AdamW([exact], settings.learning_rate, betas, settings.eps, settings.weight_decay)
    moments = no_moments(weight)
    for step in range(1, 11):
        gradient = torch.randn(5, 4, generator=draw)
        exact.grad = gradient.double()
        optimizer.step()
        old = weight.clone()
        new, moments_after = adam(weight, gradient, moments, step, settings)
        assert torch.equal(weight, old)  # nothing in place
        weight, moments = new, moments_after
        assert (weight - exact).abs().max() < 1e-6


def test_a_weight_that_never_had_a_gradient_stays():
    for eps in (1e-12, 0.0):
        settings = AdamSettings(1e-2, eps=eps)
        weight = torch.ones(3)
        moments = no_moments(weight)
        for step in (1, 2):
            weight, moments = adam(weight, torch.zeros(3), moments, step, settings)
        assert torch.equal(weight, torch.ones(3))


def test_steps_far_below_what_the_base_resolves_add_up():
    weight, moments = torch.ones(1), no_moments(torch.ones(1))
    for step in range(1, 101):
        weight, moments = adam(weight, torch.ones(1), moments, step, AdamSettings(1e-3))
    assert abs(weight.item() - 0.9) < 0.01
