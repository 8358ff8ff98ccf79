"""Rollouts in imagination ("dreams"): a policy decides on a chunk of actions, the world model imagines the result.

Success is looked at after every action, as the simulator does, not once per chunk. A dream that has succeeded is over
and is no longer computed. Random numbers are functions of (seed, row, step), where a row is the global name of a dream,
so that results do not depend on how many dreams run side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from agents.kernel_weights import KernelWeights, kernel_weights
from agents.policies.base import Decision
from agents.policies.diffusion import DiffusionPolicy, TunedPolicy, chain_means
from worldaction.errors import UserError
from worldaction.kernels import REFERENCE, choose, ops, typical
from worldaction.kernels.cpu_matmul import fast_float32
from worldaction.kernels.dream.reference import Dreamed
from worldaction.random import Stream, normal, uniform
from worldaction.world_model.latent import Latent, one_hot
from worldaction.world_model.model import WorldModel


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


class Starts(Protocol):
    """Scenes at which dreams can begin."""

    def __len__(self) -> int:
        """How many there are, P."""
        ...

    def draw(self, which: Tensor, *, seed: int, rows: Tensor) -> Latent:
        """A latent [B] of each of the scenes `which` [B] int64, a function of (seed, row); rows [B] as for `dream`."""
        ...


@dataclass(frozen=True)
class FirstFrames:
    """Scenes of which the first frame was seen: of each a sample of the posterior is drawn, anew for every dream.

    Attributes:
        model: the frozen world model.
        embed: [P, E] of the frames.
    """

    model: WorldModel
    embed: Tensor

    def __len__(self) -> int:
        return len(self.embed)

    @torch.no_grad()
    def draw(self, which: Tensor, *, seed: int, rows: Tensor) -> Latent:
        """See `Starts`."""
        return self.model.start(self.embed[which], seed=seed, rows=rows)


class FixedStarts:
    """Scenes of which each has one latent.

    Args:
        latent: [P].
    """

    def __init__(self, latent: Latent) -> None:
        self.latent = latent

    def __len__(self) -> int:
        return len(self.latent.belief)

    def draw(self, which: Tensor, *, seed: int, rows: Tensor) -> Latent:
        """See `Starts`; nothing is random."""
        return _take(self.latent, which)


class Actor(Protocol):
    """What a dream asks of a policy: a `PolicyHead` or an `ImprovedPolicy`."""

    chunk: int

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Normal numbers of one decision."""
        ...

    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """One decision for every row."""
        ...


