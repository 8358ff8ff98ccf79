"""Image layers in the form that a CPU is good at: PyTorch's numbers, gradients, names and shapes of weights."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldaction.world_model.convolution import Deconvolution, Flatten, PatchConvolution
from worldaction.world_model.nets import Decoder, Encoder, to_float

CAMERAS = ("a", "b")


def draw(*shape: int, dtype: torch.dtype = torch.float64, last: bool = False) -> Tensor:
    value = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return value.contiguous(memory_format=torch.channels_last) if last else value


def assert_same(layer: nn.Module, plain: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Values and all gradients, with what follows writing into the result."""
    found, wanted = [], []
    for function, kept in ((layer, found), (plain, wanted)):
        given = x.clone().requires_grad_()
        value = function(given)
        shape = value.shape
        value = F.elu(value, inplace=True)
        weights = draw(*shape, dtype=x.dtype)
        kept += [value, *torch.autograd.grad((value * weights).sum(), [given, *layer.parameters()])]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("kernel", "side"), [(5, 1), (5, 4), (6, 5), (4, 3)])
def test_a_deconvolution_is_the_transposed_convolution(kernel: int, side: int, last: bool) -> None:
    torch.manual_seed(0)
    layer = Deconvolution(4, 3, kernel).double()
    x = draw(2, 4, side, side, last=last)
    assert_same(layer, lambda given: F.conv_transpose2d(given, layer.weight, layer.bias, 2), x)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("patch", [2, 4])
def test_a_patch_convolution_is_a_convolution_of_folded_patches(patch: int, last: bool) -> None:
    torch.manual_seed(0)
    layer = PatchConvolution(3, 5, patch).double()
    x = draw(2, 3, 16, 16, last=last)
    plain = lambda given: F.conv2d(F.pixel_unshuffle(given, patch), layer.weight, layer.bias, 2, 1)  # noqa: E731
    assert_same(layer, plain, x)


@pytest.mark.parametrize("last", [False, True])
def test_flattening_is_flattening_and_its_gradient_lies_as_the_input_did(last: bool) -> None:
    x = draw(2, 4, 3, 3, last=last).requires_grad_()
    flat = Flatten()(x)
    assert torch.equal(flat, x.flatten(1))
    (gradient,) = torch.autograd.grad((flat * draw(2, 36)).sum(), x)
    assert torch.equal(gradient.flatten(1), draw(2, 36))
    assert gradient.stride() == x.stride()


def test_layers_without_anyone_to_teach_below_them_learn_all_the_same() -> None:
    layer = Deconvolution(4, 3, 6)
    layer(draw(2, 4, 5, 5, dtype=torch.float32)).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def test_under_autocast_they_compute_in_its_precision_and_their_gradients_are_those_of_the_weights() -> None:
    torch.manual_seed(0)
    for layer, x in ((Deconvolution(4, 3, 6), draw(2, 4, 5, 5)), (PatchConvolution(3, 5, 4), draw(2, 3, 16, 16))):
        exact = layer(x.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = layer(x.float())
        assert rough.dtype == torch.bfloat16
        torch.testing.assert_close(rough.float(), exact, rtol=0.03, atol=0.03)
        rough.float().square().sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.dtype == torch.float32


class Before(nn.Module):
    """The stacks as they were written until the layers above: the numbers that saved models were trained with."""

    @staticmethod
    def encoder(patch: int, depth: int) -> nn.Sequential:
        if patch == 1:
            sizes, layers = [3, depth, 2 * depth, 4 * depth, 8 * depth], []
            for inner, outer in pairwise(sizes):
                layers += [nn.Conv2d(inner, outer, 4, 2), nn.ELU()]
            return nn.Sequential(*layers, nn.Flatten())
        first, second = nn.Conv2d(3 * patch**2, depth, 3, 2, 1), nn.Conv2d(depth, 2 * depth, 3, 2, 1)
        return nn.Sequential(nn.PixelUnshuffle(patch), first, nn.ELU(), second, nn.ELU(), nn.Flatten())

    @staticmethod
    def decoder(patch: int, depth: int, inputs: int) -> nn.Sequential:
        if patch == 1:
            sizes, kernels = [32 * depth, 4 * depth, 2 * depth, depth, 3], [5, 5, 6, 6]
            layers: list[nn.Module] = [nn.Linear(inputs, 32 * depth), nn.Unflatten(-1, (32 * depth, 1, 1))]
            for inner, outer, kernel in zip(sizes[:-1], sizes[1:], kernels, strict=True):
                layers += [nn.ConvTranspose2d(inner, outer, kernel, 2), nn.ELU()]
            return nn.Sequential(*layers[:-1])
        wide = 2 * depth
        return nn.Sequential(
            nn.Linear(inputs, wide * 16),
            nn.Unflatten(-1, (wide, 4, 4)),
            nn.ELU(),
            nn.Conv2d(wide, 2 * wide, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.ELU(),
            nn.Conv2d(depth, 3 * (2 * patch) ** 2, 3, 1, 1),
            nn.PixelShuffle(2 * patch),
        )


@pytest.mark.parametrize("patch", [1, 4])
def test_whole_stacks_take_the_weights_of_before_and_give_the_same_numbers(patch: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(CAMERAS, image_size=64, depth=4, patch=patch, size=12, proprio=5).double()
    decoder = Decoder(CAMERAS, inputs=9, image_size=64, depth=4, patch=patch).double()
    pixels = torch.randint(256, (3, 64, 64, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    image, feature = to_float(pixels).double(), draw(3, 9)
    assert torch.equal(to_float(pixels), pixels.movedim(-1, -3).float() / 255.0 - 0.5)
    for module, before, given in (
        (encoder.streams["a"], Before.encoder(patch, 4), image),
        (decoder.streams["b"], Before.decoder(patch, 4, 9), feature),
    ):
        before.double().load_state_dict(module.state_dict())
        torch.testing.assert_close(module(given), before(given), rtol=0, atol=1e-12)
