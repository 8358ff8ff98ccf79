"""Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438) of episodes that end at different times.

The sum is TorchRL's; what is ours is the mask: rows of a batch of dreams end by success, by the time limit, or have
ended before, and what stands after the end is never read.
"""

from __future__ import annotations

from torch import Tensor
from torchrl.objectives.value.functional import generalized_advantage_estimate


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
    # what was not taken is an episode of its own that ends at once, without reward and value; TorchRL wants [B, T, 1]
    value, next_value, reward = (part.masked_fill(~alive, 0.0)[..., None] for part in (value, next_value, reward))
    over = (terminated | ~alive)[..., None]
    done = over | truncated[..., None]
    advantage, target = generalized_advantage_estimate(
        gamma, gae_lambda, value, next_value, reward, done=done, terminated=over
    )
    return advantage[..., 0], target[..., 0]
