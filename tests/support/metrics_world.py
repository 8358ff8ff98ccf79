"""Play of which everything is known, and a model that believes what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldaction.latents import EpisodeLatents
from worldaction.losses import Loss
from worldaction.losses.reconstruction import Reconstruction
from worldaction.losses.tools.contract import tiny_model
from worldaction.metrics.open_loop import OpenLoop, Rolls
from worldaction.spec import ACTION, CALVIN, EPISODE, IS_INIT, METRES_PER_UNIT, PREVIOUS_ACTION, ROBOT, SCENE, Layout
from worldaction.world_model.latent import Latent

EPISODES, LENGTH, CONTEXT, HORIZON = 8, 40, 8, 24
WINDOW = CONTEXT + HORIZON


def play(seed: int = 0) -> TensorDict:
    """Episodes in which the hand does at once what it is told, and parts of the scene wander about: [N] frames."""
    draws = torch.Generator().manual_seed(seed)
    count = EPISODES * LENGTH
    action = 2 * torch.rand(EPISODES, LENGTH, CALVIN.action, generator=draws) - 1
    action[..., 6] = action[..., 6].sign()
    moves = METRES_PER_UNIT * action[..., :3].cumsum(1)
    start = torch.randn(EPISODES, 1, 3, generator=draws) / 10
    robot = torch.randn(EPISODES, LENGTH, CALVIN.robot, generator=draws)
    robot[..., :3] = start + torch.cat([torch.zeros_like(moves[:, :1]), moves[:, :-1]], 1)
    scene = torch.randn(EPISODES, LENGTH, CALVIN.scene, generator=draws).cumsum(1) / 50
    scene[..., 4:6] = (torch.rand(EPISODES, LENGTH, 2, generator=draws) < 0.5).float()
    previous = action.roll(1, 1)
    previous[:, 0] = torch.tensor(CALVIN.null_action)
    values = {ROBOT: robot, SCENE: scene, ACTION: action, PREVIOUS_ACTION: previous}
    frames = TensorDict({key: value.flatten(0, 1) for key, value in values.items()}, [count])
    frames[EPISODE] = torch.arange(EPISODES).repeat_interleave(LENGTH)
    frames[IS_INIT] = torch.arange(count) % LENGTH == 0
    return frames


class Believer:
    """Its latents are numbers that the test chose; nothing but what measurements ask of a world model."""

    proprio_mean, proprio_std = torch.zeros(18), torch.ones(18)
    rssm = None

    def __init__(self, layout: Layout = CALVIN, losses: Mapping[str, Loss] | None = None) -> None:
        self.config = SimpleNamespace(layout=layout, cameras=(), observed=(ROBOT,), groups=4, image_size=16)
        self._losses = dict(losses or {})

    def feature(self, latent: Latent) -> Tensor:
        return latent.belief

    def each_loss(self) -> dict[str, Loss]:
        return self._losses

    def draws_images(self) -> bool:
        return False


def rolls(
    frames: TensorDict, believed: Tensor, *, imagined: Tensor | None = None, model: Any = None, dreams: bool = False
) -> Rolls:
    """A model that believes something at every frame of the play, fitted on the first half of it.

    Args:
        frames: see `play`.
        believed: [N, F], when it has seen the frame.
        imagined: [N, F], when it has not; the same if not given.
        model: see `Believer`.
        dreams: whether the second half is also dreamed from its first frames.
    """
    half = EPISODES // 2 * LENGTH
    starts = torch.arange(0, len(frames), LENGTH)

    def roll(first: Tensor, context: int) -> OpenLoop:
        frame = first[:, None] + torch.arange(context + HORIZON)
        code = torch.zeros(*frame.shape, 1, dtype=torch.uint8)
        told = (believed if imagined is None else imagined)[frame]
        told[:, :context] = believed[frame[:, :context]]
        seen = EpisodeLatents(
            Latent(believed[frame][None], code[None]), torch.ones_like(frame, dtype=torch.bool), frame
        )
        return OpenLoop(seen, Latent(told, code), context)

    training, validation = (roll(part, CONTEXT) for part in (starts[starts < half], starts[starts >= half]))
    chosen: Any = Believer() if model is None else model
    return Rolls(chosen, frames, training, validation, roll(starts[starts >= half], 1) if dreams else None)


def oracle(frames: TensorDict) -> Tensor:
    """[N, F] the whole state, in numbers so large that the penalty of a probe means nothing."""
    state = torch.cat([frames[ROBOT], frames[SCENE]], -1)
    return 1000 * (state - state.mean(0)) / state.std(0)


def noise(frames: TensorDict, size: int = 39, seed: int = 1) -> Tensor:
    """[N, F] numbers that have nothing to do with the frames."""
    return torch.randn(len(frames), size, generator=torch.Generator().manual_seed(seed))


class Reads(nn.Module):
    """A decoder of the proprioception that is a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, feature: Tensor) -> Tensor:
        return self.function(feature)


def decoder(function: Callable[[Tensor], Tensor], *, weight: float = 1.0) -> dict[str, Loss]:
    """A reconstruction loss that decodes the proprioception by a function of the feature."""
    loss = tiny_model(["reconstruction"]).each_loss()["reconstruction"]
    assert isinstance(loss, Reconstruction)
    loss.options = replace(loss.options, proprio=weight)
    loss.proprio_net = Reads(function)  # type: ignore[assignment]
    return {"reconstruction": loss}
