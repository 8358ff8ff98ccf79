"""What a recurrent core is: how a world model's state moves on with an action, and what a frame adds to it.

    belief    h_t = f(h_{t-1}, z_{t-1}, a_{t-1})
    prior     z_t ~ p(z | h_t)           what is expected before the frame is seen, and all that imagination has
    posterior z_t ~ q(z | h_t, e_t)      what is believed after it has been seen

A core of one's own is one file with a subclass that says `name`, `Options`, `predict` and `correct`; filtering a batch
of windows, sampling and imagination are done here, in the same way for every core.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from worldaction.errors import UserError
from worldaction.kernels.categorical.reference import probabilities, sample
from worldaction.spec import NULL_ACTION
from worldaction.world_model.cores.registry import CORES
from worldaction.world_model.latent import Latent, Latents, one_hot, straight_through


@dataclass(frozen=True)
class NoOptions:
    """Of a core that has none."""


class RecurrentCore(nn.Module, ABC):
    """The recurrent part of a world model. Randomness is always an argument.

    A subclass builds its networks in `__init__`, after calling this class's.
    """

    name: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    """A frozen dataclass; its fields are set by ``--world-model.core NAME,OPTION=VALUE``."""

    has_kernels: ClassVar[bool] = False
    """Whether `worldaction.kernels` serves this core; others run in plain PyTorch, and a training says so."""

    def __init__(
        self,
        options: Any = None,
        *,
        embed: int,
        action: int,
        deter: int,
        groups: int,
        classes: int,
        hidden: int,
        unimix: float,
        null_action: Sequence[float] = NULL_ACTION,
    ) -> None:
        """
        Args:
            options: an instance of ``Options``; its defaults if not given.
            embed: size E of the encoder's output.
            action: size A.
            deter: size D.
            groups: S.
            classes: C.
            hidden: width U of the inner layers.
            unimix: share of the uniform distribution in every categorical.
            null_action: [A], fed during the burn-in.

        Raises:
            UserError: a class would not fit into the byte in which it is stored.
        """
        super().__init__()
        if not 2 <= classes <= 256:
            raise UserError(f"{classes} classes per group; give 2 to 256, because a class is stored in a byte")
        self.options = self.Options() if options is None else options
        self.embed, self.action, self.hidden = embed, action, hidden
        self.deter, self.groups, self.classes, self.unimix = deter, groups, classes, unimix
        self.imagine_in = torch.float32
        """Precision of the products of a frozen model's `prior` on a CPU, float32 or bfloat16, if it has kernels."""
        # on the device: a step of training must bring nothing there
        self.null_action: Tensor
        self.register_buffer("null_action", torch.tensor(null_action, dtype=torch.float32), persistent=False)

    # What a core is ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def predict(self, belief: Tensor, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Move on by one action.

        Args:
            belief: [B, D] h_{t-1}.
            state: [B, S * C] z_{t-1} as one-hots; zeros before an episode's first frame.
            action: [B, A] a_{t-1}.

        Returns:
            h_t [B, D], and the logits of the prior [B, S, C].
        """

    @abstractmethod
    def correct(self, belief: Tensor, embed: Tensor) -> Tensor:
        """Logits of the posterior [B, S, C] from h_t [B, D] and the frame e_t [B, E]."""

    # What is made of it -----------------------------------------------------------------------------------------------

    def observe(
        self,
        embed: Tensor,
        previous_action: Tensor,
        is_init: Tensor,
        uniform: Tensor,
        *,
        burn_in: int = 1,
        open_loop_from: Tensor | None = None,
    ) -> Latents:
        """Filter a batch of windows, each from an empty state.

        Args:
            embed: [B, T, E].
            previous_action: [B, T, A], a_{t-1}.
            is_init: [B, T] bool; resets (h, z) before the frame is taken in, and never touches the action.
            uniform: [B, burn_in - 1 + T, S].
            burn_in: how often the first frame is seen; all but the last time with the null action, and not returned.
            open_loop_from: [B] int64, the frame from which a window is imagined: its states are samples of the prior.
        """
        lead = burn_in - 1
        null = self.null_action.to(previous_action.dtype).expand(len(embed), -1)
        belief = embed.new_zeros(len(embed), self.deter)
        state = embed.new_zeros(len(embed), self.groups * self.classes)
        # [T, B, 1], one where the state is kept; the burn-in starts from zeros and is kept
        keep = (~is_init).to(embed.dtype).unsqueeze(-1).unbind(1)
        found = []
        for step in range(lead + embed.shape[1]):
            frame = step - lead
            if frame > 0:
                belief, state = belief * keep[frame], state * keep[frame]
            # the burn-in sees the first frame again and again, with the null action
            action = previous_action[:, frame] if frame >= 0 else null
            # [B, D] and [B, S, C]
            belief, logits = self.predict(belief, state, action)
            prior = self.distribution(logits)
            posterior = self.distribution(self.correct(belief, embed[:, max(frame, 0)]))
            believed = posterior
            if open_loop_from is not None and frame >= 0:
                believed = torch.where((frame >= open_loop_from)[:, None, None], prior, posterior)
            # [B, S * C]
            state = straight_through(believed, uniform[:, step])
            if frame >= 0:
                found.append((belief, state, posterior, prior))
        return Latents(embed, *(torch.stack(parts, 1) for parts in zip(*found, strict=True)))

    def first(self, belief: Tensor, previous_action: Tensor, embed: Tensor, uniform: Tensor) -> Latent:
        """`posterior` from the empty state: belief [B, D] zeros, and a state of zeros that no code stands for."""
        state = belief.new_zeros(len(belief), self.groups * self.classes)
        return self._see(self.predict(belief, state, previous_action)[0], embed, uniform)

    def again(self, latent: Latent, embed: Tensor, uniform: Tensor) -> Latent:
        """Take in an episode's first frame once more, with the null action: one look does not fit into the code."""
        return self.posterior(latent, self.null_action.to(embed.dtype).expand(len(embed), -1), embed, uniform)

    def posterior(self, latent: Latent, previous_action: Tensor, embed: Tensor, uniform: Tensor) -> Latent:
        """Take in one frame: a_{t-1} [B, A] moved the world, e_t [B, E] is what is seen; uniform is [B, S]."""
        state = one_hot(latent.code, self.classes)
        return self._see(self.predict(latent.belief, state, previous_action)[0], embed, uniform)

    def prior(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """Imagine one frame: a_t [B, A] is executed; uniform is [B, S]."""
        belief, logits = self.predict(latent.belief, one_hot(latent.code, self.classes), action)
        return Latent(belief, sample(self.distribution(logits), uniform))

    def distribution(self, logits: Tensor) -> Tensor:
        """Logits [..., S, C] to probabilities, with the uniform share mixed in."""
        return probabilities(logits.float(), self.unimix)

    def _see(self, belief: Tensor, embed: Tensor, uniform: Tensor) -> Latent:
        return Latent(belief, sample(self.distribution(self.correct(belief, embed)), uniform))

    @contextmanager
    def imagining_in(self, dtype: torch.dtype) -> Iterator[None]:
        """`prior` in another precision for a while, see `imagine_in`."""
        before, self.imagine_in = self.imagine_in, dtype
        try:
            yield
        finally:
            self.imagine_in = before


def build_core(text: str, **sizes: Any) -> RecurrentCore:
    """A core from the text that names it, with its options.

    Args:
        text: as `--world-model.core` takes it.
        sizes: see `RecurrentCore`.

    Raises:
        UserError: there is no such core, or it does not have such an option.
    """
    spec = CORES.parse(text)
    cls: type[RecurrentCore] = CORES.find(spec.target)
    return cls(CORES.options(cls, spec.options), **sizes)
