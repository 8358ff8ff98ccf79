"""The recipe of cloning is one recipe: what `clone` learns, `imitate` learns from the same draws."""

from __future__ import annotations

import torch

from agents.bc import clone
from agents.imitate import imitate
from agents.policies.diffusion import DiffusionPolicy

FRAMES, FEATURE, ACTION, CHUNK = 50, 4, 2, 3


def test_imitate_gives_the_weights_of_clone_to_the_bit_from_the_same_batches() -> None:
    torch.manual_seed(3)
    features, chunks = torch.randn(2, FRAMES, FEATURE), torch.rand(FRAMES, CHUNK, ACTION)
    recipe = {"steps": 30, "lr": 1e-2, "weight_decay": 1e-3, "ema": 0.9}
    expected = clone(features, chunks, denoising_steps=4, width=8, blocks=1, batch=16, seed=7, **recipe)
    torch.manual_seed(7)
    policy = DiffusionPolicy(FEATURE, ACTION, chunk=CHUNK, denoising_steps=4, width=8)

    def loss() -> torch.Tensor:
        frame, sample, k = (torch.randint(high, (16,)) for high in (FRAMES, 2, 4))
        return policy.loss(features[sample, frame], chunks[frame], torch.randn(16, CHUNK * ACTION), k)

    told: list[int] = []
    found = imitate(policy, loss, report=lambda step, figures: told.append(step), **recipe)
    for name, value in expected.state_dict().items():
        assert found.state_dict()[name].equal(value), name
    assert told == list(range(1, 31))
    # the average is another module than the one that was trained
    assert not found.denoiser.out.weight.equal(policy.denoiser.out.weight)
    assert not found.training
