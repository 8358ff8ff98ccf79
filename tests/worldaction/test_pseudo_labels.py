"""Actions that nobody recorded are named from the frames, in their places, and no others are touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from worldaction.errors import UserError
from worldaction.losses.inverse_dynamics import InverseDynamics
from worldaction.losses.tools.contract import tiny_model
from worldaction.play.action_masking import hide_actions
from worldaction.play.store import PlayStore
from worldaction.play.writers.store import StoreWriter
from worldaction.pseudo_labels import label_actions
from worldaction.spec import ACTION, ACTION_MASK, NULL_ACTION, PREVIOUS_ACTION
from worldaction.world_model.model import WorldModel


class Telling(nn.Module):
    """An inverse model that reads the action off the joints of the later frame, by their place in its embedding."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.joints = joints

    def forward(self, pair: Tensor) -> Tensor:
        later = pair.chunk(2, -1)[1]
        return 1.5 * later[..., self.joints : self.joints + 7]


@pytest.fixture
def store(tmp_path: Path) -> PlayStore:
    """Three episodes whose joints say two thirds of the action that led there."""
    generator = torch.Generator().manual_seed(0)
    with StoreWriter(tmp_path / "store", image_size=16, source="test", renderer="none", seed=0, config={}) as writer:
        for _ in range(3):
            action = torch.rand(6, 7, generator=generator) * 2 - 1
            action[:, 6] = torch.where(action[:, 6] >= 0, 1.0, -1.0)
            robot = torch.zeros(6, 15)
            robot[1:, 7:14] = action[:-1] / 1.5
            images = torch.zeros(6, 16, 16, 3, dtype=torch.uint8)
            frames = {"rgb_static": images, "rgb_gripper": images, "robot_obs": robot, "scene_obs": torch.zeros(6, 24)}
            writer.add_episode({k: v.numpy() for k, v in {**frames, ACTION: action}.items()}, kind="play")
    return PlayStore.open(tmp_path / "store")


@pytest.fixture
def model() -> WorldModel:
    """A model with an inverse model that is right."""
    model = tiny_model(["inverse_dynamics"])
    loss = model.losses["inverse_dynamics"]
    assert isinstance(loss, InverseDynamics)
    # seven joints, behind position, six numbers of rotation and the gripper's width; nothing is standardised here
    loss.head = Telling(model.shapes.seen + 3 + 6 + 1)  # type: ignore[assignment]
    return model


@pytest.mark.parametrize("trusted", [False, True])
def test_unknown_actions_are_those_that_were_executed_and_the_last_stay_unknown(
    store: PlayStore, model: WorldModel, trusted: bool
) -> None:
    hidden = hide_actions(store, 0.67, seed=0)
    named = label_actions(hidden, model, trusted=trusted)
    for episode in store.episodes:
        span, last = slice(episode.start, episode.stop - 1), episode.stop - 1
        assert torch.allclose(named.frames[ACTION][span], store.frames[ACTION][span], atol=1e-5)
        assert torch.allclose(
            named.frames[PREVIOUS_ACTION][episode.start + 1 : episode.stop], store.frames[ACTION][span], atol=1e-5
        )
        was_known = bool(hidden.frames[ACTION_MASK][last])
        expected = store.frames[ACTION][last] if was_known else torch.tensor(NULL_ACTION)
        assert torch.equal(named.frames[ACTION][last], expected)
        assert torch.equal(named.frames[PREVIOUS_ACTION][episode.start], torch.tensor(NULL_ACTION))
        assert bool(named.frames[ACTION_MASK][span].all()) is (was_known or trusted)
        assert bool(named.frames[ACTION_MASK][last]) is was_known


def test_the_store_with_unknown_actions_stays_as_it_is(store: PlayStore, model: WorldModel) -> None:
    hidden = hide_actions(store, 1.0, seed=0)
    before = hidden.frames[ACTION].clone()
    label_actions(hidden, model)
    assert torch.equal(hidden.frames[ACTION], before)
    assert label_actions(store, model) is store


@pytest.mark.parametrize(
    ("losses", "said"), [(["kl"], r"the losses \['kl'\]"), (["inverse_dynamics,steps=2"], "steps")]
)
def test_a_model_that_cannot_name_actions_is_refused(store: PlayStore, losses: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        label_actions(hide_actions(store, 1.0, seed=0), tiny_model(losses))
