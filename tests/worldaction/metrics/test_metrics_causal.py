"""A model that looks at the scene is told from one that looks past it, and from one that is blind."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from metrics_world import Believer, oracle, play, rolls
from tensordict import TensorDict
from torch import Tensor

from worldaction.losses.tools.contract import noise_batch, tiny_model
from worldaction.metrics.causal import (
    causal_sensitivity,
    first_look,
    patches,
    rank_correlation,
    shifted,
    shown,
)
from worldaction.spec import CALVIN, SCENE, STATIC


def test_every_pixel_is_in_one_patch_and_patches_go_row_by_row() -> None:
    for side, grid in ((16, 8), (20, 8), (5, 2)):
        assert patches(side, grid).sum(0).eq(1).all()
    assert patches(16, 8)[9, 2:4, 2:4].all()
    assert patches(16, 8)[9].sum() == 4


def test_every_patch_is_shifted_alike_and_stays_in_range() -> None:
    image = torch.randint(256, (3, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    copies = shifted(image, grid=4, by=64)
    change = (copies.int() - image[:, None].int()).abs()
    inside = patches(16, 4)[None, ..., None].expand_as(change)
    assert (change[inside] == 64).all()
    assert (change[~inside] == 0).all()


def test_rank_correlation_of_what_is_known() -> None:
    a = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(a, a.exp()).item() == pytest.approx(1.0)
    assert rank_correlation(a, -a).item() == pytest.approx(-1.0)
    # 1 - 6 sum d^2 / (n (n^2 - 1)), d = 0 1 1 0
    assert rank_correlation(a, torch.tensor([1.0, 3.0, 2.0, 4.0])).item() == pytest.approx(0.8)
    # ties: ranks 1.5 1.5 3.5 3.5 against 1 2 3 4
    assert rank_correlation(torch.tensor([0.0, 0.0, 5.0, 5.0]), a).item() == pytest.approx(2 / math.sqrt(5))
    assert math.isnan(rank_correlation(torch.ones(4), a).item())


def test_a_patch_shows_as_much_as_its_colour_follows_the_state() -> None:
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(500, 2, generator=generator)
    image = torch.full((500, 16, 16, 3), 100, dtype=torch.uint8)
    image[:, :2, :2] = (100 + 20 * state[:, 0]).clamp(0, 255).to(torch.uint8)[:, None, None, None]
    # something else flickers
    image[:, 8:10, 8:10] = torch.randint(256, (500, 1, 1, 1), generator=generator, dtype=torch.uint8)
    found = shown(image, state, grid=8)
    assert found[0].item() == pytest.approx(20.0, rel=0.1)
    assert found[36].item() < 8.0
    assert found[[1, 2, 63]].abs().max() < 1e-3


def scene_play() -> TensorDict:
    """Play with pictures of 16 x 16 whose upper left quarter shows the scene, patch by patch, and the rest a mover."""
    frames = play()
    image = torch.full((len(frames), 16, 16, 3), 128.0)
    bright = frames[SCENE][:, :4] / frames[SCENE][:, :4].std(0)
    for number in range(8):
        row, column = divmod(number, 4)
        image[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 20 * bright[:, number % 4, None, None, None]
    generator = torch.Generator().manual_seed(1)
    image[:, 10:12] += torch.randint(-20, 21, (len(frames), 1, 1, 1), generator=generator).float()
    frames[STATIC] = image.clamp(0, 255).to(torch.uint8)
    return frames


class Looker(Believer):
    """Its belief depends on the mean colour of the left half of some rows of the picture, and a little on all."""

    def __init__(self, rows: slice, aside: float = 0.0) -> None:
        super().__init__()
        self.aside = aside
        self.config.cameras, self.config.observed, self.rows = (STATIC,), (STATIC,), rows
        self.rssm = SimpleNamespace(observe=self.observe)

    def embed(self, observation: Any) -> Tensor:
        picture = observation[STATIC].float()
        return picture[:, self.rows, :8].mean((1, 2)) + self.aside * picture.mean((1, 2))

    def observe(self, embed: Tensor, *_: Tensor) -> Any:
        return SimpleNamespace(posterior=torch.softmax(embed / 100, -1)[:, :, None].cumsum(-1).softmax(-1))


def sensitivity(rows: slice, aside: float = 0.0) -> dict[str, float]:
    frames = scene_play()
    # colours that differ, so that a shift of all three changes their softmax
    frames[STATIC][..., 1] = 250
    found = causal_sensitivity(rolls(frames, oracle(frames), model=Looker(rows, aside)))
    return found[STATIC]


def test_who_looks_at_the_scene_scores_high_and_who_looks_at_the_mover_low() -> None:
    good, bad = sensitivity(slice(0, 4)), sensitivity(slice(10, 12))
    # who looks at nothing else has no ratio
    assert math.isnan(good["ratio"])
    assert good["spearman"] > 0.5
    # a patch of the scene is an eighth of the one mean, and 1 / 64 of the other
    assert sensitivity(slice(0, 4), 1.0)["ratio"] == pytest.approx(9.0, rel=0.3)
    assert not bad["ratio"] > 0.1
    assert bad["spearman"] < good["spearman"] / 2


def test_the_blind_are_sensitive_to_nothing() -> None:
    found = sensitivity(slice(16, 16))
    assert not found["effect"] > 0


def test_the_first_look_is_the_models_own() -> None:
    model = tiny_model().requires_grad_(False)
    batch = noise_batch()
    batch = model.with_targets(batch)
    embed = model.embed(batch[:, 0])
    once = tiny_model(burn_in=1).requires_grad_(False)
    seen = once.filter(once.with_targets(noise_batch()[:, :1]))
    assert torch.allclose(first_look(once, embed), seen.posterior[:, 0], atol=1e-5)
    assert torch.equal(first_look(model, embed), first_look(model, embed))


def test_without_pictures_or_without_a_state_there_is_a_reason() -> None:
    frames = play()
    assert "pictures" in causal_sensitivity(rolls(frames, oracle(frames)))["skipped"]
    blank = Believer(replace(CALVIN, scene=0, robot=0))
    blank.config.cameras = (STATIC,)
    assert "state" in causal_sensitivity(rolls(frames, oracle(frames), model=blank))["skipped"]
