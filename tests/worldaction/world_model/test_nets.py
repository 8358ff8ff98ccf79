"""Both image stacks fit their sizes and refuse others, images survive the round trip, and rotations are rotations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from worldaction.errors import UserError
from worldaction.spec import CALVIN
from worldaction.world_model.nets import Decoder, Encoder, mlp, proprio, to_float, to_uint8

CAMERAS = ("left", "right")


@pytest.mark.parametrize(("size", "patch"), [(64, 1), (16, 2), (32, 2), (64, 2), (64, 4), (32, 4), (24, 3)])
def test_encoder_and_decoder_fit_the_image_and_train(size: int, patch: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(CAMERAS, image_size=size, depth=4, patch=patch, size=10)
    decoder = Decoder(CAMERAS, inputs=9, image_size=size, depth=4, patch=patch)
    images = {camera: torch.rand(2, 3, size, size) - 0.5 for camera in CAMERAS}
    embed = encoder(images, torch.randn(2, CALVIN.proprio))
    assert embed.shape == (2, encoder.size) == (2, 10 + CALVIN.proprio)
    pictures = decoder(torch.randn(2, 9))
    assert {camera: tuple(p.shape) for camera, p in pictures.items()} == dict.fromkeys(CAMERAS, (2, 3, size, size))
    (embed.square().sum() + sum(p.square().sum() for p in pictures.values())).backward()
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_patch_one_is_the_stack_of_dreamer_v2() -> None:
    encoder = Encoder(("c",), image_size=64, depth=48, patch=1, size=1536)
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [48, 96, 192, 384]
    assert {(m.kernel_size, m.stride) for m in convolutions} == {((4, 4), (2, 2))}
    assert encoder.fuse[0].in_features == 1536
    assert encoder.size == 1554  # as the WAM paper states for the embedding
    decoder = Decoder(("c",), inputs=2048, image_size=64, depth=48, patch=1)
    transposed = [m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in transposed] == [192, 96, 48, 3]
    assert [m.kernel_size[0] for m in transposed] == [5, 5, 6, 6]


@pytest.mark.parametrize(("size", "patch"), [(32, 1), (200, 1), (20, 2), (8, 2), (33, 2), (64, 3), (64, 0), (64, -2)])
def test_sizes_that_do_not_fit_are_refused_by_encoder_and_decoder(size: int, patch: int) -> None:
    with pytest.raises(UserError, match=f"image size {size} does not fit patch {patch}"):
        Encoder(CAMERAS, image_size=size, depth=4, patch=patch, size=10)
    with pytest.raises(UserError, match=f"image size {size} does not fit patch {patch}"):
        Decoder(CAMERAS, inputs=9, image_size=size, depth=4, patch=patch)


def test_every_camera_has_a_stream_of_its_own_and_counts() -> None:
    torch.manual_seed(0)
    encoder = Encoder(CAMERAS, image_size=16, depth=4, patch=2, size=10)
    images = {camera: torch.rand(1, 3, 16, 16) - 0.5 for camera in CAMERAS}
    body = torch.zeros(1, CALVIN.proprio)
    base = encoder(images, body)
    for camera in CAMERAS:
        changed = images | {camera: -images[camera]}
        assert not torch.allclose(encoder(changed, body), base)
    swapped = {"left": images["right"], "right": images["left"]}
    assert not torch.allclose(encoder(swapped, body), base)


def test_proprioception_is_appended_as_it_is() -> None:
    encoder = Encoder(CAMERAS, image_size=16, depth=4, patch=2, size=10)
    body = torch.randn(3, CALVIN.proprio)
    images = {camera: torch.zeros(3, 3, 16, 16) for camera in CAMERAS}
    assert torch.equal(encoder(images, body)[:, 10:], body)


def test_images_come_back_exactly_from_float() -> None:
    image = torch.arange(256, dtype=torch.uint8).repeat(3).view(3, 16, 16).movedim(0, -1)
    floats = to_float(image)
    assert floats.shape == (3, 16, 16)
    assert (floats.min().item(), floats.max().item()) == (-0.5, 0.5)
    assert torch.equal(to_uint8(floats), image)


def test_colours_out_of_range_are_clipped() -> None:
    wild = torch.tensor([-9.0, -0.5, 0.0, 0.5, 9.0, 0.1]).view(1, 3, 1, 2)
    assert to_uint8(wild).flatten().tolist() == [0, 128, 255, 0, 255, 153]


def test_six_numbers_are_the_first_columns_of_the_rotation() -> None:
    generator = torch.Generator().manual_seed(1)
    robot = torch.randn(40, 15, generator=generator, dtype=torch.float64)
    result = proprio(robot)
    assert result.shape == (40, CALVIN.proprio)
    for row, found in zip(robot, result, strict=True):
        (x, y, z) = row[3:6]

        def turn(angle: torch.Tensor, i: int, j: int) -> torch.Tensor:
            m = torch.eye(3, dtype=torch.float64)
            m[i, i] = m[j, j] = angle.cos()
            m[i, j], m[j, i] = -angle.sin(), angle.sin()
            return m

        rotation = turn(z, 0, 1) @ turn(y, 2, 0) @ turn(x, 1, 2)
        assert torch.allclose(found[3:9], rotation[:, :2].T.flatten())
        assert torch.equal(found[:3], row[:3])
        assert torch.equal(found[9:], row[6:])


def test_the_rotation_does_not_jump_where_the_angle_wraps() -> None:
    robot = torch.zeros(2, 15)
    robot[0, 5], robot[1, 5] = torch.pi - 1e-4, -torch.pi + 1e-4
    assert (proprio(robot)[0] - proprio(robot)[1]).abs().max() < 1e-3


def test_an_mlp_ends_bare() -> None:
    net = mlp([3, 5, 4, 2])
    assert [type(m).__name__ for m in net] == ["Linear", "LayerNorm", "ELU"] * 2 + ["Linear"]
    assert net(torch.zeros(7, 3)).shape == (7, 2)
    assert len(mlp([3, 2])) == 1
