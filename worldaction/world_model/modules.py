"""The recurrent model as TensorDict modules, for TorchRL loops of one's own.

TorchRL's layout: the root holds time t, ``next`` holds t + 1. ``state`` are the one-hots that TorchRL's Dreamer classes
expect; ``code`` are the class indices in which latents are stored.

    PriorModule      belief, code, action                                         -> next.belief, next.code, next.state
    PosteriorModule  belief, code, previous_action, is_init, cameras, robot_obs   -> belief, code, state, feature
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from worldaction.spec import ACTION, BELIEF, CODE, FEATURE, IS_INIT, PREVIOUS_ACTION, STATE
from worldaction.world_model.latent import Latent, one_hot
from worldaction.world_model.model import WorldModel


class _Sampler(TensorDictModuleBase):
    """What both modules share: the model and where its randomness comes from."""

    def __init__(
        self, model: WorldModel, in_keys: Sequence[Any], out_keys: Sequence[Any], generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.in_keys, self.out_keys = list(in_keys), list(out_keys)
        self.model, self.generator = model, generator

    def _draws(self, like: Tensor) -> Tensor:
        draws = torch.rand(len(like), self.model.config.groups, generator=self.generator, device=like.device)
        return draws.clamp(1e-7, 1.0 - 1e-7)


class PriorModule(_Sampler):
    """One imagined step of a batch [B].

    Args:
        model: the world model.
        generator: of the samples, on the model's device; torch's global one if not given.
    """

    def __init__(self, model: WorldModel, *, generator: torch.Generator | None = None) -> None:
        written = [("next", BELIEF), ("next", CODE), ("next", STATE)]
        super().__init__(model, [BELIEF, CODE, ACTION], written, generator)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Reads the root, writes ``next``."""
        latent = Latent(tensordict[BELIEF], tensordict[CODE])
        after = self.model.prior(latent, tensordict[ACTION], self._draws(latent.belief))
        for key, value in zip(self.out_keys, (*after, one_hot(after.code, self.model.config.classes)), strict=True):
            tensordict.set(key, value)
        return tensordict


class PosteriorModule(_Sampler):
    """Takes a frame into a batch [B] of episodes; where is_init, as `WorldModel.start` takes in the first one.

    Args:
        model: the world model.
        generator: of the samples, on the model's device; torch's global one if not given.
    """

    def __init__(self, model: WorldModel, *, generator: torch.Generator | None = None) -> None:
        read = [BELIEF, CODE, PREVIOUS_ACTION, IS_INIT, *model.config.observed]
        super().__init__(model, read, [BELIEF, CODE, STATE, FEATURE], generator)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Replaces belief and code by those that have seen the frame."""
        embed = self.model.embed({key: tensordict[key] for key in self.model.config.observed})
        before = Latent(tensordict[BELIEF], tensordict[CODE])
        latent = self.model.posterior(before, tensordict[PREVIOUS_ACTION], embed, self._draws(embed))
        first = tensordict[IS_INIT].reshape(-1)
        if bool(first.any()):
            seed = int(torch.randint(2**31, (1,), generator=self.generator, device=embed.device))
            begun = self.model.start(embed, seed=seed, rows=torch.arange(len(embed), device=embed.device))
            latent = Latent(*(torch.where(first[:, None], new, old) for new, old in zip(begun, latent, strict=True)))
        feature = self.model.feature(latent)
        for key, value in zip(self.out_keys, (*latent, feature[:, latent.belief.shape[-1] :], feature), strict=True):
            tensordict.set(key, value)
        return tensordict
