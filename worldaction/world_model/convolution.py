"""Image layers that compute the same numbers as PyTorch's in a form that a CPU is good at.

oneDNN is slow at three things that image decoders are made of: transposed convolutions (it runs the backward pass of a
convolution), their bias's gradient, and folding patches. A transposed convolution of stride 2 is an ordinary one with
four times the channels and half the kernel, whose pixels are then shuffled (Shi et al. 2016, arXiv 1609.07009). The
weights keep PyTorch's names and shapes; on other devices PyTorch's own layers run.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

STRIDE = 2


class Deconvolution(nn.ConvTranspose2d):
    """A transposed convolution of stride 2 without padding."""

    def __init__(self, inner: int, outer: int, kernel: int) -> None:
        """
        Args:
            inner, outer: channels before and after.
            kernel: its side.
        """
        super().__init__(inner, outer, kernel, STRIDE)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[M, inner, H, W] -> [M, outer, 2 H + kernel - 2, 2 W + kernel - 2]."""
        assert self.bias is not None
        if x.device.type != "cpu" or output_size is not None:
            return super().forward(x, output_size)
        x, weight, bias = _cast(x, self.weight, self.bias)
        if x.shape[-2:] == (1, 1):
            return _from_one_pixel(x, weight, bias)
        result: Tensor = _Deconvolve.apply(x, weight, bias)
        return result


class PatchConvolution(nn.Conv2d):
    """Patches folded into channels as by `torch.nn.PixelUnshuffle`, and a 3 x 3 convolution of stride 2 over them."""

    def __init__(self, inner: int, outer: int, patch: int) -> None:
        """
        Args:
            inner, outer: channels before and after.
            patch: side of a patch.
        """
        super().__init__(inner * patch**2, outer, 3, 2, 1)
        self.patch = patch

    def forward(self, x: Tensor) -> Tensor:
        """[M, inner, H, W] -> [M, outer, H / patch / 2, W / patch / 2]."""
        if x.device.type != "cpu":
            return super().forward(F.pixel_unshuffle(x, self.patch))
        assert self.bias is not None
        x, weight, bias = _cast(x, self.weight, self.bias)
        side = self.patch
        # [M, H, W / P, P I]: a view of images whose channels lie last, in which a patch is P pixels down
        rows = x.permute(0, 2, 3, 1).unflatten(2, (-1, side)).flatten(3)
        # from channels (I, P, P) and 3 x 3 patches to channels (P, I) and 3 P x 3 pixels
        kernel = weight.unflatten(1, (-1, side, side)).permute(0, 3, 1, 4, 2, 5).flatten(1, 2).flatten(2, 3)
        return F.conv2d(rows.permute(0, 3, 1, 2), kernel, bias, (2 * side, 2), (side, 1))


class Flatten(nn.Flatten):
    """[M, C, H, W] to [M, C H W], with a gradient that lies as the input did."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        result: Tensor = _Flatten.apply(x)
        return result


class _Flatten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape, ctx.last = x.shape, x.is_contiguous(memory_format=torch.channels_last)
        # a copy in any case: what follows may write into it
        return x.reshape(len(x), -1) if not x.is_contiguous() else x.flatten(1).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        layout = torch.channels_last if ctx.last else torch.contiguous_format
        return grad.view(ctx.shape).contiguous(memory_format=layout)


def _cast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In the precision that autocast asks for, if it is on: custom functions and copies are not seen by it."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype("cpu")) for tensor in tensors)


def _from_one_pixel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each of [M, inner, 1, 1] paints the kernel once, which is a matrix product."""
    outer, side = weight.shape[1], weight.shape[2]
    # columns in the order of the pixels, so that the result lies channels last
    columns = weight.permute(0, 2, 3, 1).flatten(1)
    painted = torch.addmm(bias.repeat(side * side), x.flatten(1), columns)
    return painted.view(-1, side, side, outer).permute(0, 3, 1, 2)


class _Deconvolve(torch.autograd.Function):
    """Forward as a convolution of stride 1, backward as PyTorch's, with the bias's gradient as a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """[M, I, H, W], [I, O, K, K], [O] -> [M, O, 2 H + K - 2, 2 W + K - 2]."""
        ctx.save_for_backward(x, weight)
        kernel, taps = _split(weight)
        wide = F.conv2d(x.contiguous(memory_format=torch.channels_last), kernel, bias.repeat(4), padding=taps - 1)
        return _shuffle(wide, 2 * x.shape[-2] + weight.shape[-2] - 2, 2 * x.shape[-1] + weight.shape[-1] - 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Gradients of the three arguments."""
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        to_x = F.conv2d(grad, weight, stride=STRIDE) if ctx.needs_input_grad[0] else None
        to_weight = conv2d_weight(grad, list(weight.shape), x, stride=STRIDE)
        return to_x, to_weight, grad.sum((0, 2, 3))


def _split(weight: Tensor) -> tuple[Tensor, int]:
    """A kernel [I, O, K, K] as four of half the side, one for each pixel of a 2 x 2 square: [4 O, I, J, J], and J.

    y[2 m + p] = sum_j x[m - j] w[2 j + p], so each parity p sees every second entry, backwards.
    """
    inner, outer, side = weight.shape[:3]
    taps = -(-side // STRIDE)
    even = F.pad(weight, (0, 2 * taps - side) * 2).view(inner, outer, taps, 2, taps, 2)
    return even.flip(2, 4).permute(3, 5, 1, 0, 2, 4).reshape(4 * outer, inner, taps, taps), taps


def _shuffle(wide: Tensor, height: int, width: int) -> Tensor:
    """[M, 4 O, H', W'] with parities first to [M, O, height, width], channels last."""
    size = len(wide), wide.shape[1] // 4, height, width
    # a new tensor, not a view of one: what follows may write into it
    result = torch.empty(size, dtype=wide.dtype, memory_format=torch.channels_last)
    if (height, width) == (2 * wide.shape[-2], 2 * wide.shape[-1]):
        # [M, H', 2, W', 2, O]
        squares = result.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        squares.copy_(wide.unflatten(1, (2, 2, -1)).permute(0, 4, 1, 5, 2, 3))
        return result
    for parity, part in enumerate(wide.chunk(4, 1)):
        place = result[:, :, parity // 2 :: 2, parity % 2 :: 2]
        place.copy_(part[..., : place.shape[-2], : place.shape[-1]])
    return result
