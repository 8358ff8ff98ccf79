"""Alignment: what the teachers see, that the encoder learns it, and that a shuffled teacher is another matter."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldaction.errors import UserError
from worldaction.losses import build
from worldaction.losses.alignment import Alignment, early
from worldaction.losses.teachers import ORIENTATIONS, gradients, open_teacher
from worldaction.losses.tools import contract

SHAPES = contract.tiny_model().shapes


# Teachers -------------------------------------------------------------------------------------------------------------


def stripes(angle: float) -> Tensor:
    """An image [1, 3, 32, 32] of waves that run in a direction (rad)."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    wave = (0.5 * (columns * math.cos(angle) + rows * math.sin(angle))).sin() / 2
    return wave.expand(1, 3, 32, 32)


@pytest.mark.parametrize("number", range(ORIENTATIONS))
def test_stripes_are_seen_in_the_bin_of_their_direction(number: int) -> None:
    # the middle of a cell, where the border says nothing
    seen = gradients(stripes(math.pi * number / ORIENTATIONS), 4)[0, :, 1, 1].view(3, ORIENTATIONS)
    assert seen.argmax(-1).tolist() == [number] * 3
    # light and dark exchanged are the same contour
    other = gradients(-stripes(math.pi * number / ORIENTATIONS), 4)[0, :, 1, 1].view(3, ORIENTATIONS)
    assert torch.allclose(seen, other, atol=1e-5)


def test_a_cell_is_of_unit_length_and_sees_what_is_in_it() -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[..., :4, :4] = stripes(0.3)[..., :4, :4]
    length = gradients(image, 4).norm(dim=1)[0]
    assert float(length[0, 0]) == pytest.approx(1.0, abs=1e-5)
    assert length[2:, 2:].abs().max() == 0.0


def test_votes_keep_the_size_of_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 8, 8, generator=generator) - 0.5
    right = torch.nn.functional.pad(image[..., 2:] - image[..., :-2], (1, 1))
    down = torch.nn.functional.pad(image[..., 2:, :] - image[..., :-2, :], (0, 0, 1, 1))
    size = (right**2 + down**2).sqrt().sum((-1, -2))
    # one cell: the histogram is known up to its length, which is the same for all colours
    histogram = gradients(image, 1).view(2, 3, ORIENTATIONS).sum(-1)
    assert torch.allclose(histogram / histogram.sum(1, keepdim=True), size / size.sum(1, keepdim=True), atol=1e-5)


class Patches(nn.Module):
    """Stands for a vision transformer: a patch's token is its mean colour, after one class token of large numbers."""

    def forward(self, pixel_values: Tensor) -> Any:
        tokens = torch.nn.functional.avg_pool2d(pixel_values, 7).flatten(2).transpose(1, 2)
        return SimpleNamespace(last_hidden_state=torch.cat([torch.full_like(tokens[:, :1], 1e3), tokens], 1))


