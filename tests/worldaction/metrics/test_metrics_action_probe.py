"""Actions are read where they can be, not where they cannot, and a probe that was told the answer is found out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from metrics_world import EPISODES, LENGTH, play
from tensordict import TensorDict
from torch import Tensor

from worldaction.losses.tools.contract import noise_batch, tiny_model
from worldaction.metrics.action_probe import (
    Probe,
    action_error,
    action_groups,
    action_probe,
    embed_pictures,
    falsified,
    leak,
    leaks,
    mlp_probe,
    pairs,
    ridge_probe,
)
from worldaction.metrics.open_loop import Rolls, open_loop
from worldaction.spec import ACTION, CALVIN, EPISODE, IS_INIT, PREVIOUS_ACTION, ROBOT, SCENE, STATIC, Layout
from worldaction.world_model.model import WorldModel

GROUPS = action_groups(CALVIN)
FITTED, READ = slice(0, EPISODES // 2), slice(EPISODES // 2, None)


def episodes() -> tuple[Tensor, Tensor]:
    """Positions of hands that obey at once [M, T, 3], and their actions [M, T, 7]."""
    frames = play()
    return tuple(frames[key].unflatten(0, (EPISODES, LENGTH)) for key in (ROBOT, ACTION))  # type: ignore[return-value]


def relative(probe: Probe, pair: Tensor, action: Tensor) -> float:
    """Error of the translation, 1 for guessing the mean."""
    mean = torch.zeros(7)
    return action_error(probe(pair), action, mean, GROUPS)["translation"]["relative"]


@pytest.mark.parametrize("kind", ["ridge", "mlp"])
def test_what_two_frames_show_is_read_and_what_they_do_not_is_not(kind: str) -> None:
    robot, action = episodes()
    # by a network less well than by the right, linear form
    most = {"ridge": 0.01, "mlp": 0.35}[kind]
    for frames, low, high in ((robot[..., :3], 0.0, most), (torch.randn_like(robot[..., :3]), 0.9, 1.5)):
        seen, told = pairs(frames), action[:, :-1]
        fitted = seen[FITTED].flatten(0, 1), told[FITTED].flatten(0, 1)
        probe = ridge_probe(*fitted, penalty=0.1) if kind == "ridge" else mlp_probe(*fitted, seed=0)
        assert low <= relative(probe, seen[READ], told[READ]) <= high


def test_a_wrong_scale_is_caught() -> None:
    robot, action = episodes()
    seen, told = pairs(robot[..., :3]), action[:, :-1]
    probe = ridge_probe(seen[FITTED].flatten(0, 1), told[FITTED].flatten(0, 1))
    assert relative(probe, 2.0 * seen[READ], told[READ]) > 0.5


def test_pairs_are_the_first_and_the_change() -> None:
    sequence = torch.tensor([[[1.0], [3.0], [2.0]]])
    assert pairs(sequence).tolist() == [[[1.0, 2.0], [3.0, -1.0]]]


def test_a_number_that_never_varied_is_not_looked_at() -> None:
    pair = torch.randn(50, 4)
    pair[:, 2] = 7.0
    probe = ridge_probe(pair, pair[:, :1])
    other = pair.clone()
    other[:, 2] = 1e6
    assert torch.equal(probe(other), probe(pair))


def test_the_same_seed_gives_the_same_network_and_leaves_torchs_generator_alone() -> None:
    pair, action = torch.randn(100, 6), torch.randn(100, 7)
    before = torch.random.get_rng_state()
    probes = [mlp_probe(pair, action, steps=5, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(probes[0](pair), probes[1](pair))
    assert not torch.equal(probes[0](pair), probes[2](pair))


def test_errors_are_by_group_and_relative_to_the_mean() -> None:
    true = torch.zeros(4, 7)
    true[:, 6] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    true[:, 0] = 0.3
    predicted = torch.zeros(4, 7)
    found = action_error(predicted, true, torch.zeros(7), GROUPS)
    assert found["translation"]["mae"] == pytest.approx(0.1)
    assert found["translation"]["relative"] == pytest.approx(1.0)
    assert found["gripper"] == {"mae": 1.0, "relative": 1.0}
    assert found["rotation"]["mae"] == 0.0
    assert action_error(true, true, torch.zeros(7), GROUPS)["gripper"]["relative"] == 0.0


def test_groups_come_from_the_layout() -> None:
    assert sorted(number for group in GROUPS.values() for number in group) == list(range(7))
    assert action_groups(Layout((), 3, 0, 4, (0.0,) * 4)) == {"continuous": [0, 1, 2, 3]}
    assert action_groups(Layout((), 3, 0, 3, (0.0,) * 3, binary=(1,))) == {"continuous": [0, 2], "binary": [1]}


# Leaks ----------------------------------------------------------------------------------------------------------------


def test_the_slope_is_one_for_who_repeats_what_was_told_and_zero_for_who_looks() -> None:
    action, other = torch.randn(2, 30, 7).unbind()
    told = leak(action, other, action, other, GROUPS)
    assert all(slope == pytest.approx(1.0) for slope in told.values())
    assert leaks(told)
    looked = leak(action, action, action, other, GROUPS)
    assert all(slope == 0.0 for slope in looked.values())
    assert not leaks(looked)
    half = leak(action, action + 0.3 * (other - action), action, other, GROUPS)
    assert half["rotation"] == pytest.approx(0.3, abs=1e-5)


def noisy(model: WorldModel) -> tuple[TensorDict, Rolls]:
    """Play in which pictures say nothing of actions: a probe that reads them was told."""
    windows, length = 60, 14
    frames = noise_batch(windows, length, seed=3).flatten()
    frames[IS_INIT] = torch.arange(len(frames)) % length == 0
    frames[EPISODE] = torch.arange(len(frames)) // length
    frames[PREVIOUS_ACTION] = frames[ACTION].roll(1, 0)
    frames[SCENE] = torch.randn(len(frames), 24, generator=torch.Generator().manual_seed(0))
    starts = torch.arange(0, len(frames), length)
    rolled = [open_loop(model, frames, part, context=4, horizon=10, seed=0) for part in starts.chunk(2)]
    return frames, Rolls(model, frames, rolled[0], rolled[1])


@pytest.fixture(scope="module")
def told() -> dict[str, object]:
    """The probe on an untrained model that sees noise."""
    model = tiny_model(["reconstruction"], deter=64, hidden=64).requires_grad_(False)
    _, seen = noisy(model)
    return action_probe(seen, steps=20, seed=0)


def test_a_head_on_recurrent_latents_reads_noise_and_is_flagged(told: dict) -> None:
    latents = told["latents"]
    assert latents["ridge"]["seen"]["translation"]["relative"] < 0.6
    assert "latents" in told["leaks"]
    assert min(latents["leak"].values()) > 0.5


def test_a_head_on_the_pictures_is_at_chance_and_is_not(told: dict) -> None:
    assert told["recorded_pictures"]["ridge"]["seen"]["translation"]["relative"] > 0.9
    assert not {"recorded", "recorded_pictures"} & set(told["leaks"])


def test_every_source_has_every_band_and_group(told: dict) -> None:
    assert told.keys() == {"latents", "proprio", "pictures", "recorded_pictures", "recorded", "leaks"}
    for source in ("latents", "proprio", "pictures"):
        for probe in ("ridge", "mlp"):
            assert told[source][probe].keys() == {"seen", "imagined_8", "imagined_late"}
            assert told[source][probe]["imagined_8"].keys() == GROUPS.keys()
        assert told[source]["leak"].keys() == GROUPS.keys()


def test_the_false_action_is_another_frames_and_all_else_is_the_same() -> None:
    model = tiny_model().requires_grad_(False)
    frames, seen = noisy(model)
    false = falsified(model, frames, seen.validation, windows=5, seed=0)
    assert false.action.shape == (5 * 10, 7)
    assert torch.equal(false.action.sort(0).values, false.other.sort(0).values)
    assert not torch.equal(false.action, false.other)
    same = (false.action == false.other).all(-1)
    assert torch.equal(false.after[same], false.false[same])
    # the belief was told, and so it differs
    assert ((false.after - false.false)[~same, : model.config.deter].abs().amax(-1) > 0).all()
    where = seen.validation.episodes.frame[:5, 3:-1].flatten()
    assert torch.equal(false.action, frames[ACTION][where])


def test_what_pictures_say_does_not_depend_on_the_proprioception() -> None:
    model = tiny_model().requires_grad_(False)
    batch = noise_batch(2, 3)
    pictures = {camera: batch[camera] for camera in model.config.cameras}
    alone = embed_pictures(model, pictures)
    assert torch.allclose(alone, model.embed(batch)[..., : alone.shape[-1]], atol=1e-6)
    assert alone.shape == (2, 3, model.encoder.size - model.config.layout.proprio)
    dark = embed_pictures(model, pictures | {STATIC: torch.zeros_like(batch[STATIC])})
    assert not torch.allclose(alone, dark)


def test_a_model_without_cameras_is_asked_for_its_proprioception() -> None:
    layout = replace(CALVIN, cameras=())
    model = tiny_model(["reconstruction"], cameras=(), layout=layout).requires_grad_(False)
    _, seen = noisy(model)
    assert action_probe(seen, steps=20, seed=0).keys() == {"latents", "proprio", "recorded", "leaks"}
