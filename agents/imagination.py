"""Dreams at the level of decisions: the policy chooses a chunk of actions, the frozen world model imagines the result.

Success is looked at after every action, as the simulator does, not once per chunk. A dream that has succeeded is over
and is no longer computed. Random numbers are functions of (seed, row, step), where a row is the global name of a dream,
so that results do not depend on how many dreams run side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from agents.kernel_weights import Operands, operands
from agents.policies.diffusion import Chain, DiffusionPolicy, TunedPolicy
from worldaction.errors import UserError
from worldaction.kernels import REFERENCE, choose, ops, typical
from worldaction.kernels.cpu_matmul import fast_float32
from worldaction.kernels.dream.reference import Dreamed
from worldaction.random import Stream, normal, uniform
from worldaction.world_model.model import WorldModel
from worldaction.world_model.rssm import Latent, one_hot


class DreamModel(Protocol):
    """What a dream asks of a world model."""

    def feature(self, latent: Latent) -> Tensor:
        """[B, F]."""
        ...

    def prior(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """One imagined frame; [B, A] and [B, S]."""
        ...


class Success(Protocol):
    """What a dream asks of a success classifier."""

    def probability(self, feature: Tensor) -> Tensor:
        """[B, F] -> [B]."""
        ...


class Dreamer(Protocol):
    """What a dream asks of a policy."""

    chunk: int

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Normal numbers of one decision."""
        ...

    def chain(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Chain:
        """One decision for every row."""
        ...


@dataclass(frozen=True)
class Dream:
    """What happened in a batch of dreams. Rows of decisions that were not taken are zeros.

    Attributes:
        feature: [B, H, F] what each decision was taken on.
        states: [B, H, N' + 1, K * A] its denoising chain, see `Chain`.
        means: [B, H, N', K * A] under the policy that dreamed.
        base_means: [B, H, N', K * A] under the cloned policy.
        alive: [B, H] bool, the decision was taken.
        success: [B, H] bool, the task was done during the decision, which ended the dream.
        success_step: [B] int64, actions until the task was done; 0 if it never was.
        last_feature: [B, F] where the dream was cut off; zeros if it succeeded.
    """

    feature: Tensor
    states: Tensor
    means: Tensor
    base_means: Tensor
    alive: Tensor
    success: Tensor
    success_step: Tensor
    last_feature: Tensor

    def summary(self) -> dict[str, float]:
        """`imagined/success`, the share of dreams that succeed, and `imagined/time`, the mean actions they take to.

        The time is left out if no dream succeeds.
        """
        done = self.success_step > 0
        result = {"imagined/success": done.float().mean().item()}
        if bool(done.any()):
            result["imagined/time"] = self.success_step[done].float().mean().item()
        return result


@fast_float32()
@torch.no_grad()
def dream(
    model: DreamModel,
    policy: Dreamer,
    success: Success,
    starts: Latent,
    *,
    decisions: int,
    threshold: float,
    seed: int,
    rows: Tensor,
    min_std: float = 0.0,
) -> Dream:
    """Imagine episodes.

    Where `worldaction.kernels` has an implementation of whole dreams for the device, that one imagines them; it has
    the same law, and the same numbers up to rounding.

    Args:
        model: the frozen world model.
        policy: a `DiffusionPolicy` or `TunedPolicy`.
        success: the success classifier.
        starts: [B] where the dreams begin.
        decisions: decisions H after which a dream is cut off.
        threshold: probability from which a state counts as success.
        seed: of all random numbers.
        rows: [B] int64, global names of the dreams.
        min_std: smallest standard deviation of a denoising step: above 0 to explore, 0 as in the simulator.
    """
    if len(rows) != len(starts.belief):
        raise UserError(f"{len(rows)} rows for {len(starts.belief)} starts of dreams; give one row per start")
    if (taken := _operands(model, policy, success, starts, decisions=decisions, min_std=min_std)) is not None:
        assert isinstance(model, WorldModel)
        assert isinstance(policy, DiffusionPolicy | TunedPolicy)
        options: dict[str, Any] = {"decisions": decisions, "threshold": threshold, "seed": seed, "chunk": policy.chunk}
        options |= {"binary": policy.config["binary"], "unimix": model.config.unimix}
        dreamed = ops.dream(*taken, *starts, rows, **options)
        return _told(dreamed, policy, len(taken.success.rows) // starts.code.shape[-1])
    book = Book(len(rows), decisions, rows.device)
    living, latent, feature = torch.arange(len(rows), device=rows.device), starts, model.feature(starts)
    for decision in range(decisions):
        names = rows[living]
        noise = normal(seed, Stream.POLICY, names, decision, policy.noise_shape[0] * policy.noise_shape[1])
        chain = policy.chain(feature, noise.view(-1, *policy.noise_shape), min_std=min_std)
        # actions until success, 0 without
        done_at = torch.zeros_like(names)
        for step in range(decision * policy.chunk, (decision + 1) * policy.chunk):
            draws = uniform(seed, Stream.PRIOR, names, step, latent.code.shape[-1])
            latent = model.prior(latent, chain.actions[:, step % policy.chunk], draws)
            after = model.feature(latent)
            first = (success.probability(after) >= threshold) & (done_at == 0)
            done_at = done_at.masked_fill(first, step + 1)
        book.write(living, decision, feature, chain, done_at)
        going = (done_at == 0).nonzero().squeeze(-1)
        living, latent, feature = living[going], _take(latent, going), after[going]
        if not len(living):
            break
    return book.close(living, feature)


# As one operation ----------------------------------------------------------------------------------------------------


def _operands(
    model: DreamModel, policy: Dreamer, success: Success, starts: Latent, *, decisions: int, min_std: float
) -> Operands | None:
    """The networks for the operation, if they are of its make and it has a faster implementation than this loop."""
    # products in float32: PPO holds the means against its own
    if choose("dream", typical(starts.belief.device)).name == REFERENCE:
        return None
    found = operands(model, policy, success, min_std=min_std)
    if found is None:
        return None
    request = ops.dream_request(*found, starts.code, horizon=decisions * policy.chunk, dtype=torch.float32)
    return None if choose("dream", request).name == REFERENCE else found


def _told(dreamed: Dreamed, policy: DiffusionPolicy | TunedPolicy, classes: int) -> Dream:
    """Dreams that all went on to the end, as if each had been over with its success."""
    done_at = dreamed.done_at.long()
    # [B, H + 1], before each decision and after the last
    alive = torch.cat([torch.ones_like(done_at[:, :1]), (done_at == 0).long().cumprod(1)], 1).bool()
    feature = torch.cat([dreamed.beliefs, one_hot(dreamed.codes, classes)], -1)
    feature = feature.masked_fill(~alive.unsqueeze(-1), 0.0)
    trained = policy.trained_steps if isinstance(policy, TunedPolicy) else 0
    over, count = ~alive[:, :-1, None, None], dreamed.means.shape[2]
    states = dreamed.states[:, :, count - trained :].masked_fill(over, 0.0)
    means = dreamed.means[:, :, count - trained :].masked_fill(over, 0.0)
    base_means = means
    if isinstance(policy, TunedPolicy):
        steps = torch.arange(trained - 1, -1, -1, device=states.device)
        condition = policy.base.condition(feature[:, :-1]).unsqueeze(2)
        base_means = policy.base.mean(condition, states[:, :, :-1], steps).masked_fill(over, 0.0)
    return Dream(
        feature=feature[:, :-1],
        states=states,
        means=means,
        base_means=base_means,
        alive=alive[:, :-1],
        success=(done_at > 0) & alive[:, :-1],
        success_step=(done_at * alive[:, :-1]).amax(1),
        last_feature=feature[:, -1],
    )


# Step by step ---------------------------------------------------------------------------------------------------------


def _take(latent: Latent, rows: Tensor) -> Latent:
    return Latent(latent.belief[rows], latent.code[rows])


class Book:
    """Collects decisions of fewer and fewer dreams into tensors that have room for all of them."""

    def __init__(self, batch: int, decisions: int, device: torch.device) -> None:
        self.shape = (batch, decisions)
        self.alive = torch.zeros(self.shape, dtype=torch.bool, device=device)
        self.success = torch.zeros_like(self.alive)
        self.success_step = torch.zeros(batch, dtype=torch.int64, device=device)
        self.rows: dict[str, Tensor] = {}

    def write(self, living: Tensor, decision: int, feature: Tensor, chain: Chain, done_at: Tensor) -> None:
        self.alive[living, decision] = True
        self.success[living, decision] = done_at > 0
        self.success_step[living] = done_at
        values = {"feature": feature, "states": chain.states, "means": chain.means, "base_means": chain.base_means}
        for name, value in values.items():
            if name not in self.rows:
                self.rows[name] = value.new_zeros(*self.shape, *value.shape[1:])
            self.rows[name][living, decision] = value

    def close(self, living: Tensor, feature: Tensor) -> Dream:
        last = feature.new_zeros(self.shape[0], feature.shape[-1])
        last[living] = feature
        return Dream(
            alive=self.alive, success=self.success, success_step=self.success_step, last_feature=last, **self.rows
        )
