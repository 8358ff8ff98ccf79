"""One dream as a Gymnasium environment: what any agent that knows a Box can be trained and tested in."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import ArrayLike, NDArray

from envs.dream.dynamics import Dreams, Moment, check_render_mode
from envs.reset import own_options
from worldaction.errors import UserError
from worldaction.spec import CONTROL_HZ
from worldaction.success import SuccessClassifier
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel


def spaces(model: WorldModel) -> tuple[Box[np.float32], Box[np.float32]]:
    """Spaces of the observation (the feature [F]) and of the action [A]."""
    high = model.feature_limits().cpu().numpy()
    return Box(-high, high, dtype=np.float32), Box(-1.0, 1.0, (model.config.layout.action,), np.float32)


class DreamGymEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A dream. Observation: the model's feature [F]; action: [7] in [-1, 1], as the simulator takes it.

    Reward 1 and `terminated` on success, `truncated` at the horizon; `info["success"]` and `info["is_success"]` always.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012

    def __init__(
        self,
        model: WorldModel,
        success: SuccessClassifier,
        starts: Latent,
        *,
        horizon: int = 72,
        threshold: float = 0.7,
        seed: int = 0,
        first: int = 0,
        render_mode: str | None = None,
    ) -> None:
        """
        Args:
            model, success, starts, horizon, threshold, seed, first: as for `Dreams`.
            render_mode: None or "rgb_array", what the decoder draws.
        """
        check_render_mode(render_mode, model)
        self.render_mode = render_mode
        self.observation_space, self.action_space = spaces(model)
        self._dreams = Dreams(model, success, starts, horizon=horizon, threshold=threshold, seed=seed, first=first)
        self._moment: Moment | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A new dream.

        Args:
            seed: names the dream and its start. Without it, the next dream of the current seed.
            options: "start", which of the given starts to begin at, instead of a drawn one.

        Raises:
            UserError: an option or start that does not exist.
        """
        super().reset(seed=seed)
        options = own_options(options, ["start"])
        if seed is not None:
            self._dreams.restart(seed)
        self._moment = self._dreams.begin(1, start=options.get("start"))
        return self._observe(self._dreams.feature(self._moment)), success_info(False)

    def step(self, action: ArrayLike) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One imagined control step.

        Args:
            action: [7], carried out as `executed` says.

        Raises:
            UserError: the action has another shape, or is not finite, or there was no reset.
        """
        outcome = self._dreams.step(self._current(), torch.tensor(np.asarray(action, np.float32))[None])
        self._moment, success = outcome.moment, bool(outcome.terminated)
        return self._observe(outcome.feature), float(success), success, bool(outcome.truncated), success_info(success)

    def render(self) -> NDArray[np.uint8] | None:
        """The decoder's picture [H, cameras * W, 3], if `render_mode` is "rgb_array"."""
        if self.render_mode is None:
            return None
        picture: NDArray[np.uint8] = self._dreams.draw(self._dreams.feature(self._current()))[0]
        return picture

    def _current(self) -> Moment:
        if self._moment is None:
            raise UserError("no dream has begun; call reset() first")
        return self._moment

    def _observe(self, feature: torch.Tensor) -> NDArray[np.float32]:
        observation: NDArray[np.float32] = feature[0].cpu().numpy()
        return observation


def success_info(success: bool) -> dict[str, Any]:
    """What every reset and step says about success."""
    return {"success": success, "is_success": success}
