"""The world model: what it refuses, what it returns, that it comes back from disk, and that batches do not matter."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from worldaction.errors import UserError
from worldaction.io.atomic import WEIGHTS, load_tensors, save_tensors, write_json
from worldaction.losses.tools.contract import noise_batch, tiny_model
from worldaction.random import Stream, uniform
from worldaction.spec import (
    ACTION,
    ACTION_SIZE,
    BELIEF,
    CODE,
    GRIPPER,
    IS_INIT,
    NULL_ACTION,
    PREVIOUS_ACTION,
    ROBOT,
    STATIC,
)
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel, total

LOSSES = ("reconstruction=2,share=0.5", "kl=0.3", "inverse_dynamics=10,hidden=16")


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return tiny_model(LOSSES).requires_grad_(False)


@pytest.fixture(scope="module")
def batch() -> TensorDict:
    return noise_batch()


def observation(batch: TensorDict) -> dict[str, Tensor]:
    """The first frame of each window."""
    return {key: batch[key][:, 0] for key in (STATIC, GRIPPER, ROBOT)}


def wiggle(latent: Latent, step: int) -> Tensor:
    """Some actor: a function of the latent and the step."""
    return torch.tanh(latent.belief[:, :ACTION_SIZE] * 3 + 0.1 * step)


# Seeing ---------------------------------------------------------------------------------------------------------------


def test_embedding_keeps_leading_axes_and_reads_every_input(model: WorldModel, batch: TensorDict) -> None:
    frames = {key: batch[key] for key in (STATIC, GRIPPER, ROBOT)}
    embed = model.embed(frames)
    assert embed.shape == (3, 8, model.encoder.size)
    assert torch.allclose(model.embed({key: value[1, 2] for key, value in frames.items()}), embed[1, 2], atol=1e-6)
    for key in frames:
        assert not torch.allclose(model.embed(frames | {key: torch.zeros_like(frames[key])}), embed)


def test_embedding_and_training_see_the_same(model: WorldModel, batch: TensorDict) -> None:
    taps = model.filter(model.with_targets(batch))
    assert torch.allclose(model.embed({key: batch[key] for key in (STATIC, GRIPPER, ROBOT)}), taps.embed, atol=1e-6)


@pytest.mark.parametrize("key", [STATIC, GRIPPER, ROBOT])
def test_a_missing_input_is_named(model: WorldModel, batch: TensorDict, key: str) -> None:
    seen = observation(batch)
    del seen[key]
    with pytest.raises(UserError, match=f"no '{key}'"):
        model.embed(seen)


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(3, 32, 32, 3, dtype=torch.uint8),
        torch.zeros(3, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(3, 16, 16, 3),
        torch.zeros(3, 16, 16, dtype=torch.uint8),
        torch.zeros(2, 16, 16, 3, dtype=torch.uint8),
    ],
    ids=["too large", "channels first", "float", "no colours", "other batch"],
)
def test_an_image_of_another_kind_is_refused_by_name(model: WorldModel, batch: TensorDict, image: Tensor) -> None:
    with pytest.raises(UserError, match=r"'rgb_gripper' .*uint8 \[3, 16, 16, 3\]"):
        model.embed(observation(batch) | {GRIPPER: image})


def test_robot_numbers_in_double_precision_are_welcome(model: WorldModel, batch: TensorDict) -> None:
    seen = observation(batch)
    assert torch.equal(model.embed(seen | {ROBOT: seen[ROBOT].double()}), model.embed(seen))


def test_standardised_proprioception_has_mean_zero_and_deviation_one() -> None:
    model = tiny_model()
    robot = torch.randn(500, 15, generator=torch.Generator().manual_seed(0)) * 3 + 1
    robot[:, 14] = -1.0  # a gripper that is never opened
    model.standardise(robot)
    batch = noise_batch(1, 500)
    batch[ROBOT] = robot[None]
    target = model.with_targets(batch)["target", ROBOT][0]
    assert target.mean(0).abs().max() < 1e-4
    assert torch.allclose(target[:, :-1].std(0), torch.ones(17), atol=1e-3)
    assert target[:, -1].abs().max() == 0.0


def test_what_never_moved_is_not_blown_up_when_it_moves() -> None:
    model = tiny_model()
    model.standardise(torch.zeros(10, 15))
    moved = torch.zeros(1, 1, 15)
    moved[..., 14] = 0.01
    assert model.with_targets(noise_batch(1, 1).set(ROBOT, moved))["target", ROBOT].abs().max() <= 1.01


# Starting and imagining -----------------------------------------------------------------------------------------------


def test_start_is_the_first_frame_of_training_with_the_same_random_numbers(
    model: WorldModel, batch: TensorDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.tensor([5, 1, 9])
    looks = model.config.burn_in
    drawn = torch.stack([uniform(3, Stream.START, rows, look, model.config.groups) for look in range(looks)], 1)
    after = torch.full((3, batch.batch_size[1] - 1, model.config.groups), 0.5)
    monkeypatch.setattr(torch, "rand", lambda *size, device: torch.cat([drawn, after], 1))
    taps = model.filter(model.with_targets(batch))
    latent = model.start(model.embed(observation(batch)), seed=3, rows=rows)
    assert (batch[PREVIOUS_ACTION][:, 0] == torch.tensor(NULL_ACTION)).all()
    assert torch.allclose(latent.belief, taps.belief[:, 0], atol=1e-5)
    assert torch.allclose(model.feature(latent), taps.feature[:, 0], atol=1e-5)


def test_more_looks_make_another_start(batch: TensorDict) -> None:
    beliefs = []
    for looks in (1, 2, 3):
        model = tiny_model(burn_in=looks).requires_grad_(False)
        beliefs.append(model.start(model.embed(observation(batch)), seed=0, rows=torch.arange(3)).belief)
    assert not torch.allclose(beliefs[0], beliefs[1])
    assert not torch.allclose(beliefs[1], beliefs[2])
    with pytest.raises(UserError, match="burn_in is 0"):
        tiny_model(burn_in=0)


def test_imagination_has_torchrls_layout_as_views_of_one_buffer(model: WorldModel, batch: TensorDict) -> None:
    start = model.start(model.embed(observation(batch)), seed=0, rows=torch.arange(3))
    dream = model.imagine(start, wiggle, 5, seed=0)
    assert dream.batch_size == (3, 5)
    assert dream["next"].batch_size == (3, 5)
    assert dream[ACTION].shape == (3, 5, ACTION_SIZE)
    assert dream[CODE].dtype == torch.uint8
    assert torch.equal(dream[BELIEF][:, 0], start.belief)
    assert torch.equal(dream[CODE][:, 0], start.code)
    for key in (BELIEF, CODE):
        root, following = dream[key], dream["next", key]
        assert torch.equal(root[:, 1:], following[:, :-1])
        assert root.untyped_storage().data_ptr() == following.untyped_storage().data_ptr()
        assert following.data_ptr() == root[:, 1:].data_ptr()


def test_imagination_is_the_prior_under_the_actors_actions(model: WorldModel, batch: TensorDict) -> None:
    latent = model.start(model.embed(observation(batch)), seed=0, rows=torch.arange(3))
    rows = torch.tensor([7, 8, 30])
    dream = model.imagine(latent, wiggle, 4, seed=6, rows=rows)
    for step in range(4):
        action = wiggle(latent, step)
        assert torch.equal(dream[ACTION][:, step], action)
        latent = model.prior(latent, action, uniform(6, Stream.PRIOR, rows, step, model.config.groups))
        assert torch.equal(dream["next", BELIEF][:, step], latent.belief)
        assert torch.equal(dream["next", CODE][:, step], latent.code)


def test_starts_and_dreams_do_not_depend_on_the_batch_split(model: WorldModel) -> None:
    frames = noise_batch(8, 1, seed=3)
    embed, rows = model.embed(observation(frames)), torch.tensor([4, 0, 77, 3, 2, 1, 900, 5])
    together = model.start(embed, seed=1, rows=rows)
    dream = model.imagine(together, wiggle, 6, seed=1, rows=rows)
    for part in (slice(0, 3), slice(3, 4), slice(4, 8)):
        start = model.start(embed[part], seed=1, rows=rows[part])
        alone = model.imagine(start, wiggle, 6, seed=1, rows=rows[part])
        assert torch.equal(start.code, together.code[part])
        assert torch.equal(alone["next", CODE], dream["next", CODE][part])
        assert torch.allclose(alone["next", BELIEF], dream["next", BELIEF][part], atol=1e-5)


def test_another_seed_or_row_is_another_dream(model: WorldModel, batch: TensorDict) -> None:
    start = model.start(model.embed(observation(batch)), seed=0, rows=torch.arange(3))
    base = model.imagine(start, wiggle, 6, seed=0)
    assert torch.equal(base["next", CODE], model.imagine(start, wiggle, 6, seed=0)["next", CODE])
    assert not torch.equal(base["next", CODE], model.imagine(start, wiggle, 6, seed=1)["next", CODE])
    assert not torch.equal(
        base["next", CODE], model.imagine(start, wiggle, 6, seed=0, rows=torch.arange(3) + 3)["next", CODE]
    )


# Drawing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "patch"), [(64, 1), (16, 2), (32, 2), (64, 4)])
def test_decoding_gives_images_of_the_models_size(size: int, patch: int) -> None:
    model = tiny_model(["reconstruction"], image_size=size, patch=patch).requires_grad_(False)
    drawn = model.decode(10 * torch.randn(2, 3, model.feature_size, generator=torch.Generator().manual_seed(0)))
    assert set(drawn) == {STATIC, GRIPPER}
    for picture in drawn.values():
        assert picture.shape == (2, 3, size, size, 3)
        assert picture.dtype == torch.uint8
        assert picture.unique().numel() > 2
    assert model.draws_images()
    assert model.embed(drawn | {ROBOT: torch.zeros(2, 3, 15)}).shape[:2] == (2, 3)


def test_a_model_without_a_decoder_says_so() -> None:
    model = tiny_model(["kl"])
    assert not model.draws_images()
    with pytest.raises(UserError, match="no decoder"):
        model.decode(torch.zeros(1, model.feature_size))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="image size 20 does not fit patch 2"):
        tiny_model(image_size=20)


def test_the_feature_is_belief_and_one_hot(model: WorldModel) -> None:
    latent = Latent(torch.randn(2, 32), torch.tensor([[0, 1, 2, 3], [3, 3, 0, 0]], dtype=torch.uint8))
    feature = model.feature(latent)
    assert feature.shape == (2, model.feature_size)
    assert torch.equal(feature[:, :32], latent.belief)
    assert feature[0, 32:].nonzero().flatten().tolist() == [0, 5, 10, 15]


# Losses ---------------------------------------------------------------------------------------------------------------


def test_terms_are_scaled_once_and_logged_unscaled() -> None:
    model = tiny_model(LOSSES)
    terms, metrics, _ = model.losses_of(noise_batch())
    assert list(terms) == ["reconstruction", "kl", "inverse_dynamics"]
    for name, scale in (("reconstruction", 2.0), ("kl", 0.3), ("inverse_dynamics", 10.0)):
        assert torch.allclose(terms[name], scale * metrics[f"loss/{name}"])
        assert not metrics[f"loss/{name}"].requires_grad
    assert {"metrics/kl/nats", "metrics/reconstruction/pixels"} <= metrics.keys()
    assert torch.equal(total(terms), terms["reconstruction"] + terms["kl"] + terms["inverse_dynamics"])


def test_shares_of_the_gradient_at_the_encoder_sum_to_one() -> None:
    model = tiny_model(LOSSES)
    terms, _, _ = model.losses_of(noise_batch())
    shares = model.shares(terms)
    assert set(shares) == {f"gradient_share/{name}" for name in terms}
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
    assert min(shares.values()) > 0
    doubled = model.shares(terms | {"kl": 2 * terms["kl"]})
    odds = [share["gradient_share/kl"] / share["gradient_share/inverse_dynamics"] for share in (shares, doubled)]
    assert odds[1] == pytest.approx(2 * odds[0].item(), rel=1e-4)
    total(terms).backward()  # the graph is still there


def test_a_loss_that_only_reads_the_proprioception_of_an_embedding_teaches_the_encoder_nothing() -> None:
    model = tiny_model(LOSSES)
    _, _, taps = model.losses_of(noise_batch())
    size = model.shapes.proprio
    images, body = taps.embed[..., :-size].square().sum(), 100 * taps.embed[..., -size:].square().sum()
    assert model.shares({"images": images, "body": body}) == {"gradient_share/images": 1, "gradient_share/body": 0}


def test_a_few_steps_on_one_batch_lower_every_loss() -> None:
    model = tiny_model(["reconstruction", "kl=0.1", "inverse_dynamics=10,hidden=32"])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    batch, history = noise_batch(4, 6), []
    torch.manual_seed(0)
    for _ in range(60):
        terms, metrics, _ = model.losses_of(batch)
        optimizer.zero_grad()
        total(terms).backward()
        optimizer.step()
        history.append({key: float(value) for key, value in metrics.items()})
    for name in ("reconstruction", "inverse_dynamics"):
        assert history[-1][f"loss/{name}"] < 0.9 * history[0][f"loss/{name}"]


# Disk -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path, model: WorldModel) -> Path:
    model.save(tmp_path)
    return tmp_path


def test_a_model_comes_back_from_disk_frozen(saved: Path, model: WorldModel, batch: TensorDict) -> None:
    again = WorldModel.load(saved, losses=tuple(model.losses))
    assert again.config == model.config
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert torch.equal(again.embed(observation(batch)), model.embed(observation(batch)))


def test_only_the_wanted_losses_are_loaded(saved: Path, model: WorldModel) -> None:
    assert list(WorldModel.load(saved, losses=()).losses) == []
    drawer = WorldModel.load(str(saved))
    assert list(drawer.losses) == ["reconstruction"]
    feature = torch.randn(2, model.feature_size)
    assert torch.equal(drawer.decode(feature)[STATIC], model.decode(feature)[STATIC])


@pytest.mark.usefixtures("trap")
def test_loading_a_model_imports_nothing_that_its_file_names(saved: Path) -> None:
    values = json.loads((saved / "config.json").read_text())
    write_json(saved / "config.json", values | {"losses": [*values["losses"], "evil:X=1"]})
    WorldModel.load(saved)
    assert "evil" not in sys.modules


def test_the_scale_of_the_proprioception_is_saved(tmp_path: Path) -> None:
    model = tiny_model()
    model.standardise(torch.randn(50, 15) * 5)
    model.save(tmp_path)
    again = WorldModel.load(tmp_path)
    assert torch.equal(again.proprio_mean, model.proprio_mean)
    assert torch.equal(again.proprio_std, model.proprio_std)


def test_weights_that_do_not_fit_are_refused(saved: Path) -> None:
    weights = load_tensors(saved / "model.safetensors")
    # as models of before have it: nobody noted which weights belong to it
    config = json.loads((saved / "config.json").read_text())
    write_json(saved / "config.json", {name: value for name, value in config.items() if name != WEIGHTS})
    name = "rssm.gates.weight"
    for wrong in ({k: v for k, v in weights.items() if k != name}, weights | {name: torch.zeros(2, 2)}):
        save_tensors(saved / "model.safetensors", wrong)
        with pytest.raises(UserError, match=name):
            WorldModel.load(saved)


@pytest.mark.parametrize("change", [{"deter": None}, {"colour": 1}], ids=["lacks deter", "has colour"])
def test_a_config_of_another_version_is_refused(saved: Path, change: dict[str, Any]) -> None:
    values = json.loads((saved / "config.json").read_text()) | change
    write_json(saved / "config.json", {k: v for k, v in values.items() if v is not None})
    with pytest.raises(UserError, match=next(iter(change))) as raised:
        WorldModel.load(saved)
    assert "config.json" in str(raised.value)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="config"):
        WorldModel.load(tmp_path / "nowhere")


def test_filtering_follows_torchs_seed(model: WorldModel, batch: TensorDict) -> None:
    beliefs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        beliefs.append(model.filter(model.with_targets(batch)).belief)
    assert torch.equal(beliefs[0], beliefs[1])
    assert not torch.equal(beliefs[0], beliefs[2])


def test_targets_are_beside_the_batch_which_stays_as_it_is(model: WorldModel, batch: TensorDict) -> None:
    before = batch.clone()
    frames = model.with_targets(batch)
    assert "target" not in batch.keys()  # noqa: SIM118 - TensorDict has no `in`
    assert all(torch.equal(before[key], batch[key]) for key in before.keys())  # noqa: SIM118
    assert frames["target", STATIC].shape == (3, 8, 3, 16, 16)
    assert frames["target", ROBOT].shape == (3, 8, 18)
    assert torch.equal(frames[IS_INIT], batch[IS_INIT])
    pixel = np.float32(batch[STATIC][0, 0, 2, 3, 1].item() / 255 - 0.5)
    assert frames["target", STATIC][0, 0, 1, 2, 3].item() == pytest.approx(float(pixel), abs=1e-6)
