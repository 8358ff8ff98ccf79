"""The denoiser's shape, size and broadcasting."""

from __future__ import annotations

import torch

from agents.policies.denoiser import Denoiser


def test_size_of_the_paper_has_its_number_of_parameters() -> None:
    network = Denoiser(2048, 28, denoising_steps=20, width=512, blocks=1)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 1.61


def test_one_call_for_all_steps_equals_a_call_for_each() -> None:
    torch.manual_seed(0)
    network = Denoiser(6, 4, denoising_steps=5, width=16, blocks=2)
    feature, x, steps = torch.randn(3, 6), torch.randn(3, 5, 4), torch.arange(4, -1, -1)
    together = network(network.condition(feature)[:, None], x, steps)
    for i, k in enumerate(steps):
        assert torch.allclose(together[:, i], network(network.condition(feature), x[:, i], k), atol=1e-6)


def test_every_input_matters_and_every_weight_learns() -> None:
    torch.manual_seed(0)
    network = Denoiser(6, 4, denoising_steps=2, width=16, blocks=1)
    feature, x = torch.randn(1, 6), torch.randn(1, 4)
    out = network(network.condition(feature), x, torch.tensor([0, 1]))
    assert not torch.allclose(out[0], out[1])
    assert not torch.allclose(out, network(network.condition(feature + 1), x, torch.tensor([0, 1])))
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
