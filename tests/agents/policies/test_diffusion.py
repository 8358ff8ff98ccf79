"""The schedule, the samplers and the chain of the diffusion policy, held to closed forms."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from agents.policies.diffusion import (
    DiffusionPolicy,
    TunedPolicy,
    cosine_schedule,
    denoise,
    gaussian_log_prob,
    sample_chain,
)
from worldaction.errors import UserError

F, A, K, N = 6, 3, 2, 10


def make_policy(seed: int = 0) -> DiffusionPolicy:
    torch.manual_seed(seed)
    return DiffusionPolicy(F, A, chunk=K, denoising_steps=N, width=16)


def draw(batch: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, F, generator=generator), torch.randn(batch, N + 1, K * A, generator=generator)


# Schedule -------------------------------------------------------------------------------------------------------------


def test_deviations_of_twenty_steps_are_those_of_diwa() -> None:
    expected = [0, 0.076, 0.123, 0.162, 0.195, 0.226, 0.255, 0.283, 0.311, 0.339]
    assert cosine_schedule(20).sigma[:10].tolist() == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("steps", [1, 5, 20, 100])
def test_schedule_ends_in_almost_pure_noise_and_never_adds_more_than_its_limit(steps: int) -> None:
    schedule = cosine_schedule(steps, dtype=torch.float64)
    assert schedule.beta.max() == 0.999
    assert schedule.alpha_bar[-1] < 2e-3
    assert (schedule.alpha_bar.diff() < 0).all()
    assert schedule.sigma[0] == 0


def test_posterior_is_the_conditional_of_the_joint_gaussian() -> None:
    schedule = cosine_schedule(N, dtype=torch.float64)
    x0, x = torch.tensor([0.3], dtype=torch.float64), torch.tensor([-0.7], dtype=torch.float64)
    for k in range(1, N):
        keep, beta = math.sqrt(1 - schedule.beta[k]), float(schedule.beta[k])
        prior_mean, prior_var = math.sqrt(schedule.alpha_bar[k - 1]) * x0, 1 - float(schedule.alpha_bar[k - 1])
        # x_{k-1} is Gaussian, x_k = keep * x_{k-1} + noise: condition on x_k
        gain = prior_var * keep / (keep**2 * prior_var + beta)
        mean, variance = prior_mean + gain * (x - keep * prior_mean), prior_var * (1 - gain * keep)
        given = schedule.posterior_mean(x0, x, torch.tensor(k))
        assert float(given) == pytest.approx(float(mean), rel=1e-9)
        assert float(schedule.sigma[k]) == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_clean_action_comes_back_from_the_true_noise_and_is_clipped() -> None:
    schedule = cosine_schedule(N, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(N, 4, generator=generator, dtype=torch.float64) * 2 - 1
    noise, k = torch.randn(N, 4, generator=generator, dtype=torch.float64), torch.arange(N)
    assert torch.allclose(schedule.predict_x0(schedule.add_noise(x0, noise, k), noise, k), x0)
    assert schedule.predict_x0(torch.full((N, 4), 9.0), -noise.abs(), k).max() == 1


def test_ddim_with_eta_one_is_ddpm() -> None:
    schedule = cosine_schedule(N, dtype=torch.float64)
    x0, x = torch.tensor([0.2, -0.9]).double(), torch.tensor([1.5, 0.1]).double()
    for k in range(N):
        mean, std = schedule.ddim_step(x0, x, k, k - 1, eta=1.0)
        assert torch.allclose(mean, schedule.posterior_mean(x0, x, torch.tensor(k)))
        assert torch.allclose(std, schedule.sigma[k])


# Sampling -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", None), ("ddim", None), ("ddim", 25)])
def test_sampling_with_the_ideal_denoiser_draws_from_the_data(sampler: str, steps: int | None) -> None:
    schedule = cosine_schedule(50)
    mean, std = 0.3, 0.15
    noise = torch.randn(4000, 51, 1, generator=torch.Generator().manual_seed(0))

    def ideal(x: Tensor, k: int) -> Tensor:
        """E[x_0 | x_k] for Gaussian data."""
        share = schedule.alpha_bar[k]
        gain = share.sqrt() * std**2 / (share * std**2 + 1 - share)
        return mean + gain * (x - share.sqrt() * mean)

    x = denoise(ideal, schedule, noise, sampler=sampler, min_std=0.0, steps=steps)  # type: ignore[arg-type]
    assert x.mean().item() == pytest.approx(mean, abs=0.01)
    assert x.std().item() == pytest.approx(std, rel=0.2)


def test_noise_of_the_last_step_counts_only_while_exploring() -> None:
    policy, (feature, noise) = make_policy(), draw(8)
    other = noise.clone()
    other[:, -1] += 1.0
    assert torch.equal(policy.sample(feature, noise), policy.sample(feature, other))
    assert not torch.equal(policy.sample(feature, noise, min_std=0.1), policy.sample(feature, other, min_std=0.1))


def test_ddim_depends_on_the_initial_noise_alone() -> None:
    policy, (feature, noise) = make_policy(), draw(8)
    other = noise.clone()
    other[:, 1:] = 0.0
    assert torch.equal(policy.sample(feature, noise, sampler="ddim"), policy.sample(feature, other, sampler="ddim"))
    other[:, 0] += 1.0
    assert not torch.equal(policy.sample(feature, noise, sampler="ddim"), policy.sample(feature, other, sampler="ddim"))


def test_noise_along_the_way_is_clipped_at_three_deviations() -> None:
    policy, (feature, noise) = make_policy(), draw(8)
    far, further = noise.clone(), noise.clone()
    far[:, 3], further[:, 3] = 3.0, 30.0
    assert torch.equal(policy.sample(feature, far, min_std=0.1), policy.sample(feature, further, min_std=0.1))


def test_actions_lie_in_the_box_and_the_gripper_opens_or_closes() -> None:
    policy, (feature, noise) = make_policy(), draw(64)
    actions = policy.sample(feature, noise, min_std=0.5)
    assert actions.shape == (64, K, A)
    assert actions.abs().max() <= 1
    assert set(actions[..., -1].unique().tolist()) == {-1.0, 1.0}
    assert len(actions[..., 0].unique()) > 64


def test_policy_without_binary_dimensions_thresholds_nothing() -> None:
    policy = DiffusionPolicy(F, A, chunk=K, denoising_steps=N, width=16, binary=())
    x = torch.linspace(-2, 2, K * A)[None]
    assert torch.equal(policy.to_actions(x).flatten(1), x.clamp(-1, 1))


# The chain ------------------------------------------------------------------------------------------------------------


def test_chain_can_be_replayed_from_its_means_and_noise() -> None:
    policy, (feature, noise) = make_policy(), draw(8)
    chain = sample_chain(policy, make_policy(2), feature, noise, trained_steps=4, min_std=0.1)
    std = policy.schedule.sigma[:4].flip(0).clamp(min=0.1)
    replayed = chain.stored["means"] + std[:, None] * noise[:, -4:].clamp(-3, 3)
    assert torch.allclose(replayed, chain.stored["states"][:, 1:], atol=1e-6)
    assert torch.equal(policy.to_actions(chain.stored["states"][:, -1]), chain.actions)


def test_chain_of_an_untrained_copy_is_the_cloned_policys_sample() -> None:
    policy, (feature, noise) = make_policy(), draw(8)
    chain = TunedPolicy(policy, make_policy(), trained_steps=4).decide(feature, noise, min_std=0.0)
    assert torch.equal(chain.stored["means"], chain.stored["base_means"])
    assert torch.allclose(chain.actions, policy.sample(feature, noise), atol=1e-5)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_tuned_policy_uses_its_copy_for_the_last_steps_only(sampler: str) -> None:
    (base, other), (feature, noise) = (make_policy(), make_policy(2)), draw(8)
    last = TunedPolicy(base, other, trained_steps=1).sample(feature, noise, sampler=sampler)  # type: ignore[arg-type]
    every = TunedPolicy(base, other, trained_steps=N).sample(feature, noise, sampler=sampler)  # type: ignore[arg-type]
    assert torch.equal(every, other.sample(feature, noise, sampler=sampler))  # type: ignore[arg-type]
    assert not torch.equal(last, every)
    # all but the last step are the base's
    chain = sample_chain(base, other, feature, noise, trained_steps=1, min_std=0.0)
    assert torch.equal(
        chain.stored["states"][:, 0],
        sample_chain(base, base, feature, noise, trained_steps=1, min_std=0.0).stored["states"][:, 0],
    )


def test_sample_and_chain_hand_over_at_the_same_step() -> None:
    tuned, (feature, noise) = TunedPolicy(make_policy(), make_policy(2), trained_steps=4), draw(8)
    chain = tuned.decide(feature, noise, min_std=0.1)
    assert torch.allclose(tuned.sample(feature, noise, min_std=0.1), chain.actions, atol=1e-5)


def test_log_prob_is_the_mean_of_clamped_gaussian_log_densities() -> None:
    generator = torch.Generator().manual_seed(0)
    x, mean = torch.randn(2, 5, 7, generator=generator)
    std = torch.full((5,), 0.4)
    density = torch.distributions.Normal(mean, std[:, None]).log_prob(x)
    assert torch.allclose(gaussian_log_prob(x, mean, std), density.clamp(-5, 2).mean(-1))
    assert gaussian_log_prob(mean + 99, mean, std).tolist() == [-5.0] * 5
    assert gaussian_log_prob(mean, mean, std / 100).tolist() == [2.0] * 5


def test_what_lies_near_the_mean_of_the_narrowest_step_has_a_gradient() -> None:
    x, std = torch.tensor([[0.05, -0.01, 0.2]]), torch.tensor([0.1])
    mean = torch.zeros(1, 3, requires_grad=True)
    gaussian_log_prob(x, mean, std).sum().backward()
    assert torch.allclose(mean.grad, x / 0.1**2 / 3)


# The rest -------------------------------------------------------------------------------------------------------------


def test_loss_is_zero_for_a_denoiser_that_knows_the_noise() -> None:
    policy, (feature, noise) = make_policy(), draw(8)
    k = torch.arange(8)
    chunk = torch.rand(8, K, A) * 2 - 1

    def knowing(condition: Tensor, x: Tensor, k: Tensor) -> Tensor:
        share = policy.schedule.alpha_bar[k][:, None]
        return (x - share.sqrt() * chunk.flatten(1)) / (1 - share).sqrt()

    assert policy.loss(feature, chunk, noise[:, 0], k) > 0.1
    policy.epsilon = knowing  # type: ignore[method-assign]
    assert policy.loss(feature, chunk, noise[:, 0], k) < 1e-8


def test_policy_is_rebuilt_from_its_config_and_weights() -> None:
    policy, (feature, noise) = make_policy(), draw(4)
    again = DiffusionPolicy(**json.loads(json.dumps(policy.config)))
    again.load_state_dict(policy.state_dict())
    assert torch.equal(again.sample(feature, noise), policy.sample(feature, noise))
    assert not any(name.startswith("schedule") for name in policy.state_dict())


def test_wrong_choices_are_refused_with_a_remedy() -> None:
    policy, (feature, noise) = make_policy(), draw(1)
    with pytest.raises(UserError, match="did you mean 'ddim'"):
        policy.sample(feature, noise, sampler="ddin")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="4 steps of ddpm"):
        policy.sample(feature, noise, steps=4)
    with pytest.raises(UserError, match="11 trained"):
        TunedPolicy(policy, policy, trained_steps=11)
    with pytest.raises(UserError, match="0 denoising"):
        cosine_schedule(0)
