"""What is timed: the sizes of a workload, a piece of work that can be repeated, and what a library offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Precision = Literal["fp32", "bf16", "-"]


@dataclass(frozen=True)
class Sizes:
    """A recurrent model. The defaults are dreamerv3-torch's, and those of the peers' published speeds."""

    deter: int = 512
    groups: int = 32
    classes: int = 32
    hidden: int = 512
    action: int = 7
    unimix: float = 0.01

    @property
    def axes(self) -> dict[str, int]:
        """Lengths by the names that `worldaction.kernels` has for them."""
        return {name: getattr(self, name) for name in ("deter", "groups", "classes", "hidden", "action")}


@dataclass(frozen=True)
class Workload:
    """One imagination: how many rows, and how far ahead."""

    sizes: Sizes = field(default_factory=Sizes)
    batch: int = 256
    horizon: int = 16
    seed: int = 0

    @property
    def steps(self) -> int:
        """Latent steps of one imagination."""
        return self.batch * self.horizon

    def actions(self, device: torch.device) -> Tensor:
        """[B, H, A] in [-1, 1], the same for every library."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.empty(self.batch, self.horizon, self.sizes.action).uniform_(-1, 1, generator=generator).to(device)


@dataclass(frozen=True)
class Windows:
    """Training windows of one camera, and the image networks that learn from them."""

    sizes: Sizes = field(default_factory=Sizes)
    batch: int = 16
    length: int = 32
    image: int = 64
    depth: int = 16
    seed: int = 0

    @property
    def frames(self) -> int:
        """Frames of one training step."""
        return self.batch * self.length

    def data(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Images [B, T, H, W, 3] uint8, actions [B, T, A] in [-1, 1], and [B, T] bool, true at the first frames."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.batch, self.length)
        images = torch.randint(0, 256, (*shape, self.image, self.image, 3), generator=generator, dtype=torch.uint8)
        actions = torch.empty(*shape, self.sizes.action).uniform_(-1, 1, generator=generator)
        first = torch.zeros(shape, dtype=torch.bool)
        first[:, 0] = True
        return images.to(device), actions.to(device), first.to(device)


@dataclass(frozen=True)
class DreamWorkload:
    """How many dreams, of how many decisions, under a policy of the preset `quick`'s size."""

    sizes: Sizes = field(default_factory=Sizes)
    batch: int = 256
    decisions: int = 4
    chunk: int = 4
    denoising_steps: int = 10
    width: int = 256
    seed: int = 0

    @property
    def policy_axes(self) -> dict[str, int]:
        """Lengths of the policy by the names that `worldaction.kernels` has for them."""
        chunk = self.sizes.action * self.chunk
        return {"width": self.width, "chunk": chunk, "blocks": 1, "steps": self.denoising_steps}


@dataclass(frozen=True)
class Work:
    """Something that is done again and again, and what is known of it.

    Attributes:
        run: does it once.
        amount: what one run comes to, in the unit of its comparison.
        about: what is computed, in a few words.
        ours: whether it is this library's code.
        precision: of the large matrix products.
        parameters: numbers that were or could be learned.
        flops: multiplications and additions of matrix products and convolutions in one run; 0 where unknown.
    """

    run: Callable[[], object]
    amount: float
    about: str
    ours: bool = False
    precision: Precision = "fp32"
    parameters: int = 0
    flops: float = 0.0


class Library(Protocol):
    """A library whose world model can be timed; what it cannot do, it offers nothing for."""

    def imagination(self, workload: Workload) -> Mapping[str, Work]:
        """Imagining under given actions, by name; amounts in latent steps."""
        ...

    def training(self, windows: Windows) -> Mapping[str, Work]:
        """One gradient step of the world model, by name; amounts in steps."""
        ...


def count(*modules: nn.Module) -> int:
    """Parameters of modules."""
    return sum(p.numel() for module in modules for p in module.parameters())


def flops(run: Callable[[], object]) -> float:
    """Multiplications and additions of a run, as PyTorch counts them: eager matrix products and convolutions alone."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return float(counter.get_total_flops())


def without_gradients(step: Callable[[], object]) -> Callable[[], object]:
    """A run without gradients, as libraries imagine for a policy that is not learned through the model."""

    def run() -> object:
        with torch.no_grad():
            return step()

    return run
