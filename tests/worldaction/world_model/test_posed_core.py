"""The pose beside (h, z): the same in training, filtering and imagination, and what reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from tests.worldaction.test_api import LOSSES, TINY, make_store
from worldaction.config import TrainingConfig
from worldaction.errors import UserError
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json
from worldaction.losses.tools.contract import noise_batch, tiny_model
from worldaction.metrics.tcp_error import carried_pose, carries_pose
from worldaction.play.store import PlayStore
from worldaction.spec import ACTION_MASK, IS_INIT, PREVIOUS_ACTION, ROBOT, TARGET_GAP
from worldaction.world_model.latent import Latent, Latents, one_hot
from worldaction.world_model.model import ModelConfig, WorldModel, restore
from worldaction.world_model.posed_core import FREQUENCIES, PosedCore, told_of, waves
from worldaction.world_model.train import Training, train

B, T = 3, 8


def posed(**sizes: Any) -> tuple[WorldModel, PosedCore]:
    """A tiny model whose law says something, and its core."""
    model = tiny_model(pose="servo", **sizes)
    core = model.rssm
    assert isinstance(core, PosedCore)
    generator = torch.Generator().manual_seed(3)
    pose = core.pose
    pose.share.copy_(torch.rand(core.proprio, generator=generator))
    pose.regain.fill_(-0.5)
    pose.moved.copy_(torch.randn(pose.moved.shape, generator=generator) / 5)
    return model, core


@pytest.fixture(name="batch")
def frames() -> TensorDict:
    """Windows that each lie in one episode."""
    batch = noise_batch(B, T)
    batch[IS_INIT] = torch.zeros(B, T, dtype=torch.bool)
    batch[IS_INIT][:, 0] = True
    batch[PREVIOUS_ACTION][:, 0] = torch.tensor([0.0] * 6 + [1.0])
    return batch


def test_waves_of_nothing_are_nothing_and_a_centimetre_is_seen_in_them() -> None:
    frequencies = torch.tensor(FREQUENCIES)
    assert not waves(torch.zeros(2, 3), frequencies).any()
    assert waves(torch.zeros(2, 3), frequencies).shape[-1] + 2 * 3 == told_of(3)
    # a centimetre of 16 is .06 standard deviations
    x = torch.linspace(-2, 2, 41)[:, None]
    assert ((waves(x + 0.06, frequencies) - waves(x, frequencies)).norm(dim=-1) > 0.5).all()
    # each is its own closed form
    frequency = FREQUENCIES[1]
    assert waves(x, frequencies)[:, 1] == pytest.approx((frequency * x[:, 0]).sin())
    assert waves(x, frequencies)[:, len(FREQUENCIES) + 1] == pytest.approx((frequency * x[:, 0]).cos() - 1)


def test_a_model_of_before_the_waves_is_refused_with_the_remedy() -> None:
    model, _ = posed()
    weights = {key: value for key, value in model.state_dict().items() if "frequencies" not in key}
    with pytest.raises(UserError, match=r"lacks 'rssm\.frequencies'.*train it again"):
        restore(model, weights, source=Path("model.safetensors"))


def observe(model: WorldModel, batch: TensorDict, *, open_loop_from: int | None = None) -> tuple[Latents, Tensor]:
    """The filter of training over a batch, and the uniforms that it was given."""
    targets = model.with_targets(batch)
    images = {camera: targets["target", camera].flatten(0, 1) for camera in model.config.cameras}
    embed = model.encoder(images, targets["target", ROBOT].flatten(0, 1)).unflatten(0, (B, T))
    lead = model.config.burn_in - 1
    draws = torch.rand(B, lead + T, model.config.groups, generator=torch.Generator().manual_seed(4)).clamp(
        1e-6, 1 - 1e-6
    )
    first = None if open_loop_from is None else torch.full((B,), open_loop_from)
    found = model.rssm.observe(
        embed, batch[PREVIOUS_ACTION], batch[IS_INIT], draws, burn_in=lead + 1, open_loop_from=first
    )
    return found, draws


def step_by_step(model: WorldModel, embed: Tensor, previous: Tensor, draws: Tensor, *, until: int) -> list[Latent]:
    """What filtering one frame after the other gives, with the prior from frame `until` on."""
    core, lead = model.rssm, model.config.burn_in - 1
    null = core.null_action.expand(B, -1)
    latent = core.first(embed.new_zeros(B, core.deter), null, embed[:, 0], draws[:, 0])
    for look in range(1, lead + 1):
        latent = core.again(latent, embed[:, 0], draws[:, look])
    found = [latent]
    for frame in range(1, T):
        uniform = draws[:, lead + frame]
        if frame < until:
            latent = core.posterior(latent, previous[:, frame], embed[:, frame], uniform)
        else:
            latent = core.prior(latent, previous[:, frame], uniform)
        found.append(latent)
    return found


@pytest.mark.parametrize("core", ["dreamer_v2", "torchrl_v3"])
@pytest.mark.parametrize("until", [T, 4], ids=["all seen", "imagined from the fifth frame on"])
@torch.no_grad()
def test_training_sees_what_filtering_and_imagining_frame_by_frame_see(
    batch: TensorDict, core: str, until: int
) -> None:
    model, _ = posed(core=core)
    found, draws = observe(model, batch, open_loop_from=None if until == T else until)
    single = step_by_step(model, found.embed, batch[PREVIOUS_ACTION], draws, until=until)
    for frame, latent in enumerate(single):
        assert torch.allclose(found.belief[:, frame], latent.belief, atol=1e-5), frame
        assert torch.equal(found.state[:, frame], one_hot(latent.code, model.config.classes)), frame


@torch.no_grad()
def test_the_pose_that_is_carried_is_the_robot_s_where_it_is_seen(batch: TensorDict) -> None:
    model, core = posed()
    found, _ = observe(model, batch)
    pose = core.parts(found.belief)[1]
    assert torch.equal(pose[..., : core.proprio], model.with_targets(batch)["target", ROBOT])
    assert bool((pose[:, 0, core.proprio :] == 0).all())


@torch.no_grad()
def test_measurements_read_the_carried_pose_in_its_own_units(batch: TensorDict) -> None:
    model, _ = posed()
    model.standardise(batch[ROBOT].flatten(0, 1))
    latents = model.filter(model.with_targets(batch))
    found = carried_pose(model, latents.feature)
    assert carries_pose(model)
    assert not carries_pose(tiny_model())
    assert torch.allclose(found[..., :3], batch[ROBOT][..., :3], atol=1e-5)


@torch.no_grad()
def test_a_given_gap_is_taken_for_what_it_is(batch: TensorDict) -> None:
    model, core = posed()
    gap = torch.randn(B, T, core.proprio)
    latents = model.filter(model.with_targets(batch.clone().set(TARGET_GAP, gap)))
    assert torch.equal(core.parts(latents.belief)[1][..., core.proprio :], gap)


@torch.no_grad()
def test_the_belief_knows_the_pose_of_the_frame_before(batch: TensorDict) -> None:
    model, core = posed()
    found, draws = observe(model, batch)
    moved = batch.clone()
    moved[ROBOT][:, 3] += 0.5
    embed = found.embed.clone()
    embed[:, 3, -core.proprio :] += 0.5
    options = {"burn_in": model.config.burn_in, "gap": core.parts(found.belief)[1][..., core.proprio :]}
    other = core.observe(embed, batch[PREVIOUS_ACTION], batch[IS_INIT], draws, **options)
    h, there = core.parts(found.belief)[0], core.parts(other.belief)[0]
    assert torch.equal(h[:, :4], there[:, :4])
    assert bool(((h[:, 4] - there[:, 4]).abs().amax(-1) > 1e-4).all())


def test_the_error_of_the_poses_teaches_the_network_beside_the_law_and_what_it_reads(batch: TensorDict) -> None:
    model, core = posed()
    terms, figures, _ = model.losses_of(batch)
    assert float(figures["loss/pose"]) > 0
    for parameter in core.pose.besides[-1].parameters():
        torch.nn.init.normal_(parameter)
    terms, *_ = model.losses_of(batch)
    terms["pose"].backward()
    for network in (core.pose.besides[0], core.inner):
        assert any(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())


def test_poses_across_the_border_of_an_episode_and_after_unknown_actions_do_not_count(batch: TensorDict) -> None:
    model, core = posed()
    targets = model.with_targets(batch)
    latents = model.filter(targets)
    told = core.pose_error(latents, targets, None)
    hidden = targets.clone().set(ACTION_MASK, torch.ones(B, T, dtype=torch.bool))
    assert torch.equal(core.pose_error(latents, hidden, None), told)
    hidden[ACTION_MASK][:] = False
    assert core.pose_error(latents, hidden, None).item() == 0
    # all but the last action unknown: what is predicted begins with an unknown one, and none of it counts
    hidden[ACTION_MASK][:, -2] = True
    assert core.pose_error(latents, hidden, None).item() == 0
    begun = targets.clone()
    begun[IS_INIT] = torch.ones(B, T, dtype=torch.bool)
    assert core.pose_error(latents, begun, None).item() == 0


@torch.no_grad()
def test_features_end_nowhere_where_the_pose_is_and_at_1_elsewhere() -> None:
    model, core = posed()
    limits = model.feature_limits()
    assert len(limits) == model.feature_size == core.deter + model.config.groups * model.config.classes
    assert int(limits.isinf().sum()) == 2 * core.proprio
    assert bool((tiny_model().feature_limits() == 1).all())


# In a training -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="store")
def play(tmp_path_factory: pytest.TempPathFactory) -> PlayStore:
    return make_store(tmp_path_factory.mktemp("posed") / "play")


BRIEF = TrainingConfig(steps=4, batch=2, length=8, open_loop=0.5)


def config(store: PlayStore, **changes: Any) -> ModelConfig:
    return ModelConfig.of(store, **{"losses": LOSSES, **TINY, **changes})


def test_a_training_fits_the_law_and_gives_windows_their_gaps(store: PlayStore) -> None:
    training = Training(store, config(store, pose="servo"), BRIEF, seed=0, device="cpu")
    core = training.model.rssm
    assert isinstance(core, PosedCore)
    assert bool((core.pose.share > 0).all())
    batch = training.windows.sample()
    assert batch[TARGET_GAP].shape == (2, 8, core.proprio)
    assert bool((batch[TARGET_GAP][~batch[IS_INIT]] != 0).any())


def test_a_trained_model_comes_back_with_its_law(store: PlayStore, tmp_path: Path) -> None:
    figures: dict[str, float] = {}
    model = train(
        store, config(store, pose="servo"), BRIEF, seed=0, device="cpu", report=lambda _, f: figures.update(f)
    )
    assert figures["loss/pose"] >= 0
    model.save(tmp_path / "model")
    again = WorldModel.load(tmp_path / "model")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())
    assert isinstance(again.rssm, PosedCore)


def test_a_model_of_before_has_no_pose(store: PlayStore, tmp_path: Path) -> None:
    model = WorldModel(config(store))
    model.save(tmp_path / "model")
    values = read_json(tmp_path / "model" / "config.json")
    del values["pose"]
    write_json(tmp_path / "model" / "config.json", values)
    assert not isinstance(WorldModel.load(tmp_path / "model").rssm, PosedCore)
