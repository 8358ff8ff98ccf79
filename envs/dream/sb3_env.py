"""Many dreams in one batch as a Stable-Baselines3 VecEnv, so that its PPO trains in imagination unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from envs.dream.dynamics import Dreams, Moment, Outcome, check_render_mode
from envs.dream.gymnasium_env import spaces, success_info
from worldaction.errors import UserError
from worldaction.success import SuccessClassifier
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel

Features = NDArray[np.float32]


class DreamVecEnv(VecEnv):
    """Dreams side by side: observation, action, reward and infos of each as in `DreamGymEnv`.

    A dream that ends is followed by the next one in the same step; its last observation is
    `info["terminal_observation"]`, and `info["TimeLimit.truncated"]` says whether the horizon alone ended it.
    """

    def __init__(
        self,
        model: WorldModel,
        success: SuccessClassifier,
        starts: Latent,
        *,
        num_envs: int,
        horizon: int = 72,
        threshold: float = 0.7,
        seed: int = 0,
        first: int = 0,
        render_mode: str | None = None,
    ) -> None:
        """
        Args:
            model, success, starts, horizon, threshold, seed, first: as for `Dreams`.
            num_envs: dreams side by side, N.
            render_mode: None or "rgb_array", what the decoder draws.
        """
        if num_envs < 1:
            raise UserError(f"num_envs {num_envs} must be at least 1")
        check_render_mode(render_mode, model)
        self.render_mode = render_mode
        self._dreams = Dreams(model, success, starts, horizon=horizon, threshold=threshold, seed=seed, first=first)
        self._moment: Moment | None = None
        super().__init__(num_envs, *spaces(model))

    def reset(self) -> Features:
        """N new dreams, the first ones of a seed if `seed` was called; [N, F]."""
        if any(self._options):
            raise UserError(f"options {self._options} are not supported here; DreamGymEnv takes them, for one dream")
        if self._seeds[0] is not None:
            self._dreams.restart(self._seeds[0])
        self._reset_seeds()
        self._moment = self._dreams.begin(self.num_envs)
        self.reset_infos = [success_info(False) for _ in range(self.num_envs)]
        return _numpy(self._dreams.feature(self._moment))

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Take the actions [N, A], carried out as `executed` says."""
        self._actions = torch.tensor(np.asarray(actions, np.float32))

    def step_wait(self) -> tuple[Features, Features, NDArray[np.bool_], list[dict[str, Any]]]:
        """One control step of every dream: features [N, F], rewards [N], dones [N], infos."""
        outcome = self._dreams.step(self._current(), self._actions)
        done = outcome.terminated | outcome.truncated
        infos = _infos(outcome)
        self._moment, feature = outcome.moment, outcome.feature
        # [E], the dreams that end
        ended = done.nonzero().squeeze(-1)
        if len(ended):
            fresh = self._dreams.begin(len(ended))
            self._moment = outcome.moment.replace(ended, fresh)
            feature = feature.index_copy(0, ended, self._dreams.feature(fresh))
            for row in ended.tolist():
                self.reset_infos[row] = success_info(False)
        return _numpy(feature), _numpy(outcome.terminated.to(torch.float32)), done.cpu().numpy(), infos

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """The decoder's picture of each dream, [H, cameras * W, 3]."""
        if self.render_mode is None:
            return [None] * self.num_envs
        return list(self._dreams.draw(self._dreams.feature(self._current())))

    def close(self) -> None:
        """Nothing to close."""

    # The dreams of a batch share everything but their latents ---------------------------------------------------------

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the batch, once per dream."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the batch, for all dreams at once."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise UserError(f"{attr_name!r} cannot differ between dreams of one batch; set it without indices")
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Not supported: dreams of one batch are no objects of their own."""
        raise UserError(
            f"dreams of one batch have no method {method_name!r} of their own; use DreamGymEnv for one dream"
        )

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Dreams are never wrapped one by one."""
        return [False for _ in self._get_indices(indices)]

    def _current(self) -> Moment:
        if self._moment is None:
            raise UserError("no dream has begun; call reset() first")
        return self._moment


def _infos(outcome: Outcome) -> list[dict[str, Any]]:
    infos = []
    last = _numpy(outcome.feature)
    flags = zip(outcome.terminated.tolist(), outcome.truncated.tolist(), strict=True)
    for row, (success, at_horizon) in enumerate(flags):
        info = success_info(success) | {"TimeLimit.truncated": at_horizon and not success}
        if success or at_horizon:
            info["terminal_observation"] = last[row]
        infos.append(info)
    return infos


def _numpy(value: torch.Tensor) -> Features:
    array: Features = value.cpu().numpy()
    return array
