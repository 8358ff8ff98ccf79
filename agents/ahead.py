"""A policy that answers a frame at once, with an action that it has computed before the frame came.

    frame      0    1    2    3    4    5    6    7
    answered   .    x    x    x    x    x    x    x      at once; the first frame has to be waited for
    filtered   x    x    x    x    x    x    x    x      after the answer, while the robot carries it out
    decided    x    .    .    x    .    .    .    x      chunks of four: the decision for 4 to 7 has seen frames 0 to 3

So time to action is none, as long as the work on a frame is done before the next one comes. The price: the first action
of a chunk, and with it all of the chunk, is one that a policy gives that has seen one frame less. Within a chunk
nothing changes, and the world model takes in every frame, with the action that was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.policy import Policy, PolicyState
from worldaction.errors import UserError
from worldaction.spec import ROBOT


@dataclass(frozen=True)
class Ahead:
    """Where an episode is."""

    state: PolicyState
    action: np.ndarray | None = None
    """What the next frame is answered with, in the robot's units; None until it is computed."""
    unseen: Mapping[str, np.ndarray] | None = None
    """A frame that has been answered and not been taken in."""
    broken: str = ""
    """Why the episode cannot go on."""


class AheadPolicy:
    """Calls of one episode at a time: `predict`, and after its answer is on its way `look_ahead`.

    Args:
        policy: acts. It may not hold still where a frame cannot be used, for that is known too late.

    Raises:
        UserError: it may.
    """

    def __init__(self, policy: Policy) -> None:
        if policy.unusable_frames == "hold":
            raise UserError('a policy that answers ahead cannot hold still; set unusable_frames = "refuse"')
        self.policy = policy

    def predict(self, observation: Mapping[str, Any], at: Ahead | None) -> tuple[np.ndarray, Ahead]:
        """The action [A] for a frame, in the robot's units, and where the episode is then.

        Args:
            observation: what the robot gives; see `RobotInterface.observe`.
            at: what `look_ahead` returned; None where an episode begins.

        Raises:
            UserError: the frame is none of this robot's, and then nothing has changed; or the one before could not be
                used, which was not known when that was answered.
        """
        seen = self._seen(observation)
        if at is None:
            action, state = self.policy.predict(seen)
            return action, Ahead(state)
        if at.broken:
            raise UserError(f'{at.broken}; that frame has been answered, so begin another episode, by "reset": true')
        assert at.action is not None
        return at.action, Ahead(at.state, unseen=seen)

    def look_ahead(self, at: Ahead) -> Ahead:
        """Take in the frame that was answered, and compute what the next one will be answered with."""
        if at.action is not None or at.broken:
            return at
        try:
            state = at.state if at.unseen is None else self.policy.predict(at.unseen, at.state)[1]
        except UserError as error:
            return Ahead(at.state, broken=str(error))
        action, state = self.policy.look_ahead(state)
        return Ahead(state, action[0])

    def _seen(self, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The frame as the policy sees it; what is no frame is refused before it is answered."""
        seen = self.policy.seen(observation)
        if lead := self.policy.model.check({key: torch.from_numpy(value) for key, value in seen.items()}):
            raise UserError(f"a batch of {list(lead)} frames; one robot at a time is answered ahead")
        if not np.isfinite(seen.get(ROBOT, 0)).all():
            raise UserError(f"{ROBOT} holds NaN or an infinity; repair the sensor, and send another frame")
        return seen
