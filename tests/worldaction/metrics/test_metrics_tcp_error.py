"""The hand's error is zero for a model that knows, exactly as large as the mistake for one that is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from metrics_world import CONTEXT, EPISODES, HORIZON, Believer, decoder, noise, oracle, play, rolls
from torch import Tensor

from worldaction.losses.tools.contract import tiny_model
from worldaction.metrics.tcp_error import (
    dead_reckoning,
    decode_proprio,
    decodes_proprio,
    distance,
    spread,
    tcp_error,
    tcp_position,
)
from worldaction.spec import ACTION, CALVIN, METRES_PER_UNIT, ROBOT, Layout
from worldaction.world_model.nets import proprio

BANDS = ("seen", "imagined_8", "imagined_late")


def body(feature: Tensor) -> Tensor:
    """Proprioception [..., 18] of which the first numbers of the feature are the hand's position in m."""
    return torch.nn.functional.pad(feature[..., :3], (0, 15))


def test_a_model_that_knows_the_state_makes_no_error() -> None:
    frames = play()
    found = tcp_error(rolls(frames, oracle(frames), dreams=True))
    assert all(found["probe"][band]["p90"] < 0.1 for band in BANDS)
    assert all(found["dreams"]["probe"][band]["p90"] < 0.1 for band in BANDS)
    assert found["dreams"]["episodes"] == EPISODES // 2


def test_shuffled_latents_are_no_better_than_the_mean() -> None:
    frames = play()
    position = frames[ROBOT][:, :3]
    mean = distance(position[: len(position) // 2].mean(0), position[len(position) // 2 :]).mean()
    found = tcp_error(rolls(frames, noise(frames)))["probe"]
    assert all(found[band]["mean"] > 0.9 * float(mean) for band in BANDS)


def test_a_constant_error_of_the_decoder_is_reported_in_millimetres() -> None:
    frames = play()
    offset = torch.tensor([0.003, 0.0, 0.004])
    believed = frames[ROBOT]
    found = tcp_error(rolls(frames, believed, imagined=believed + 1.0, model=_with(lambda f: body(f) + pad(offset))))
    for key in ("mean", "median", "p90"):
        assert found["decoder"]["seen"][key] == pytest.approx(5.0, rel=1e-3)
    # the imagined hand is a metre off along each axis besides
    wrong = 1000 * float((1 + offset).norm())
    assert found["decoder"]["imagined_8"]["mean"] == pytest.approx(wrong, rel=1e-4)
    assert found["decoder"]["imagined_late"]["mean"] == pytest.approx(wrong, rel=1e-4)


def test_a_wrong_scale_is_caught() -> None:
    frames = play()
    found = tcp_error(rolls(frames, frames[ROBOT], model=_with(lambda f: 1.1 * body(f))))["decoder"]
    late = (torch.arange(EPISODES // 2, EPISODES) * 40)[:, None] + torch.arange(CONTEXT + 8, CONTEXT + HORIZON)
    tenth = 100 * frames[ROBOT][late][..., :3].norm(dim=-1)
    assert found["imagined_late"]["mean"] == pytest.approx(float(tenth.mean()), rel=1e-4)
    assert found["imagined_late"]["mean"] > 1.0


def test_a_hand_that_obeys_at_once_is_where_dead_reckoning_says() -> None:
    frames = play()
    found = tcp_error(rolls(frames, oracle(frames), dreams=True))
    for part in (found, found["dreams"]):
        assert part["dead_reckoning"]["imagined_late"]["p90"] < 1e-2
        assert part["hold"]["imagined_8"]["mean"] < part["hold"]["imagined_late"]["mean"]
        assert "seen" not in part["hold"]


def test_dead_reckoning_adds_up_the_commands() -> None:
    action = torch.zeros(1, 3, 7)
    action[0, :, 0] = torch.tensor([1.0, 0.5, -1.0])
    places = dead_reckoning(torch.tensor([[0.1, 0.2, 0.3]]), action)
    expected = 0.1 + METRES_PER_UNIT * torch.tensor([1.0, 1.5, 0.5])
    assert torch.allclose(places[0, :, 0], expected)
    assert torch.allclose(places[0, :, 1:], torch.tensor([0.2, 0.3]).expand(3, 2))


def test_the_models_own_decoder_is_read_in_metres() -> None:
    model = tiny_model(["reconstruction"], cameras=())
    model.standardise(play()[ROBOT] * 3 + 1)
    feature = torch.randn(4, 5, model.feature_size)
    loss = model.each_loss()["reconstruction"]
    by_hand = loss.proprio_net(feature) * model.proprio_std + model.proprio_mean  # type: ignore[operator]
    assert torch.allclose(decode_proprio(model, feature), by_hand)
    # what the decoder is trained to give, decoded, is what was recorded
    recorded = play()[ROBOT]
    target = model.with_targets(play()[None])["target", ROBOT][0]
    assert torch.allclose(target * model.proprio_std + model.proprio_mean, proprio(recorded), atol=1e-4)


def test_a_decoder_that_was_not_trained_is_not_read() -> None:
    assert decodes_proprio(tiny_model(["reconstruction=1,proprio=5"]))
    assert not decodes_proprio(tiny_model(["reconstruction=1,proprio=0"]))
    assert not decodes_proprio(tiny_model([]))
    frames = play()
    believer = Believer(losses=decoder(body, weight=0.0))
    assert "decoder" not in tcp_error(rolls(frames, oracle(frames), model=believer))


@pytest.mark.parametrize(
    "layout", [replace(CALVIN, robot=7), replace(CALVIN, euler=None), Layout(("front",), 3, 1, 7, (0.0,) * 7)]
)
def test_a_layout_that_does_not_say_where_the_hand_is_is_skipped_with_a_reason(layout: Layout) -> None:
    assert tcp_position(CALVIN) == slice(0, 3)
    assert tcp_position(layout) is None
    frames = play()
    assert "robot_obs" in tcp_error(rolls(frames, oracle(frames), model=Believer(layout)))["skipped"]


def test_spread_of_numbers_that_are_known() -> None:
    assert spread(torch.arange(11.0)) == {"mean": 5.0, "median": 5.0, "p90": 9.0}


def pad(offset: Tensor) -> Tensor:
    return torch.nn.functional.pad(offset, (0, 15))


def _with(function: object) -> Believer:
    return Believer(losses=decoder(function))  # type: ignore[arg-type]


def test_play_of_these_tests_moves_as_it_is_told() -> None:
    frames = play()
    step = frames[ROBOT][1:40, :3] - frames[ROBOT][:39, :3]
    assert torch.allclose(step, METRES_PER_UNIT * frames[ACTION][:39, :3], atol=1e-6)
