"""Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438) that knows the two ways an episode ends."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    alive: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Advantages and value targets.

    A terminated episode has no future: nothing is bootstrapped. A truncated one had a future that nobody looked at: the
    value of its true next state is bootstrapped. Both cut the trace.

    Args:
        reward: [B, T] reward of each step.
        value: [B, T] value of the state each step starts from.
        next_value: [B, T] value of the state each step leads to, not that of the state after a reset.
        terminated: [B, T] bool, the step ended the episode.
        truncated: [B, T] bool, the time limit ended the episode after the step.
        alive: [B, T] bool, the step was taken at all. Whatever stands elsewhere is never read.
        gamma: discount per step.
        gae_lambda: decay of the trace.

    Returns:
        Advantage and value target, both [B, T], zero where not alive.
    """
    bootstrap = gamma * next_value.masked_fill(terminated | ~alive, 0.0)
    delta = (reward + bootstrap - value).masked_fill(~alive, 0.0)
    decay = gamma * gae_lambda * (alive & ~terminated & ~truncated)
    advantage = torch.zeros_like(delta)
    trace = torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        trace = delta[:, t] + decay[:, t] * trace
        advantage[:, t] = trace
    return advantage, (advantage + value).masked_fill(~alive, 0.0)
