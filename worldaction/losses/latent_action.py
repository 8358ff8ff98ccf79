"""Latent actions: a code for what changed between two frames, learned whether or not anybody recorded the action.

An inverse model reads the code u off (e_t, e_{t+k}), and a forward model must get to e_{t+k} from e_t and u: the slices
of the embedding are mixed by a matrix that u chooses (what moves), and what is new is added (RepWAM, arXiv 2606.13674:
z' = K z + delta, there on a grid of tokens). With ``vocabulary`` the codes are those of a learned list (UniVLA, arXiv
2505.06111; VQ-VAE, 1711.00937, eq. 3); with ``difference`` they are read off e_{t+k} - e_t alone (StaMo, 2510.05057).
Where actions are known a small decoder must find them in the code, which ties the codes to the robot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldaction.config import Count, NonNegative
from worldaction.losses.base import Loss, LossOutput, Shapes, WorldModelLike, actions_between, joined, known_actions
from worldaction.world_model.latent import Latents
from worldaction.world_model.nets import mlp

COMMITMENT = 0.25
"""Weight that keeps what is read close to its entry in the list (VQ-VAE, section 3.2)."""


@dataclass(frozen=True)
class LatentActionOptions:
    """Options of `LatentAction`."""

    scale: NonNegative = 100.0
    """Weight of the loss."""
    steps: int = 4
    """Frames k between the two: at 30 a second neighbours hardly differ."""
    code: int = 8
    """Numbers of a code; RepWAM has 4, and an action of the table 7."""
    vocabulary: int = 0
    """Length of the list of codes; 0 lets a code be any point between -1 and 1."""
    difference: bool = False
    """Read the code off the difference of the two embeddings, linearly."""
    decode: float = 1.0
    """Weight of the mean absolute error of known actions that are read off the codes."""
    tokens: int = 16
    """Slices that the embedding is cut into, as many of them as divide it."""
    hidden: Count = 256
    """Width of the hidden layers."""


class Codebook(nn.Module):
    """A list of codes; what is read is replaced by the nearest (VQ-VAE, eq. 1 and 2)."""

    def __init__(self, length: int, size: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.empty(length, size).uniform_(-1.0, 1.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            x: [..., U].

        Returns:
            codes [..., U] whose gradient is that of x, the loss [...] that draws list and readings together, and which
            entries [...] were taken.
        """
        taken = torch.cdist(x.flatten(0, -2).float(), self.codes).argmin(-1).view(x.shape[:-1])
        near = self.codes[taken]
        pull = (x.detach() - near).square().sum(-1) + COMMITMENT * (x - near.detach()).square().sum(-1)
        return x + (near - x).detach(), pull, taken


class LatentAction(Loss):
    """Squared error, relative to the spread, of a later embedding foretold from this one and the code of the step."""

    name = "latent_action"
    Options = LatentActionOptions
    needs = frozenset({"embed"})
    predicts_actions = True

    def __init__(self, options: LatentActionOptions, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        size, code, hidden = shapes.seen, options.code, options.hidden
        self.tokens = math.gcd(size, options.tokens)
        self.inverse_net = nn.Linear(size, code) if options.difference else mlp([2 * size, hidden, code])
        self.codebook = Codebook(options.vocabulary, code) if options.vocabulary else None
        self.transport = nn.Linear(code, self.tokens**2)
        self.residual_net = mlp([size + code, hidden, size])
        self.action_net = mlp([size + code, hidden, options.steps * shapes.action])

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`; every pair of frames counts, and the actions of those that are known."""
        steps, embed = self.options.steps, latents.embed[..., : self.shapes.seen]
        now, later, pairs, known = (
            embed[:, :-steps],
            embed[:, steps:],
            joined(batch, steps),
            known_actions(batch, steps),
        )
        code, pull, metrics = self.read(now, later)
        # in shares of how much embeddings differ at all, which shrinks and grows while the encoder learns
        spread = (later - later.mean((0, 1))).detach().square().sum(-1).mean().clamp_min(1e-6)
        error = (self.predict(now, code) - later.detach()).square().sum(-1) / spread
        # the embedding is held fixed here: the decoder is to look at the code for what the robot did
        decoded = self.action_net(torch.cat([now.detach(), code], -1))
        # [B, T - k]
        actions = (decoded - actions_between(batch, steps).flatten(-2)).abs().mean(-1)
        metrics |= {"error": LossOutput(error, pairs).mean().detach(), "l1": LossOutput(actions, known).mean().detach()}
        value = error + pull + self.options.decode * torch.where(known, actions, 0.0)
        return LossOutput.ahead(value, pairs, metrics, steps=steps)

    def read(self, now: Tensor, later: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Codes [..., U] of steps between embeddings [..., E - P], what the list costs [...], and metrics."""
        seen = later - now if self.options.difference else torch.cat([now, later], -1)
        code = self.inverse_net(seen).tanh()
        if self.codebook is None:
            return code, torch.zeros_like(code[..., 0]), {}
        code, pull, taken = self.codebook(code)
        shares = torch.zeros_like(self.codebook.codes[:, 0]).index_add(
            0, taken.flatten(), torch.ones_like(pull).flatten()
        )
        shares = shares.detach() / taken.numel()
        return code, pull, {"codes_in_use": (-torch.xlogy(shares, shares).sum()).exp()}

    def predict(self, now: Tensor, code: Tensor) -> Tensor:
        """The later embedding [..., E - P] by transport and residual."""
        slices = now.unflatten(-1, (self.tokens, -1))
        stay = 4.0 * torch.eye(self.tokens, device=now.device)
        # [..., N, N], each row a mixture, at first nearly the slice itself
        mixing = (self.transport(code).unflatten(-1, (self.tokens, self.tokens)) + stay).softmax(-1)
        return (mixing.to(slices.dtype) @ slices).flatten(-2) + self.residual_net(torch.cat([now, code], -1))
