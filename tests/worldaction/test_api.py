"""The public interface: the ten lines of docs/python_api.md run, and what is promised can be imported, cheaply."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensordict import TensorDict

import worldaction
from tests.support.foreign_sets import write_v30
from worldaction import (
    Latent,
    LossOutput,
    ModelConfig,
    PlayStore,
    StoreWriter,
    TrainingConfig,
    UserError,
    WorldModel,
    filmstrip,
    imagine,
    latents_of,
    load,
    open_play,
    train,
)
from worldaction.spec import ACTION, BELIEF, CALVIN, CODE, NULL_ACTION

PAGE = Path(__file__).parents[2] / "docs" / "python_api.md"
TINY: dict[str, Any] = {"deter": 16, "groups": 4, "classes": 4, "hidden": 16, "embed": 16, "depth": 4, "patch": 2}
LOSSES = ("reconstruction", "kl", "inverse_dynamics")


def make_store(path: Path, *, frames: int = 40, side: int = 16, count: int = 3) -> PlayStore:
    """Episodes of noise; the third is held out."""
    random = np.random.default_rng(0)
    with StoreWriter(path, image_size=side, source="noise", renderer="none", seed=0) as writer:
        for number in range(count):
            arrays = {c: random.integers(0, 256, (frames, side, side, 3), dtype=np.uint8) for c in CALVIN.cameras}
            arrays |= {k: random.uniform(-1, 1, (frames, n)).astype(np.float32) for k, n in CALVIN.vectors.items()}
            writer.begin_episode(kind="play", split="validation" if number == 2 else "training")
            writer.append(arrays)
            writer.end_episode()
    return PlayStore.open(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PlayStore:
    return make_store(tmp_path_factory.mktemp("api") / "play")


@pytest.fixture(scope="module")
def model(store: PlayStore) -> WorldModel:
    config = ModelConfig.of(store, losses=LOSSES, **TINY)
    return train(store, config, TrainingConfig(steps=3, batch=2, length=8), device="cpu")


def test_the_ten_lines_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "play", side=32)
    lines = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    # the sizes of the page are for two cores and minutes
    small = lines.replace("steps=2000, batch=16", "steps=2, batch=2").replace("deter=256", "deter=16")
    assert small.count("steps=2,") == small.count("deter=16") == 1
    assert len([line for line in lines.splitlines() if line]) <= 10
    scope: dict[str, Any] = {}
    exec(small, scope)
    assert scope["dream"].batch_size == (4, 20)
    with Image.open("dream.png") as picture:
        assert picture.width > 8 * 16
    assert load("model", device="cpu").draws_images()


def test_what_is_promised_can_be_imported_and_nothing_else() -> None:
    for name in worldaction.__all__:
        assert getattr(worldaction, name).__doc__
        assert name in dir(worldaction)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        worldaction.nothing_of_the_kind  # noqa: B018 - looked up to fail


def test_importing_the_package_imports_no_torch() -> None:
    script = "import sys, worldaction; worldaction.UserError; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Data -----------------------------------------------------------------------------------------------------------------


def test_a_store_says_what_it_holds(store: PlayStore) -> None:
    text = repr(store)
    for words in ("120 frames from noise", "3 play", "2 training, 1 validation", "rgb_static, rgb_gripper", "16 x 16"):
        assert words in text
    assert "action [7]" in text


def test_another_format_is_converted_once(tmp_path: Path) -> None:
    write_v30(tmp_path / "set")
    first = open_play(str(tmp_path / "set"), image_size=8, cache=str(tmp_path / "cache"))
    written = (first.path / "store.json").stat().st_mtime_ns
    assert first.path.parent == tmp_path / "cache"
    assert {episode.split for episode in first.episodes} == {"training", "validation"}
    again = open_play(tmp_path / "set", image_size=8, cache=tmp_path / "cache")
    assert again.path == first.path
    assert (again.path / "store.json").stat().st_mtime_ns == written
    beside = open_play(tmp_path / "set", image_size=8)
    assert beside.path.parent == tmp_path
    assert torch.equal(beside.frames[ACTION], first.frames[ACTION])


def test_what_nobody_says_of_attempts_may_be_said_when_play_is_opened(tmp_path: Path) -> None:
    write_v30(tmp_path / "set")
    unknown = open_play(tmp_path / "set", image_size=8)
    known = open_play(tmp_path / "set", image_size=8, unknown="success")
    assert unknown.path != known.path
    assert {segment.success for segment in unknown.segments} == {None}
    assert {segment.success for segment in known.segments} == {True}
    # of a store, too
    again = open_play(unknown.path, image_size=8, unknown="failure")
    assert {segment.success for segment in again.segments} == {False}


def test_nothing_at_a_path_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        open_play(tmp_path / "nowhere")


# Models ---------------------------------------------------------------------------------------------------------------


def test_a_configuration_takes_from_a_store_what_its_frames_are(store: PlayStore) -> None:
    config = ModelConfig.of(store, cameras=("rgb_static",), deter=32)
    assert (config.image_size, config.layout, config.cameras, config.deter) == (16, CALVIN, ("rgb_static",), 32)
    with pytest.raises(UserError, match="detr"):
        ModelConfig.of(store, detr=32)
    with pytest.raises(UserError, match="rgb_wrist"):
        ModelConfig.of(store, cameras=("rgb_wrist",))


def test_a_model_can_be_built_from_defaults_and_says_what_it_is() -> None:
    config = ModelConfig(image_size=16, losses=("kl",), **TINY)
    text = repr(WorldModel(config))
    for words in ("million parameters on cpu", "belief [16], code 4 x 4; feature [32]", "dreamer_v2", "losses    kl"):
        assert words in text
    assert "belief [16]" in repr(config)


def test_a_trained_model_is_frozen_and_comes_back_with_its_decoder(model: WorldModel, tmp_path: Path) -> None:
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    model.save(str(tmp_path / "model"))
    again = load(str(tmp_path / "model"), device="cpu")
    feature = torch.randn(2, model.feature_size)
    assert torch.equal(again.decode(feature)["rgb_static"], model.decode(feature)["rgb_static"])


# Imagination ----------------------------------------------------------------------------------------------------------


def test_recorded_windows_are_imagined_under_the_actions_that_were_taken(model: WorldModel, store: PlayStore) -> None:
    dream = imagine(model, store, windows=3, context=4, horizon=6)
    assert dream.batch_size == (3, 6)
    assert dream[BELIEF].shape == (3, 6, 16)
    assert dream[CODE].dtype == torch.uint8
    frame = dream["frame"]
    assert torch.equal(dream[ACTION], store.frames[ACTION][(frame - 1).flatten()].view(3, 6, 7))
    held_out = next(episode for episode in store.episodes if episode.split == "validation")
    assert bool(((frame >= held_out.start + 4) & (frame < held_out.stop)).all())


def test_other_actions_lead_elsewhere_and_a_row_does_not_depend_on_the_others(
    model: WorldModel, store: PlayStore
) -> None:
    dream = imagine(model, store, windows=3, context=4, horizon=6)
    still = imagine(model, store, torch.tensor(NULL_ACTION).expand(3, 6, 7), windows=3, context=4)
    assert not torch.equal(still[BELIEF], dream[BELIEF])
    start = latents_of(dream)
    begun = Latent(start.belief[:, 0], start.code[:, 0])
    whole = imagine(model, begun, dream[ACTION])
    part = imagine(model, begun.index(slice(2)), dream[ACTION][:2])
    assert torch.equal(whole[BELIEF][:2], part[BELIEF])
    assert torch.equal(whole[CODE][:2], part[CODE])


def test_latents_without_actions_or_with_odd_ones_are_refused(model: WorldModel) -> None:
    latent = Latent(torch.zeros(2, 16), torch.zeros(2, 4, dtype=torch.uint8))
    with pytest.raises(UserError, match="give actions"):
        imagine(model, latent)
    with pytest.raises(UserError, match=r"\[2, 3\]; give \[2, H, 7\]"):
        imagine(model, latent, torch.zeros(2, 3))


def test_a_split_without_episodes_is_said(model: WorldModel, tmp_path: Path) -> None:
    alone = make_store(tmp_path / "play", count=1)
    with pytest.raises(UserError, match=r"no validation episodes; its splits are \['training'\]"):
        imagine(model, alone)
    assert imagine(model, alone, split="training").batch_size == (4, 20)


def test_a_film_strip_has_the_true_frames_above_the_imagined_ones(model: WorldModel, store: PlayStore) -> None:
    dream = imagine(model, store, windows=2, context=4, horizon=6)
    both, alone = filmstrip(model, dream, store, columns=3), filmstrip(model, dream, columns=3)
    assert both.width == alone.width
    assert both.height > 1.9 * alone.height
    pixels = np.asarray(both)
    true = store.frames["rgb_static"][dream["frame"][0, 0]].numpy()
    # enlarged six times, below a caption and a gap
    assert np.array_equal(pixels[6 + 20 : 6 + 20 + 96 : 6, 6 : 6 + 96 : 6], true)


def test_a_film_strip_of_what_cannot_be_drawn_is_refused(model: WorldModel, store: PlayStore) -> None:
    dream = imagine(model, store, windows=1, context=4, horizon=2)
    with pytest.raises(UserError, match="rgb_wrist"):
        filmstrip(model, dream, camera="rgb_wrist")
    with pytest.raises(UserError, match="no true frames"):
        filmstrip(model, TensorDict({BELIEF: dream[BELIEF], CODE: dream[CODE]}, [1, 2]), store)


def test_a_loss_is_written_with_what_the_package_offers() -> None:
    assert LossOutput(torch.ones(2, 3)).mean() == 1
