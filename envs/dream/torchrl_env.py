"""Dreams as a TorchRL environment: for collectors, transforms and losses that speak TensorDict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, TensorSpec, Unbounded
from torchrl.envs import EnvBase

from envs.dream.dynamics import Dreams, Moment
from worldaction.spec import ACTION, BELIEF, CODE, FEATURE
from worldaction.success import SuccessClassifier
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel

DREAM = "dream"
"""[..., 1] int64, the dream's global name."""
DREAM_STEP = "dream_step"
"""[..., 1] int64, actions since the dream's start."""


class DreamEnv(EnvBase):
    """A batch of dreams without memory: the next step depends on the seed and on the tensordict that it is given.

    Keys: `belief` [..., D], `code` [..., S] uint8, `feature` [..., F], `dream` and `dream_step` [..., 1] int64,
    `action` [..., A], carried out as `executed` says; reward (1 on success), done, terminated (success) and truncated
    (horizon) [..., 1]. `reset(tensordict, set_state=True)` dreams on from given latents. A tensordict that holds
    latents needs `set_state=False` to begin anew when it is reset by hand: TorchRL before 0.15 assumes the other.
    """

    batch_locked = False
    _supports_set_state = True

    def __init__(
        self,
        model: WorldModel,
        success: SuccessClassifier,
        starts: Latent,
        *,
        batch_size: Sequence[int] = (),
        horizon: int = 72,
        threshold: float = 0.7,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        """
        Args:
            model, success, starts, horizon, threshold, seed, first: as for `Dreams`.
            batch_size: of the dreams; () leaves it to the tensordicts that come.
        """
        self._dreams = Dreams(model, success, starts, horizon=horizon, threshold=threshold, seed=seed, first=first)
        super().__init__(device=self._dreams.device, batch_size=torch.Size(batch_size))
        self._make_specs(model)

    def _make_specs(self, model: WorldModel) -> None:
        shape = self.batch_size
        sizes, high = model.config, model.feature_limits()
        state = {
            BELIEF: _within(high[: model.rssm.deter], shape),
            CODE: Categorical(sizes.classes, shape=(*shape, sizes.groups), dtype=torch.uint8),
            DREAM: Unbounded((*shape, 1), dtype=torch.int64),
            DREAM_STEP: Unbounded((*shape, 1), dtype=torch.int64),
        }
        feature = {FEATURE: _within(high, shape)}
        flag = Categorical(2, shape=(*shape, 1), dtype=torch.bool)
        self.state_spec = Composite(state, shape=shape, device=self.device)
        self.observation_spec = Composite(state | feature, shape=shape, device=self.device)
        self.action_spec = Bounded(-1.0, 1.0, (*shape, sizes.layout.action), device=self.device)
        self.reward_spec = Bounded(0.0, 1.0, (*shape, 1), device=self.device)
        flags = {name: flag.clone() for name in ("done", "terminated", "truncated")}
        self.full_done_spec = Composite(flags, shape=shape, device=self.device)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        shape = self.batch_size if tensordict is None else tensordict.batch_size
        mask = None if tensordict is None else tensordict.get("_reset", None)
        if mask is None:
            mask = torch.ones(shape, dtype=torch.bool, device=self.device)
        moment = self._begin(mask.flatten())
        if kwargs.get("set_state") and tensordict is not None:
            moment = _moment(_entries(moment, shape).update(tensordict.select(*self.state_spec.keys(), strict=False)))
        result = _entries(moment, shape).set(FEATURE, _shaped(self._dreams.feature(moment), shape))
        never = torch.zeros(*shape, 1, dtype=torch.bool, device=self.device)
        return result.update({"done": never, "terminated": never.clone(), "truncated": never.clone()})

    def _begin(self, mask: Tensor) -> Moment:
        """New dreams where the mask [B] is true; rows elsewhere hold copies, which TorchRL leaves out."""
        place = (mask.cumsum(0) - 1).clamp_min(0)
        # at least one, to copy from
        return self._dreams.begin(max(1, int(mask.sum()))).take(place)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        shape = tensordict.batch_size
        outcome = self._dreams.step(_moment(tensordict), tensordict[ACTION].reshape(-1, self.action_spec.shape[-1]))
        terminated, truncated = (_shaped(flag[:, None], shape) for flag in (outcome.terminated, outcome.truncated))
        return _entries(outcome.moment, shape).update(
            {
                FEATURE: _shaped(outcome.feature, shape),
                "reward": terminated.to(torch.float32),
                "done": terminated | truncated,
                "terminated": terminated,
                "truncated": truncated,
            }
        )

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self._dreams.restart(seed)


def _shaped(value: Tensor, shape: torch.Size) -> Tensor:
    """Rows [B, X] to [*shape, X]."""
    return value.reshape(*shape, value.shape[-1])


def _moment(tensordict: TensorDictBase) -> Moment:
    latent = Latent(*(tensordict[key].reshape(-1, tensordict[key].shape[-1]) for key in (BELIEF, CODE)))
    return Moment(latent, tensordict[DREAM].flatten(), tensordict[DREAM_STEP].flatten())


def _entries(moment: Moment, shape: torch.Size) -> TensorDict:
    rows = {BELIEF: moment.latent.belief, CODE: moment.latent.code}
    rows |= {DREAM: moment.dream[:, None], DREAM_STEP: moment.step[:, None]}
    return TensorDict({key: _shaped(value, shape) for key, value in rows.items()}, shape, device=moment.dream.device)


def _within(high: Tensor, shape: Sequence[int]) -> TensorSpec:
    """Numbers that none of these limits [N] is exceeded by."""
    size = (*shape, len(high))
    return Bounded(-1.0, 1.0, size) if bool(high.isfinite().all()) else Unbounded(size)
