"""Dreams in which a decision is a chunk of actions, for algorithms that know one action a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from envs.dream.dynamics import Dreams, Outcome
from envs.dream.sb3_env import DreamVecEnv
from worldaction.success import SuccessClassifier
from worldaction.world_model.model import WorldModel
from worldaction.world_model.rssm import Latent


class ChunkedDreams(Dreams):
    """Dreams whose step is K actions; success is looked at after each, and ends the dream there."""

    def __init__(self, *args: Any, chunk: int, **kwargs: Any) -> None:
        """
        Args:
            args, kwargs: as for `Dreams`.
            chunk: actions K of one decision.
        """
        super().__init__(*args, **kwargs)
        self.chunk, self.steps = chunk, 0
        """`steps` counts the control steps of all dreams."""

    def step(self, moment: Any, action: Tensor) -> Outcome:
        """One decision of every dream; moment [B], action [B, K * A]."""
        parts = action.unflatten(-1, (self.chunk, -1)).unbind(-2)
        outcome = super().step(moment, parts[0])
        self.steps += len(action)
        for part in parts[1:]:
            over = outcome.terminated | outcome.truncated
            after = super().step(outcome.moment, part)
            self.steps += int((~over).sum())
            outcome = _unless(over, outcome, after)
        return outcome


def _unless(over: Tensor, before: Outcome, after: Outcome) -> Outcome:
    """What an action led to, but for the dreams [B] that were over before it."""
    rows = over.nonzero().squeeze(-1)
    return Outcome(
        after.moment.replace(rows, before.moment.take(rows)),
        torch.where(over[:, None], before.feature, after.feature),
        torch.where(over, before.terminated, after.terminated),
        torch.where(over, before.truncated, after.truncated),
    )


class ChunkedVecEnv(DreamVecEnv):
    """A `DreamVecEnv` that takes chunks [N, K * A]."""

    def __init__(
        self,
        model: WorldModel,
        success: SuccessClassifier,
        starts: Latent,
        *,
        num_envs: int,
        chunk: int,
        **options: Any,
    ) -> None:
        """
        Args:
            model, success, starts, num_envs: as for `DreamVecEnv`.
            chunk: actions K of one decision; the horizon is a multiple of it.
            options: horizon, threshold and seed, as for `DreamVecEnv`.
        """
        super().__init__(model, success, starts, num_envs=num_envs, **options)
        self._dreams = self.dreams = ChunkedDreams(model, success, starts, chunk=chunk, **options)
        self.action_space = Box(-1.0, 1.0, (chunk * model.config.layout.action,), np.float32)
