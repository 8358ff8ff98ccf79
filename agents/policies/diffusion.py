"""The diffusion policy (Chi et al. 2023, arXiv 2303.04137): schedule, sampling, log-probabilities of its chain.

Denoising step k runs from N - 1, almost pure noise, down to 0, which yields the action. Every sampler takes its noise
as an argument, so that it is a function.

Schedule: Nichol and Dhariwal 2021 (arXiv 2102.09672). Sampling: DDPM (Ho et al. 2020, arXiv 2006.11239) and DDIM (Song
et al. 2020, arXiv 2010.02502). The chain as a decision process: DPPO (Ren et al. 2024, arXiv 2409.00588).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from agents.policies.base import Decision, ImprovedPolicy, PolicyHead, Score, copies, normal_log_density
from agents.policies.denoiser import Denoiser
from worldaction.config import Count, Layers, Times
from worldaction.errors import UserError, unknown

NOISE_CLIP = 3.0
LOG_PROB_RANGE = (-5.0, 2.0)

Sampler = Literal["ddpm", "ddim"]
Predictor = Callable[[Tensor, int], Tensor]


class Schedule(nn.Module):
    """How much of the action is left at each denoising step, and the Gaussian that undoes one step.

    Args:
        beta: [N] variance of the noise that step k adds, in (0, 1).

    Attributes:
        beta: [N].
        alpha_bar: [N] share of the variance of x_k that is still the clean action.
        alpha_bar_prev: [N] the same one step closer to the action, 1 for k = 0.
        sigma: [N] standard deviation of q(x_{k-1} | x_k, x_0), 0 for k = 0.
        from_x0, from_x: [N] weights of x_0 and x_k in the mean of that posterior.
    """

    beta: Tensor
    alpha_bar: Tensor
    alpha_bar_prev: Tensor
    sigma: Tensor
    from_x0: Tensor
    from_x: Tensor

    def __init__(self, beta: Tensor) -> None:
        super().__init__()
        exact = beta.double()
        alpha_bar = (1.0 - exact).cumprod(0)
        alpha_bar_prev = torch.cat([torch.ones_like(alpha_bar[:1]), alpha_bar[:-1]])
        tables = {
            "beta": exact,
            "alpha_bar": alpha_bar,
            "alpha_bar_prev": alpha_bar_prev,
            "sigma": (exact * (1.0 - alpha_bar_prev) / (1.0 - alpha_bar)).sqrt(),
            "from_x0": exact * alpha_bar_prev.sqrt() / (1.0 - alpha_bar),
            "from_x": (1.0 - alpha_bar_prev) * (1.0 - exact).sqrt() / (1.0 - alpha_bar),
        }
        for name, table in tables.items():
            # not persistent: a function of the number of steps, so not part of the weights
            self.register_buffer(name, table.to(beta.dtype), persistent=False)

    def __len__(self) -> int:
        return len(self.beta)

    def add_noise(self, x0: Tensor, noise: Tensor, k: Tensor) -> Tensor:
        """A sample of q(x_k | x_0); [..., X], [..., X], [...] -> [..., X]."""
        share = self.alpha_bar[k].unsqueeze(-1)
        return share.sqrt() * x0 + (1.0 - share).sqrt() * noise

    def predict_x0(self, x: Tensor, noise: Tensor, k: Tensor) -> Tensor:
        """The clean action that a noise estimate implies, clipped to [-1, 1]; shapes as in `add_noise`."""
        share = self.alpha_bar[k].unsqueeze(-1)
        return ((x - (1.0 - share).sqrt() * noise) / share.sqrt()).clamp(-1.0, 1.0)

    def posterior_mean(self, x0: Tensor, x: Tensor, k: Tensor) -> Tensor:
        """Mean of q(x_{k-1} | x_k, x_0); its standard deviation is `sigma[k]`; shapes as in `add_noise`."""
        return self.from_x0[k].unsqueeze(-1) * x0 + self.from_x[k].unsqueeze(-1) * x

    def ddim_step(self, x0: Tensor, x: Tensor, k: int, previous: int, *, eta: float) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of one DDIM step (equation 12 of the paper).

        Args:
            x0: [..., X] predicted clean action.
            x: [..., X] sample at step k.
            k: the step to undo.
            previous: the step to land on, any below k; -1 is the action.
            eta: 0 is deterministic; 1 with previous = k - 1 is DDPM.

        Returns:
            Mean [..., X] and standard deviation [].
        """
        share = self.alpha_bar[k]
        target = self.alpha_bar[previous] if previous >= 0 else torch.ones_like(share)
        noise = (x - share.sqrt() * x0) / (1.0 - share).sqrt()
        variance = eta**2 * (1.0 - target) / (1.0 - share) * (1.0 - share / target)
        mean = target.sqrt() * x0 + (1.0 - target - variance).clamp(min=0.0).sqrt() * noise
        return mean, variance.sqrt()


