"""What holds for every recurrent core, newcomers too: they are found by name, trained and dreamed in alike."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from worldaction.errors import UserError
from worldaction.io.atomic import write_json
from worldaction.losses.tools.contract import noise_batch, tiny_model
from worldaction.random import Stream, uniform
from worldaction.spec import ACTION_SIZE, CALVIN, PREVIOUS_ACTION
from worldaction.world_model.cores.base import RecurrentCore, build_core
from worldaction.world_model.cores.dreamer_v2 import RSSM
from worldaction.world_model.cores.registry import CORES
from worldaction.world_model.cores.torchrl_v3 import TorchRLV3
from worldaction.world_model.latent import Latent, one_hot
from worldaction.world_model.model import WorldModel, total

NAMES = [*sorted(CORES.available()), "torchrl_v3,recurrent=gru"]
PAGE = Path(__file__).parents[3] / "docs" / "python_api.md"
B, T, E = 3, 6, 10
SIZES = {"embed": E, "action": ACTION_SIZE, "deter": 16, "groups": 3, "classes": 5, "hidden": 12, "unimix": 0.01}


def made(name: str) -> RecurrentCore:
    torch.manual_seed(0)
    return build_core(name, **SIZES)


def given(lead: int = 0, seed: int = 1) -> dict[str, Tensor]:
    """Embeddings, actions, beginnings and uniform numbers of three windows, one with two episodes."""
    generator = torch.Generator().manual_seed(seed)
    is_init = torch.zeros(B, T, dtype=torch.bool)
    is_init[:, 0] = is_init[0, 3] = True
    return {
        "embed": torch.randn(B, T, E, generator=generator),
        "previous_action": torch.rand(B, T, ACTION_SIZE, generator=generator) * 2 - 1,
        "is_init": is_init,
        "uniform": torch.rand(B, lead + T, 3, generator=generator).clamp(1e-6, 1 - 1e-6),
    }


def learned(model: WorldModel, batch: TensorDict, steps: int = 25) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    history = []
    for _ in range(steps):
        torch.manual_seed(0)
        loss = total(model.losses_of(batch)[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    return history


def wiggle(latent: Latent, step: int) -> Tensor:
    return torch.tanh(latent.belief[:, :ACTION_SIZE] + 0.1 * step)


# The contract ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_taps_have_their_shapes_and_are_distributions(name: str) -> None:
    taps = made(name).observe(**given(2), burn_in=3)
    assert taps.belief.shape == (B, T, 16)
    assert taps.state.shape == (B, T, 15)
    for probs in (taps.posterior, taps.prior):
        assert probs.shape == (B, T, 3, 5)
        assert torch.allclose(probs.sum(-1), torch.ones(B, T, 3), atol=1e-5)
        # the uniform share is mixed in
        assert float(probs.detach().min()) >= 0.01 / 5 - 1e-6
    assert torch.equal(taps.state.unflatten(-1, (3, 5)).sum(-1), torch.ones(B, T, 3))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("burn_in", [1, 3])
def test_a_window_is_filtered_as_its_frames_are_one_by_one(name: str, burn_in: int) -> None:
    core, values = made(name).requires_grad_(False), given(burn_in - 1)
    taps = core.observe(**values, burn_in=burn_in)
    null = torch.tensor(CALVIN.null_action).expand(B, -1)
    embed, draws = values["embed"], values["uniform"]
    before = [null] * (burn_in - 1) + [values["previous_action"][:, 0]]
    latent = core.first(torch.zeros(B, 16), before[0], embed[:, 0], draws[:, 0])
    for look in range(1, burn_in):
        latent = core.posterior(latent, before[look], embed[:, 0], draws[:, look])
    for frame in range(T):
        if frame:
            latent = core.posterior(
                latent, values["previous_action"][:, frame], embed[:, frame], draws[:, burn_in - 1 + frame]
            )
        # the first window begins anew at frame 3
        rows = slice(1, None) if frame >= 3 else slice(None)
        torch.testing.assert_close(taps.belief[rows, frame], latent.belief[rows])
        assert torch.equal(taps.state[rows, frame], one_hot(latent.code, 5)[rows])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_before_a_beginning_is_remembered(name: str) -> None:
    core, values = made(name), given()
    other = dict(values)
    other["previous_action"] = values["previous_action"].clone()
    other["previous_action"][0, :3] += 1.0
    one, two = (core.observe(**each).belief.detach() for each in (values, other))
    assert not torch.equal(one[0, :3], two[0, :3])
    assert torch.equal(one[0, 3:], two[0, 3:])


@pytest.mark.parametrize("name", NAMES)
def test_from_its_first_imagined_frame_on_a_window_follows_the_prior(name: str) -> None:
    core, values = made(name).requires_grad_(False), given()
    taps = core.observe(**values, open_loop_from=torch.tensor([T, 2, T]))
    seen = core.observe(**values)
    latent = Latent(seen.belief[[1], 1], seen.state[[1], 1].unflatten(-1, (3, 5)).argmax(-1).to(torch.uint8))
    for frame in range(2, T):
        latent = core.prior(latent, values["previous_action"][[1], frame], values["uniform"][[1], frame])
        torch.testing.assert_close(taps.belief[[1], frame], latent.belief)
        assert torch.equal(taps.state[[1], frame], one_hot(latent.code, 5))
    assert torch.equal(taps.state[[0, 2]], seen.state[[0, 2]])


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name: str) -> None:
    core = made(name)
    taps = core.observe(**given(1), burn_in=2)
    (taps.feature.square().sum() + taps.prior.square().sum() + taps.posterior.square().sum()).backward()
    lazy = [key for key, value in core.named_parameters() if value.grad is None or not bool(value.grad.any())]
    assert lazy == []


@pytest.mark.parametrize("name", NAMES)
def test_imagination_does_not_touch_torchs_generator(name: str) -> None:
    core = made(name).requires_grad_(False)
    before = torch.get_rng_state()
    latent = Latent(torch.zeros(B, 16), torch.zeros(B, 3, dtype=torch.uint8))
    core.prior(latent, torch.zeros(B, ACTION_SIZE), torch.full((B, 3), 0.3))
    assert torch.equal(torch.get_rng_state(), before)


# In a world model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_world_model_with_it_learns_dreams_and_comes_back_from_disk(name: str, tmp_path: Path) -> None:
    model = tiny_model(("reconstruction", "kl", "inverse_dynamics"), core=name)
    history = learned(model, noise_batch())
    assert history[-1] < 0.9 * history[0]
    model.requires_grad_(False)
    batch = noise_batch(4)
    frames = {key: batch[key][:, 0] for key in model.config.observed}
    rows = torch.arange(4)
    start = model.start(model.embed(frames), seed=1, rows=rows)
    whole = model.imagine(start, wiggle, 5, seed=2, rows=rows)
    part = model.imagine(start.index(slice(1, 3)), wiggle, 5, seed=2, rows=rows[1:3])
    assert whole["next", "belief"].shape == (4, 5, 32)
    torch.testing.assert_close(whole["next", "belief"][1:3], part["next", "belief"])
    assert torch.equal(whole["next", "code"][1:3], part["next", "code"])
    model.save(tmp_path)
    again = WorldModel.load(tmp_path)
    assert again.config.core == name
    draws = uniform(0, Stream.PRIOR, rows, 0, 4)
    before, after = (one.prior(start, batch[PREVIOUS_ACTION][:, 0], draws) for one in (model, again))
    assert torch.equal(before.belief, after.belief)


def test_a_model_from_before_there_was_a_choice_has_our_core(tmp_path: Path) -> None:
    model = tiny_model()
    model.save(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["core"]
    write_json(tmp_path / "config.json", values)
    again = WorldModel.load(tmp_path)
    assert isinstance(again.rssm, RSSM)
    assert again.config == model.config


# By name --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The core of docs/python_api.md as a file in the working directory."""
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    (tmp_path / "my_core_of_the_page.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "my_core_of_the_page:Mine"
    sys.modules.pop("my_core_of_the_page", None)


def test_a_core_in_one_file_of_the_working_directory_is_trained_by_name(in_a_file: str, tmp_path: Path) -> None:
    model = tiny_model(("kl", "inverse_dynamics"), core=in_a_file)
    assert type(model.rssm).__name__ == "Mine"
    history = learned(model, noise_batch())
    assert history[-1] < history[0]
    assert bool(model.filter(model.with_targets(noise_batch())).belief.isfinite().all())


def test_loading_does_not_import_a_core_that_the_file_names(in_a_file: str, tmp_path: Path) -> None:
    tiny_model(core=in_a_file).save(tmp_path / "model")
    del sys.modules["my_core_of_the_page"]
    with pytest.raises(UserError, match="import 'my_core_of_the_page' first"):
        WorldModel.load(tmp_path / "model")
    assert "my_core_of_the_page" not in sys.modules
    again = WorldModel.load(tmp_path / "model", core=in_a_file)
    assert type(again.rssm).__name__ == "Mine"
    # now that the caller has imported it
    WorldModel.load(tmp_path / "model")


def test_unknown_cores_and_options_are_answered_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match="torchrl_v3"):
        tiny_model(core="torchrl_v4")
    with pytest.raises(UserError, match="recurrent"):
        tiny_model(core="torchrl_v3,recurent=gru")
    with pytest.raises(UserError, match="do not divide"):
        tiny_model(core="torchrl_v3,blocks=7")


def test_torchrls_core_is_torchrls_networks() -> None:
    """Logits and belief are what RSSMPriorV3 gives for the same state, and nothing is added."""
    core = made("torchrl_v3")
    assert isinstance(core, TorchRLV3)
    state, belief = one_hot(torch.tensor([[0, 1, 2]] * B), 5), torch.randn(B, 16)
    action, embed = torch.randn(B, ACTION_SIZE), torch.randn(B, E)
    logits, _, after = core.prior_net(state, belief, action)
    found, expected = core.predict(belief, state, action)
    assert torch.equal(found, after)
    assert torch.equal(expected, logits)
    assert torch.equal(core.correct(belief, embed), core.posterior_net(belief, embed)[0])
    assert {type(core.prior_net).__module__.partition(".")[0]} == {"torchrl"}
