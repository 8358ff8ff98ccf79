"""The Gaussian policy: its density is torch's, its mean is what demonstrations say, and a gripper is thresholded."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from agents.bc import clone as clone_head
from agents.policies.gaussian import LOG_STD_RANGE, GaussianPolicy
from worldaction.errors import UserError

FEATURE, ACTION, CHUNK = 3, 2, 4


def policy(seed: int = 0) -> GaussianPolicy:
    torch.manual_seed(seed)
    made = GaussianPolicy(FEATURE, ACTION, chunk=CHUNK, width=16)
    torch.nn.init.uniform_(made.log_std, -2.5, -0.5)
    return made


def test_log_density_is_that_of_a_normal_distribution_of_the_whole_chunk() -> None:
    feature, chunk = torch.randn(5, FEATURE), torch.rand(5, CHUNK, ACTION) * 2 - 1
    made = policy().double()
    mean, std = made(feature.double())
    expected = Normal(mean, std).log_prob(chunk.double().flatten(1)).sum(-1)
    torch.testing.assert_close(made.log_density(feature.double(), chunk.double()), expected)


def test_deviation_stays_in_its_range_however_sure_the_demonstrations_are() -> None:
    made = policy()
    with torch.no_grad():
        made.log_std.fill_(-30.0)
    assert made(torch.zeros(1, FEATURE))[1].log().tolist() == pytest.approx([LOG_STD_RANGE[0]] * 8)


def test_samples_have_the_mean_and_the_deviation_of_the_distribution() -> None:
    made = policy()
    feature = torch.zeros(20_000, FEATURE)
    noise = torch.randn(20_000, *made.noise_shape, generator=torch.Generator().manual_seed(0))
    mean, std = made(feature[:1])
    # of the first number of an action, which is not thresholded, where clipping does not matter
    drawn = made.sample(feature, noise)[:, 0, 0]
    assert drawn.mean().item() == pytest.approx(mean[0, 0].item(), abs=0.02)
    assert drawn.std().item() == pytest.approx(std[0].item(), abs=0.03)
    assert made.sample(feature[:1], noise[:1], deterministic=True).equal(made.to_actions(mean))


def test_actions_are_clipped_and_the_gripper_is_open_or_closed() -> None:
    actions = policy().to_actions(torch.tensor([[3.0, 0.1, -3.0, -0.1, 0.2, 0.0, 0.0, 5.0]]))
    assert actions[0, :, 0].tolist() == pytest.approx([1.0, -1.0, 0.2, 0.0])
    assert actions[0, :, 1].tolist() == [1.0, -1.0, -1.0, 1.0]


def clone(features: torch.Tensor, chunks: torch.Tensor, seed: int = 0) -> GaussianPolicy:
    recipe = {"steps": 400, "batch": 128, "lr": 3e-3, "weight_decay": 0.0, "ema": 0.99}
    return clone_head(GaussianPolicy, features, chunks, options={"width": 32}, seed=seed, **recipe)


def test_cloning_finds_the_mean_and_the_deviation_that_made_the_demonstrations() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(1, 3000, FEATURE, generator=generator) * 2 - 1
    spread = 0.2 * torch.randn(3000, CHUNK, ACTION, generator=generator)
    chunks = 0.6 * features[0, :, :1, None].expand(-1, CHUNK, ACTION) + spread
    made = clone(features, chunks)
    mean, std = made(features[0])
    expected = 0.6 * features[0, :, :1].expand(-1, CHUNK * ACTION)
    assert (mean - expected).abs().mean() < 0.05
    assert std.tolist() == pytest.approx([0.2] * CHUNK * ACTION, abs=0.03)
    assert not any(p.requires_grad for p in made.parameters())


def test_cloning_is_a_function_of_its_seed_and_leaves_the_global_generator_alone() -> None:
    features, chunks = torch.zeros(2, 8, FEATURE), torch.zeros(8, CHUNK, ACTION)
    torch.manual_seed(5)
    untouched = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = clone(features, chunks), clone(features, chunks), clone(features, chunks, seed=1)
    assert torch.rand(3).equal(untouched)
    assert one.mean.weight.equal(same.mean.weight)
    assert not one.mean.weight.equal(other.mean.weight)


def test_features_of_other_frames_than_the_chunks_are_refused() -> None:
    with pytest.raises(UserError, match="do not go with chunks"):
        clone(torch.zeros(1, 7, FEATURE), torch.zeros(8, CHUNK, ACTION))


def test_divergence_is_the_kl_of_normal_distributions_per_number() -> None:
    one, cloned, feature = policy(0), policy(1), torch.randn(6, FEATURE)
    stored = {"x": torch.randn(6, CHUNK * ACTION)}
    found = one.divergence(cloned, feature, stored, one.log_prob(feature, stored, min_std=0.1), min_std=0.1)
    (mean, std), (before, spread) = one(feature), cloned(feature)
    expected = kl_divergence(Normal(mean, std.clamp(min=0.1)), Normal(before, spread.clamp(min=0.1))).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_exploring_is_never_narrower_than_it_is_told_to_be() -> None:
    made = policy()
    feature, noise = torch.zeros(5000, FEATURE), torch.randn(5000, *made.noise_shape)
    mean, _ = made(feature[:1])
    wide = made.decide(feature, noise, min_std=0.9).stored["x"]
    assert wide.std(0).min() > 0.85
    assert (wide.mean(0) - mean[0]).abs().max() < 0.08
    assert made.decide(feature, noise, min_std=0.0).actions.equal(made.sample(feature, noise))
