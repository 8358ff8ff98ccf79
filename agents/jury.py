"""A jury of world models: what others, trained from other seeds, say of what one of them dreamed.

A policy that learns in one world model learns its errors, too, and its dreams there are no witness against them. Other
models err elsewhere: they are given the same first frame and the same actions, and asked whether the task is done. Only
whoever saw the frames can be asked, so no action answers to what a juror imagines: where the outcome hangs by a
millimetre, jurors may see fewer successes than the dreamer, however true it is.

As a reward (`Jury.judge`) this is the worth of disagreement among an ensemble of models (MOReL, arXiv 2005.05951; MOPO,
arXiv 2005.13239), read where it counts: in the outcome. Its price is one pass of each juror over the dreams that
succeed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from agents.imagination import Actor, DreamModel, RolloutBatch, Starts, Success, dream, first_success, imagined_frame
from agents.policies.base import Decision
from worldaction.kernels.cpu_matmul import fast_float32
from worldaction.world_model.latent import Latent


class Noted:
    """An actor whose actions are kept.

    Attributes:
        actions: a tensor [L, K, A] for each decision so far, of the dreams that took it.
    """

    def __init__(self, actor: Actor) -> None:
        self.actor, self.chunk, self.noise_shape = actor, actor.chunk, actor.noise_shape
        self.actions: list[Tensor] = []

    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """See `Actor.decide`."""
        decided = self.actor.decide(feature, noise, min_std=min_std)
        self.actions.append(decided.actions)
        return decided

    def laid_out(self, alive: Tensor) -> Tensor:
        """The actions of dreams, zeros where no decision was taken.

        Args:
            alive: [B, H] bool, as `RolloutBatch` has it.

        Returns:
            [B, H * K, A].
        """
        found = self.actions[0].new_zeros(*alive.shape, *self.actions[0].shape[1:])
        for decision, actions in enumerate(self.actions):
            found[alive[:, decision], decision] = actions
        return found.flatten(1, 2)


@dataclass(frozen=True)
class Juror:
    """A world model with what it knows of a task.

    Attributes:
        model: frozen.
        success: its own success classifier.
        starts: its own latents of the scenes in which dreams begin.
    """

    model: DreamModel
    success: Success
    starts: Starts

    def replay(self, actions: Tensor, which: Tensor, *, threshold: float, seed: int, rows: Tensor) -> Tensor:
        """What it says of actions that were dreamed elsewhere; see `replayed_success`.

        Args:
            actions, threshold, seed, rows: as there.
            which: [B] int64, the scenes in which the dreams began.
        """
        first = self.starts.draw(which, seed=seed, rows=rows)
        return replayed_success(self.model, self.success, first, actions, threshold=threshold, seed=seed, rows=rows)


class Jury:
    """Jurors that reward a policy's dreams.

    Args:
        jurors: at least one.
        threshold: probability from which a state counts as success.
    """

    def __init__(self, jurors: Sequence[Juror], *, threshold: float) -> None:
        self.jurors, self.threshold = jurors, threshold

    def judge(self, rollouts: RolloutBatch, actions: Tensor, which: Tensor, *, seed: int, rows: Tensor) -> RolloutBatch:
        """The same dreams, of which a success is worth the share of all models, the dreamer among them, that see one.

        Args:
            rollouts: [B, H], dreamed elsewhere.
            actions: [B, H * K, A] of them.
            which: [B] int64, the scenes in which they begin.
            seed: as of the dreams.
            rows: [B] int64, names of the dreams.
        """
        done = (rollouts.success_step > 0).nonzero().squeeze(-1)
        if not len(done):
            return rollouts
        # a juror is asked about what was dreamed, which ended with the decision that succeeded
        chunk = actions.shape[1] // rollouts.alive.shape[1]
        length = rollouts.alive[done].sum(1) * chunk
        asked = actions[done, : int(length.max())]
        seen = [
            juror.replay(asked, which[done], threshold=self.threshold, seed=seed, rows=rows[done])
            for juror in self.jurors
        ]
        agreeing = sum(((at > 0) & (at <= length)).to(rollouts.reward.dtype) for at in seen)
        worth = torch.zeros_like(rollouts.reward[:, 0])
        worth[done] = (1 + agreeing) / (1 + len(self.jurors))
        return replace(rollouts, reward=rollouts.reward * worth[:, None])


def judged_dream(
    model: DreamModel,
    policy: Actor,
    success: Success,
    starts: Starts,
    which: Tensor,
    *,
    jury: Jury | None,
    decisions: int,
    threshold: float,
    seed: int,
    rows: Tensor,
    min_std: float = 0.0,
) -> RolloutBatch:
    """`agents.imagination.dream`, whose successes are worth what a jury says, if there is one.

    Args:
        model, policy, success, decisions, threshold, seed, rows, min_std: as there.
        starts: scenes.
        which: [B] int64, those in which the dreams begin.
        jury: who is asked.
    """
    latent = starts.draw(which, seed=seed, rows=rows)
    options: dict[str, Any] = {"threshold": threshold, "seed": seed, "rows": rows, "min_std": min_std}
    if jury is None:
        return dream(model, policy, success, latent, decisions=decisions, **options)
    # only jurors ask for actions, and a policy that is followed is no fused kernel's
    noted = Noted(policy)
    rollouts = dream(model, noted, success, latent, decisions=decisions, **options)
    return jury.judge(rollouts, noted.laid_out(rollouts.alive), which, seed=seed, rows=rows)


class _NotYet:
    """A classifier to which nothing is ever done, so that a dream goes on to its end."""

    def probability(self, feature: Tensor) -> Tensor:
        """[B, F] -> [B], zeros."""
        return feature.new_zeros(len(feature))


def dreamed_actions(
    model: DreamModel, actor: Actor, starts: Latent, *, decisions: int, seed: int, rows: Tensor
) -> Tensor:
    """The actions of dreams, which are those of `agents.imagination.dream` until its success.

    Args:
        model, seed, rows: as there.
        actor: the policy.
        starts: [B].
        decisions: H.

    Returns:
        [B, H * K, A].
    """
    noted = Noted(actor)
    # a dream ends with its success, and jurors who see none until later would be asked about nothing
    rollouts = dream(model, noted, _NotYet(), starts, decisions=decisions, threshold=1.0, seed=seed, rows=rows)
    return noted.laid_out(rollouts.alive)


@fast_float32()
@torch.no_grad()
def replayed_success(
    model: DreamModel, success: Success, starts: Latent, actions: Tensor, *, threshold: float, seed: int, rows: Tensor
) -> Tensor:
    """What one juror says of actions that were dreamed elsewhere.

    Args:
        model: the juror.
        success: its own success classifier.
        starts: [B] its own latents of the first frames.
        actions: [B, T, A].
        threshold: probability from which a state counts as success.
        seed: of all random numbers.
        rows: [B] int64, names of the dreams.

    Returns:
        [B] int64, actions until success; 0 without.
    """
    latent, done_at = starts, torch.zeros_like(rows)
    for step, action in enumerate(actions.unbind(1)):
        latent = imagined_frame(model, latent, action, seed=seed, rows=rows, step=step)
        done_at = first_success(done_at, success.probability(model.feature(latent)) >= threshold, step)
    return done_at