@pytest.fixture
def transformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model, and a package that opens it."""
    config = {"hidden_size": 3, "patch_size": 7, "image_size": 30}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    calls = SimpleNamespace(given={})

    def from_pretrained(folder: Path, **given: Any) -> nn.Module:
        calls.given = {"folder": folder, **given}
        return Patches()

    package = ModuleType("transformers")
    package.AutoModel = SimpleNamespace(from_pretrained=from_pretrained, calls=calls)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", package)
    return tmp_path


def test_a_transformer_is_read_from_its_folder_alone_and_gives_a_grid_of_patches(transformer: Path) -> None:
    teacher = open_teacher(str(transformer))
    given = sys.modules["transformers"].AutoModel.calls.given
    assert given == {"folder": transformer, "local_files_only": True, "use_safetensors": True}
    assert teacher.channels == 3
    image = torch.zeros(2, 3, 16, 16) - 0.5
    image[..., :8] = 0.5
    seen = teacher.look(image, 4)
    assert seen.shape == (2, 3, 4, 4)
    # the class token's large numbers are nowhere, and the left is brighter than the right
    assert seen.abs().max() < 10
    assert (seen[..., 0] > seen[..., 3]).all()


def test_a_transformer_for_large_images_is_shown_no_more_patches_than_small_ones_are_worth(transformer: Path) -> None:
    (transformer / "config.json").write_text('{"hidden_size": 3, "patch_size": 7, "image_size": 518}')
    shown = []
    look = open_teacher(str(transformer)).look
    look.model.register_forward_pre_hook(
        lambda _, __, given: shown.append(given["pixel_values"].shape), with_kwargs=True
    )
    assert look(torch.zeros(2, 3, 64, 64), 8).shape == (2, 3, 8, 8)
    assert shown == [(2, 3, 112, 112)]


def test_the_weights_of_a_transformer_are_in_no_checkpoint(transformer: Path) -> None:
    loss = build([f"alignment,teacher={transformer}"], SHAPES)["alignment"]
    assert {name.partition(".")[0] for name in loss.state_dict()} == {"projections"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no config.json"),
        ({"config.json": "{}"}, "has no model.safetensors"),
        ({"config.json": '{"hidden_size": 3}', "model.safetensors": ""}, "no vision transformer"),
    ],
)
def test_a_folder_that_holds_no_transformer_is_refused(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        open_teacher(str(tmp_path))


def test_a_transformer_without_its_package_says_what_to_install(
    transformer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install transformers"):
        open_teacher(str(transformer))


# The loss -------------------------------------------------------------------------------------------------------------


def test_early_features_are_those_after_the_activation() -> None:
    stream = contract.tiny_model(image_size=32).encoder.streams["rgb_static"]
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, second = early(stream, image, 1), early(stream, image, 2)
    assert (first.shape, second.shape) == ((2, 4, 8, 8), (2, 8, 4, 4))
    assert first.min() > -1.0
    assert torch.equal(stream(image), second.flatten(1))
    with pytest.raises(UserError, match="layer=3, but the encoder has 2"):
        early(stream, image, 3)


def test_the_loss_is_zero_where_the_encoder_has_the_teachers_features_and_two_where_the_opposite() -> None:
    one = contract.trial(Alignment)
    for sign, expected in ((1.0, 0.0), (-1.0, 2.0)):
        one.loss.teacher = one.loss.teacher._replace(look=lambda images, side: torch.ones(len(images), 27, side, side))
        for projection in one.loss.projections.values():
            nn.init.zeros_(projection.weight)
            nn.init.constant_(projection.bias, sign)
        assert float(one.run().mean().detach()) == pytest.approx(expected, abs=1e-5)


def colours(images: Tensor, side: int) -> Tensor:
    """A teacher that is easily understood: the mean colour of a patch, nine times over."""
    return torch.nn.functional.adaptive_avg_pool2d(images, side).repeat(1, 9, 1, 1)


def learned(**options: Any) -> float:
    """The cosine after an encoder has learned for a while from images of noise."""
    one = contract.trial(Alignment)
    loss = Alignment(Alignment.Options(share=1.0, **options), SHAPES)
    loss.teacher = loss.teacher._replace(look=colours)
    optimizer = torch.optim.Adam([*loss.parameters(), *one.model.encoder.parameters()], lr=1e-2)
    cosine = []
    for step in range(60):
        batch = one.model.with_targets(contract.noise_batch(seed=step))
        with contract.seeded(step):
            output = loss(one.latents, batch, one.model)
        optimizer.zero_grad()
        output.mean().backward()
        optimizer.step()
        cosine.append(float(output.metrics["cosine"]))
    return sum(cosine[-10:]) / 10


def test_an_encoder_learns_what_its_teacher_sees_and_from_a_shuffled_one_nothing() -> None:
    assert learned() > 0.8
    assert abs(learned(shuffle=True)) < 0.2


def test_a_shuffled_teacher_gives_every_patch_the_features_of_one_of_the_image() -> None:
    one = contract.trial(Alignment)
    images = one.batch["target", "rgb_static"][0]
    look = one.loss.teacher.look
    wanted = []
    one.loss.teacher = one.loss.teacher._replace(look=lambda i, side: wanted.append(look(i, side)) or wanted[-1])
    shuffled = Alignment(replace(one.loss.options, shuffle=True), SHAPES)
    shuffled.teacher = one.loss.teacher

    class Keep(nn.Module):
        """The teacher's own features, in their places."""

        def forward(self, x: Tensor) -> Tensor:
            return look(images, x.shape[-1])

    own = Keep()(torch.zeros(1, 1, 4, 4))
    with contract.seeded(0):
        assert one.loss._distance(own, images).max() < 1e-5
        assert shuffled._distance(own, images).min() > 0.1


def test_a_model_without_cameras_is_refused() -> None:
    with pytest.raises(UserError, match="no cameras"):
        Alignment(Alignment.Options(), replace(SHAPES, cameras=()))
