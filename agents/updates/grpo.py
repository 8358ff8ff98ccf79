"""GRPO in imagination: no critic, dreams from one start are judged by each other (Shao et al. 2024, 2402.03300)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from agents.imagination import RolloutBatch
from agents.updates.base import Decisions, discounted_return
from agents.updates.clipped import ClippedUpdate
from worldaction.config import Range, UpdateConfig
from worldaction.errors import UserError


@dataclass(frozen=True)
class GRPOConfig(UpdateConfig):
    """Options of GRPO: those of every update, and its own."""

    group: Annotated[int, Range("2 or more", lambda value: value >= 2)] = 8
    """Dreams from one start, which are judged beside each other."""

    def __post_init__(self) -> None:
        """Refuse dreams that are no whole number of groups."""
        if self.group and self.dreams % self.group:
            raise UserError(
                f"--update.dreams {self.dreams} is no multiple of the group of {self.group} dreams; change one"
            )


class GRPO(ClippedUpdate):
    """Group-relative policy optimisation: every decision of a dream has the dream's advantage within its group."""

    name = "grpo"
    Options = GRPOConfig

    def draw_starts(self, count: int) -> Tensor:
        """One start for each group, [count] int64."""
        return super().draw_starts(count // self.options.group).repeat_interleave(self.options.group)

    def learn(self, rollouts: RolloutBatch, decisions: Decisions) -> dict[str, float]:
        """Fit the policy, unless all dreams of every group came to the same."""
        relative = group_advantage(discounted_return(rollouts, self.options.gamma), self.options.group)
        # [B] -> [B, H] -> [M]
        advantage = relative[:, None].expand(rollouts.alive.shape)[rollouts.alive]
        return self.learn_from(decisions, advantage, active=bool(advantage.any()))


def group_advantage(returns: Tensor, group: int) -> Tensor:
    """Returns [B] less their group's mean, over their group's deviation; zero where a group is all alike."""
    grouped = returns.view(-1, group)
    apart = grouped - grouped.mean(1, keepdim=True)
    spread = grouped.std(1, correction=0, keepdim=True)
    return torch.where(spread > 1e-6, apart / (spread + 1e-8), 0.0).flatten()
