"""The exported policy behind LeRobot's calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot_policy_worldaction.configuration_worldaction import WorldActionConfig
from torch import Tensor, nn

from agents.policy import Policy, PolicyState


class WorldActionPolicy(PreTrainedPolicy):
    """World model and policy head, with the keys of model.safetensors as worldaction has them.

    Actions come in the robot's units, so the post-processor has nothing to undo.

    Args:
        config: of the exported policy.
        others: what the loaders of `lerobot` give besides, such as statistics of a data set; not needed.
    """

    config_class = WorldActionConfig
    name = "worldaction"

    def __init__(self, config: WorldActionConfig, **others: Any) -> None:
        super().__init__(config)
        policy = Policy.untrained(json.loads(config.worldaction), source="config.json")
        self.model, self.actor = policy.model, policy.actor
        # in a list, so that its parameters are not counted twice
        self._policy = [policy]
        self._state: PolicyState | None = None

    def reset(self) -> None:
        """The next observation begins an episode, with noise of its own."""
        self._state = None

    @torch.no_grad()
    def select_action(self, batch: Mapping[str, Any], **others: Any) -> Tensor:
        """The next actions [B, A] in the robot's units, from `observation.images.*` and `observation.state`."""
        action, self._state = self._policy[0].predict(batch, self._state)
        return torch.from_numpy(action).to(self.config.device)

    @torch.no_grad()
    def predict_action_chunk(self, batch: Mapping[str, Any], **others: Any) -> Tensor:
        """What is left of the present decision [B, k, A], beginning with the next action; k is 1 to the chunk."""
        self.select_action(batch)
        assert self._state is not None
        left = self._state.chunk[:, int(self._state.age[0]) - 1 :].cpu().numpy()
        return torch.from_numpy(self._policy[0].interface.to_robot(left)).to(self.config.device)

    def get_optim_params(self) -> Iterator[nn.Parameter]:
        """Asked for, and never used."""
        return self.parameters()

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, None]:
        """Raises: it is trained by worldaction."""
        raise NotImplementedError("this policy is trained by worldaction, not by lerobot-train")