@dataclass(frozen=True)
class RolloutBatch:
    """What happened in a batch of episodes, imagined or real. Rows of decisions that were not taken are zeros.

    Attributes:
        feature: [B, H, F] what each decision was taken on.
        stored: tensors [B, H, ...] by name, what the policy stored of each decision; see `Decision`.
        alive: [B, H] bool, the decision was taken.
        success: [B, H] bool, the task was done during the decision, which ended the episode.
        reward: [B, H] 1 for success, or what a jury says that it is worth (`agents.jury`), in [0, 1].
        success_step: [B] int64, actions until the task was done; 0 if it never was.
        last_feature: [B, F] where the episode was cut off; zeros if it succeeded.
    """

    feature: Tensor
    stored: dict[str, Tensor]
    alive: Tensor
    success: Tensor
    reward: Tensor
    success_step: Tensor
    last_feature: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All of them by name, those of `stored` as well."""
        return {name: value for name, value in vars(self).items() if name != "stored"} | self.stored

    @classmethod
    def joined(cls, parts: Sequence[RolloutBatch]) -> RolloutBatch:
        """Batches of equal shapes one behind the other."""
        stored = {name: torch.cat([part.stored[name] for part in parts]) for name in parts[0].stored}
        names = [name for name in vars(parts[0]) if name != "stored"]
        return cls(stored=stored, **{name: torch.cat([vars(part)[name] for part in parts]) for name in names})

    def summary(self) -> dict[str, float]:
        """`imagined/success`, the share that succeeds; `imagined/reward`, the mean of all rewards, which is the same
        without a jury; and `imagined/time`, the mean actions that success takes, if any does.
        """
        done = self.success_step > 0
        result = {"imagined/success": done.float().mean().item(), "imagined/reward": self.reward.sum(1).mean().item()}
        if bool(done.any()):
            result["imagined/time"] = self.success_step[done].float().mean().item()
        return result


@fast_float32()
@torch.no_grad()
def dream(
    model: DreamModel,
    policy: Actor,
    success: Success,
    starts: Latent,
    *,
    decisions: int,
    threshold: float,
    seed: int,
    rows: Tensor,
    min_std: float = 0.0,
) -> RolloutBatch:
    """Imagine episodes.

    Where `worldaction.kernels` has an implementation of whole dreams for the device, that one imagines them; it has
    the same law, and the same numbers up to rounding.

    Args:
        model: the frozen world model.
        policy: any head, or a pair of a cloned and a trained one.
        success: the success classifier.
        starts: [B] where the dreams begin.
        decisions: decisions H after which a dream is cut off.
        threshold: probability from which a state counts as success.
        seed: of all random numbers.
        rows: [B] int64, global names of the dreams.
        min_std: smallest standard deviation of the policy's choices: above 0 to explore, 0 as in the simulator.

    Raises:
        UserError: there is not one row for each start.
    """
    if len(rows) != len(starts.belief):
        raise UserError(f"{len(rows)} rows for {len(starts.belief)} starts of dreams; give one row per start")
    if (weights := _weights(model, policy, success, starts, decisions=decisions, min_std=min_std)) is not None:
        assert isinstance(model, WorldModel)
        assert isinstance(policy, DiffusionPolicy | TunedPolicy)
        options: dict[str, Any] = {"decisions": decisions, "threshold": threshold, "seed": seed, "chunk": policy.chunk}
        options |= {"binary": policy.config["binary"], "unimix": model.config.unimix}
        dreamed = ops.dream(*weights, *starts, rows, **options)
        return _until_success(dreamed, policy, len(weights.success.rows) // starts.code.shape[-1])
    buffer = RolloutBuffer(len(rows), decisions, rows.device)
    living, latent, feature = torch.arange(len(rows), device=rows.device), starts, model.feature(starts)
    for decision in range(decisions):
        names = rows[living]
        noise = normal(seed, Stream.POLICY, names, decision, policy.noise_shape[0] * policy.noise_shape[1])
        decided = policy.decide(feature, noise.view(-1, *policy.noise_shape), min_std=min_std)
        # actions until success, 0 without
        done_at = torch.zeros_like(names)
        for step in range(decision * policy.chunk, (decision + 1) * policy.chunk):
            action = decided.actions[:, step % policy.chunk]
            latent = imagined_frame(model, latent, action, seed=seed, rows=names, step=step)
            after = model.feature(latent)
            done_at = first_success(done_at, success.probability(after) >= threshold, step)
        buffer.write(living, decision, feature, decided.stored, done_at)
        going = (done_at == 0).nonzero().squeeze(-1)
        living, latent, feature = living[going], _take(latent, going), after[going]
        if not len(living):
            break
    return buffer.finish(living, feature)


def imagined_frame(model: DreamModel, latent: Latent, action: Tensor, *, seed: int, rows: Tensor, step: int) -> Latent:
    """The next frame of dreams [B], whose random numbers are functions of (seed, row, step); `action` is [B, A]."""
    return model.prior(latent, action, uniform(seed, Stream.PRIOR, rows, step, latent.code.shape[-1]))


def first_success(done_at: Tensor, done: Tensor, step: int) -> Tensor:
    """Actions until success [B], 0 without: `done` [B] says in which dreams the task is done after this step."""
    return done_at.masked_fill(done & (done_at == 0), step + 1)


# As one operation ----------------------------------------------------------------------------------------------------


def _weights(
    model: DreamModel, policy: Actor, success: Success, starts: Latent, *, decisions: int, min_std: float
) -> KernelWeights | None:
    """The networks for the operation, if it knows them all and has a faster implementation than the loop of `dream`."""
    # matrix products in float32: an update compares the stored means with its own
    if choose("dream", typical(starts.belief.device)).name == REFERENCE:
        return None
    found = kernel_weights(model, policy, success, min_std=min_std)
    if found is None:
        return None
    request = ops.dream_request(*found, starts.code, horizon=decisions * policy.chunk, dtype=torch.float32)
    return None if choose("dream", request).name == REFERENCE else found


def _until_success(dreamed: Dreamed, policy: DiffusionPolicy | TunedPolicy, classes: int) -> RolloutBatch:
    """The operation's dreams, cut off at their success.

    The operation imagines every dream to the time limit. The loop of `dream` ends one with its success; here all that
    comes after it is set to zero, so that both give the same.

    Args:
        dreamed: of the operation.
        policy: whose decisions they are.
        classes: C of each group of the stochastic state.
    """
    done_at = dreamed.done_at.long()
    # [B, H + 1], before each decision and after the last: no success in any decision so far
    alive = torch.cat([torch.ones_like(done_at[:, :1]), (done_at == 0).long().cumprod(1)], 1).bool()
    feature = torch.cat([dreamed.beliefs, one_hot(dreamed.codes, classes)], -1)
    feature = feature.masked_fill(~alive.unsqueeze(-1), 0.0)
    trained = policy.trained_steps if isinstance(policy, TunedPolicy) else 0
    # [B, H, 1, 1]
    over, count = ~alive[:, :-1, None, None], dreamed.means.shape[2]
    # of the whole chain only its trained end is learned from
    states = dreamed.states[:, :, count - trained :].masked_fill(over, 0.0)
    means = dreamed.means[:, :, count - trained :].masked_fill(over, 0.0)
    base_means = means
    if isinstance(policy, TunedPolicy):
        # the operation does not compute them: one pass of the cloned network for all decisions and steps
        base_means = chain_means(policy.base, feature[:, :-1].flatten(0, 1), states.flatten(0, 1))
        base_means = base_means.unflatten(0, over.shape[:2]).masked_fill(over, 0.0)
    success = (done_at > 0) & alive[:, :-1]
    return RolloutBatch(
        feature=feature[:, :-1],
        stored={"states": states, "means": means, "base_means": base_means},
        alive=alive[:, :-1],
        success=success,
        reward=success.to(feature.dtype),
        success_step=(done_at * alive[:, :-1]).amax(1),
        last_feature=feature[:, -1],
    )


# Step by step ---------------------------------------------------------------------------------------------------------


def _take(latent: Latent, rows: Tensor) -> Latent:
    return Latent(latent.belief[rows], latent.code[rows])


class RolloutBuffer:
    """Collects the decisions of episodes, of which fewer and fewer go on, in tensors that have room for all.

    Args:
        batch: episodes B.
        decisions: decisions H of each at most.
        device: of the tensors.
    """

    def __init__(self, batch: int, decisions: int, device: torch.device) -> None:
        self.shape = (batch, decisions)
        self.alive = torch.zeros(self.shape, dtype=torch.bool, device=device)
        self.success = torch.zeros_like(self.alive)
        self.success_step = torch.zeros(batch, dtype=torch.int64, device=device)
        self.feature: Tensor | None = None
        self.stored: dict[str, Tensor] = {}

    def write(
        self, living: Tensor, decision: int, feature: Tensor, stored: Mapping[str, Tensor], done_at: Tensor
    ) -> None:
        """Add one decision of the episodes that go on.

        Args:
            living: [L] int64, which episodes.
            decision: its number.
            feature: [L, F] what it was taken on.
            stored: tensors [L, ...] by name.
            done_at: [L] int64, actions until success, if it came during the decision; else 0.
        """
        self.alive[living, decision] = True
        self.success[living, decision] = done_at > 0
        self.success_step[living] = done_at
        if self.feature is None:
            # the first decision, which all episodes take, says what there is to store
            self.feature = self._room(feature)
            self.stored = {name: self._room(value) for name, value in stored.items()}
        self.feature[living, decision] = feature
        for name, value in stored.items():
            self.stored[name][living, decision] = value

    def _room(self, value: Tensor) -> Tensor:
        return value.new_zeros(*self.shape, *value.shape[1:])

    def finish(self, living: Tensor, feature: Tensor) -> RolloutBatch:
        """All of it; the episodes `living` [L] were cut off at these features [L, F]."""
        assert self.feature is not None
        last = feature.new_zeros(self.shape[0], feature.shape[-1])
        last[living] = feature
        reward = self.success.to(last.dtype)
        return RolloutBatch(self.feature, self.stored, self.alive, self.success, reward, self.success_step, last)