def cosine_schedule(steps: int, *, dtype: torch.dtype = torch.float32) -> Schedule:
    """The cosine schedule of Nichol and Dhariwal with s = 0.008 and beta at most 0.999.

    Args:
        steps: number of denoising steps N.
        dtype: type of the tables.
    """
    if steps < 1:
        raise UserError(f"{steps} denoising steps; give at least 1")
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    share = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1.0 - share[1:] / share[:-1]).clamp(max=0.999)
    return Schedule(beta.to(dtype))


def gaussian_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density of a denoising step as in DPPO (arXiv 2409.00588): clamped per number, averaged over the chunk.

    The mean in place of the sum makes the clip range independent of chunk length.

    Args:
        x: [..., X] what was sampled.
        mean: [..., X].
        std: [...] or broadcastable to it.

    Returns:
        [...].
    """
    # with its constant, or the clamp would take the gradient from whatever lies near the mean of a narrow step
    return normal_log_density(x, mean, std.unsqueeze(-1)).clamp(*LOG_PROB_RANGE).mean(-1)


def divergence(means: Tensor, base_means: Tensor, std: Tensor) -> Tensor:
    """KL between Gaussians of equal deviation, averaged over steps and numbers of the chunk.

    Args:
        means, base_means: [..., N', X].
        std: [N'].
    """
    return ((means - base_means) / std.unsqueeze(-1)).square().mean() / 2.0


@dataclass(frozen=True)
class DiffusionOptions:
    """Options of the diffusion head."""

    denoising_steps: Times = 20
    """Denoising steps N."""
    width: Count = 512
    """Width of the denoiser."""
    blocks: Layers = 1
    """Residual blocks of the denoiser."""


class DiffusionPolicy(PolicyHead):
    """A diffusion model of the next K actions, given the world model's feature.

    Its decisions are stored as the trained end of the denoising chain, from the noisiest trained step to the action:

        states      [B, N' + 1, K * A]   chunk before the first trained step, then after each; the last is the action
        means       [B, N', K * A]       mean of each trained step under the policy that drew it
        base_means  [B, N', K * A]       mean of each trained step under the cloned policy

    A head by itself has no trained steps, N' = 0; `improvable` makes a `TunedPolicy`, which has.

    Args:
        feature_size, action_size, chunk, binary: as for `PolicyHead`.
        denoising_steps: denoising steps N.
        width: width of the denoiser.
        blocks: residual blocks of the denoiser.
    """

    name = "diffusion"
    Options = DiffusionOptions
    has_deterministic = True

    def __init__(
        self,
        feature_size: int,
        action_size: int,
        *,
        chunk: int,
        denoising_steps: int,
        width: int,
        blocks: int = 1,
        binary: Sequence[int] = (-1,),
    ) -> None:
        options = {"denoising_steps": denoising_steps, "width": width, "blocks": blocks}
        super().__init__(feature_size, action_size, chunk=chunk, binary=binary, **options)
        self.schedule = cosine_schedule(denoising_steps)
        self.denoiser = Denoiser(
            feature_size, self.chunk_size, denoising_steps=denoising_steps, width=width, blocks=blocks
        )

    @property
    def noise_shape(self) -> tuple[int, int]:
        """[N + 1, K * A]: the normal numbers that one decision takes, the initial noise first."""
        return len(self.schedule) + 1, self.chunk_size

    def condition(self, feature: Tensor) -> Tensor:
        """[..., F] -> [..., W], once per decision."""
        return self.denoiser.condition(feature)

    def epsilon(self, condition: Tensor, x: Tensor, k: Tensor) -> Tensor:
        """The predicted noise; [..., W], [..., X], [...] -> [..., X]."""
        noise: Tensor = self.denoiser(condition, x, k)
        return noise

    def predict(self, condition: Tensor, x: Tensor, k: Tensor) -> Tensor:
        """The predicted clean chunk in [-1, 1]; shapes as in `epsilon`."""
        return self.schedule.predict_x0(x, self.epsilon(condition, x, k), k)

    def mean(self, condition: Tensor, x: Tensor, k: Tensor) -> Tensor:
        """The mean of step k of the chain, where x is sampled at k; shapes as in `epsilon`."""
        return self.schedule.posterior_mean(self.predict(condition, x, k), x, k)

    def loss(self, feature: Tensor, chunk: Tensor, noise: Tensor, k: Tensor) -> Tensor:
        """Mean squared error of the predicted noise.

        Args:
            feature: [B, F].
            chunk: [B, K, A] demonstrated actions.
            noise: [B, K * A] standard normal.
            k: [B] int64 in [0, N).
        """
        x = self.schedule.add_noise(chunk.flatten(1), noise, k)
        return (self.epsilon(self.condition(feature), x, k) - noise).square().mean()

    def bc_loss(self, feature: Tensor, chunk: Tensor) -> Tensor:
        """`loss` at random denoising steps, with random noise."""
        k = torch.randint(len(self.schedule), (len(feature),), device=feature.device)
        return self.loss(feature, chunk, torch.randn(len(feature), self.chunk_size, device=feature.device), k)

    @torch.no_grad()
    def sample(
        self,
        feature: Tensor,
        noise: Tensor,
        *,
        deterministic: bool = False,
        sampler: Sampler = "ddpm",
        min_std: float = 0.0,
        steps: int | None = None,
    ) -> Tensor:
        """Draw action chunks.

        Args:
            feature: [B, F].
            noise: [B, N + 1, K * A] standard normal: the initial noise, then one for each step.
            deterministic: sample by DDIM, so that only the initial noise is random.
            sampler: "ddpm", or "ddim", which is deterministic given the initial noise.
            min_std: smallest standard deviation of a step; 0 adds no noise to the action itself.
            steps: for "ddim", how many of the N steps to take, evenly spaced; all by default.

        Returns:
            [B, K, A] actions.
        """
        condition = self.condition(feature)

        def predict(x: Tensor, k: int) -> Tensor:
            return self.predict(condition, x, _step(k, x))

        sampler = "ddim" if deterministic else sampler
        x = denoise(predict, self.schedule, noise, sampler=sampler, min_std=min_std, steps=steps)
        return self.to_actions(x)

    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """As `sample` with DDPM; nothing is trained, so of the chain only its end is stored."""
        return sample_chain(self, self, feature, noise, trained_steps=0, min_std=min_std)

    def log_prob(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Tensor:
        """See `PolicyHead.log_prob`; a column for each trained denoising step, the noisiest first."""
        states = stored["states"]
        return gaussian_log_prob(
            states[:, 1:], chain_means(self, feature, states), self.stds(states.shape[1] - 1, min_std)
        )

    def stds(self, trained_steps: int, min_std: float) -> Tensor:
        """Standard deviations [N'] of the last N' denoising steps, in the order of a chain."""
        return self.schedule.sigma[:trained_steps].flip(0).clamp(min=min_std)

    def improvable(self, *, trained_steps: int = 1) -> TunedPolicy:
        """See `PolicyHead.improvable`."""
        return TunedPolicy(*copies(self), trained_steps=trained_steps)


class TunedPolicy(ImprovedPolicy):
    """A cloned policy of which the last denoising steps are those of a fine-tuned copy.

    Args:
        base: the cloned policy, which does all steps k >= trained_steps.
        tuned: its fine-tuned copy, which does the rest.
        trained_steps: how many steps N' the copy does.
    """

    base: DiffusionPolicy
    tuned: DiffusionPolicy

    def __init__(self, base: DiffusionPolicy, tuned: DiffusionPolicy, *, trained_steps: int) -> None:
        super().__init__(base, tuned)
        if not 0 < trained_steps <= len(base.schedule):
            raise UserError(
                f"{trained_steps} trained denoising steps of {len(base.schedule)}; "
                f"give between 1 and {len(base.schedule)}"
            )
        self.trained_steps = trained_steps

    @torch.no_grad()
    def sample(
        self,
        feature: Tensor,
        noise: Tensor,
        *,
        deterministic: bool = False,
        sampler: Sampler = "ddpm",
        min_std: float = 0.0,
        steps: int | None = None,
    ) -> Tensor:
        """Draw action chunks; arguments and result as for `DiffusionPolicy.sample`."""
        early, late = self.base.condition(feature), self.tuned.condition(feature)

        def predict(x: Tensor, k: int) -> Tensor:
            policy, condition = (self.tuned, late) if k < self.trained_steps else (self.base, early)
            return policy.predict(condition, x, _step(k, x))

        sampler = "ddim" if deterministic else sampler
        x = denoise(predict, self.base.schedule, noise, sampler=sampler, min_std=min_std, steps=steps)
        return self.base.to_actions(x)

    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """As `sample` with DDPM, keeping the trained end of the chain; see `DiffusionPolicy`."""
        return sample_chain(self.base, self.tuned, feature, noise, trained_steps=self.trained_steps, min_std=min_std)

    def score(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Score:
        """See `ImprovedPolicy.score`; one pass of the network for both."""
        return self._score(stored, chain_means(self.tuned, feature, stored["states"]), min_std)

    def score_when_taken(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Score:
        """See `ImprovedPolicy.score_when_taken`; the means are stored, so no network runs."""
        return self._score(stored, stored["means"], min_std)

    def _score(self, stored: Mapping[str, Tensor], means: Tensor, min_std: float) -> Score:
        std = self.base.stds(self.trained_steps, min_std)
        log_prob = gaussian_log_prob(stored["states"][:, 1:], means, std)
        return Score(log_prob, divergence(means, stored["base_means"], std))


def chain_means(policy: DiffusionPolicy, feature: Tensor, states: Tensor) -> Tensor:
    """The means of the trained steps, with gradient, given where the chain was before each of them.

    Args:
        policy: the trained copy.
        feature: [M, F].
        states: [M, N' + 1, X].

    Returns:
        [M, N', X].
    """
    # k = N' - 1 .. 0, so that all steps of all decisions are one pass of the network
    steps = torch.arange(states.shape[1] - 2, -1, -1, device=states.device)
    return policy.mean(policy.condition(feature)[:, None], states[:, :-1], steps)


def denoise(
    predict: Predictor, schedule: Schedule, noise: Tensor, *, sampler: Sampler, min_std: float, steps: int | None
) -> Tensor:
    """Undo the denoising steps from pure noise to a chunk.

    Args:
        predict: the clean chunk that (x [B, X], k) promises.
        schedule: of N steps.
        noise: [B, N + 1, X] standard normal; what is added along the way is clipped to three deviations.
        sampler, min_std, steps: as for `DiffusionPolicy.sample`.

    Returns:
        [B, X].
    """
    etas = {"ddpm": 1.0, "ddim": 0.0}
    if sampler not in etas:
        raise unknown("sampler", sampler, etas)
    total = len(schedule)
    count = total if steps is None else steps
    if not 0 < count <= total or (sampler == "ddpm" and count != total):
        raise UserError(f"{count} steps of {sampler} with a schedule of {total}; give {total}, or fewer with ddim")
    # evenly spaced from the noisiest step to the last
    visited = [round((total - 1) * (1.0 - i / max(count - 1, 1))) for i in range(count)]
    x, added = noise[:, 0], noise[:, 1:].clamp(-NOISE_CLIP, NOISE_CLIP)
    for i, (k, previous) in enumerate(zip(visited, [*visited[1:], -1], strict=True)):
        mean, std = schedule.ddim_step(predict(x, k), x, k, previous, eta=etas[sampler])
        x = mean + std.clamp(min=min_std) * added[:, i]
    return x


@torch.no_grad()
def sample_chain(
    base: DiffusionPolicy,
    tuned: DiffusionPolicy,
    feature: Tensor,
    noise: Tensor,
    *,
    trained_steps: int,
    min_std: float,
) -> Decision:
    """Draw action chunks by DDPM and keep what learning needs of the last steps; see `DiffusionPolicy`.

    Args:
        base: does the steps k >= trained_steps.
        tuned: does the others.
        feature: [B, F].
        noise: [B, N + 1, K * A] as for `DiffusionPolicy.sample`.
        trained_steps: how many steps N' `tuned` does.
        min_std: smallest standard deviation of every step, the last one too.
    """
    early, late = base.condition(feature), tuned.condition(feature)
    std = base.schedule.sigma.clamp(min=min_std)
    x, added = noise[:, 0], noise[:, 1:].clamp(-NOISE_CLIP, NOISE_CLIP)
    states, means, base_means = [], [], []
    for i, k in enumerate(reversed(range(len(base.schedule)))):
        step = _step(k, x)
        mean = base.mean(early, x, step)
        if k < trained_steps:
            states.append(x)
            base_means.append(mean)
            mean = tuned.mean(late, x, step)
            means.append(mean)
        x = mean + std[k] * added[:, i]
    empty = x.new_zeros(len(x), 0, x.shape[-1])
    stored = {
        "states": torch.stack([*states, x], 1),
        "means": torch.stack(means, 1) if means else empty,
        "base_means": torch.stack(base_means, 1) if means else empty,
    }
    return Decision(base.to_actions(x), stored)


def _step(k: int, x: Tensor) -> Tensor:
    """The step as a tensor beside x; one number, which broadcasts over the batch."""
    return torch.full((), k, dtype=torch.int64, device=x.device)
