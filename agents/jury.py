"""A jury of world models: what others, trained from other seeds, say of what one of them dreamed.

A policy that learns in one world model learns its errors, too, and its dreams there are no witness against them. Other
models err elsewhere: they are given the same first frame and the same actions, and asked whether the task is done. Only
whoever saw the frames can be asked, so no action answers to what a juror imagines: where the outcome hangs by a
millimetre, jurors may see fewer successes than the dreamer, however true it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agents.imagination import Actor, DreamModel, Success, dream, first_success, imagined_frame
from agents.policies.base import Decision
from worldaction.kernels.cpu_matmul import fast_float32
from worldaction.world_model.latent import Latent


class _NotYet:
    """A classifier to which nothing is ever done, so that a dream goes on to its end."""

    def probability(self, feature: Tensor) -> Tensor:
        """[B, F] -> [B], zeros."""
        return feature.new_zeros(len(feature))


class _Noted:
    """An actor whose actions are kept.

    Attributes:
        actions: a tensor [B, K, A] for each decision so far.
    """

    def __init__(self, actor: Actor) -> None:
        self.actor, self.chunk, self.noise_shape = actor, actor.chunk, actor.noise_shape
        self.actions: list[Tensor] = []

    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """See `Actor.decide`; nothing else is stored."""
        decided = self.actor.decide(feature, noise, min_std=min_std)
        self.actions.append(decided.actions)
        return Decision(decided.actions, {})


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
    noted = _Noted(actor)
    # a dream ends with its success, and jurors who see none until later would be asked about nothing
    dream(model, noted, _NotYet(), starts, decisions=decisions, threshold=1.0, seed=seed, rows=rows)
    return torch.cat(noted.actions, 1)


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
