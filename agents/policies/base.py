"""What a policy head is: the network that turns a feature into a chunk of actions, and what learning asks of it.

A new head is one file with one class. In tensors, B or M decisions, F numbers of a feature, K actions of A numbers:

    method                            takes                              gives
    noise_shape                                                          the normal numbers of one decision, [n, m]
    bc_loss(feature, chunk)           [B, F], [B, K, A]                  [], what behaviour cloning minimises
    sample(feature, noise)            [B, F], [B, *noise_shape]          [B, K, A] actions in [-1, 1]
    decide(feature, noise, min_std)   the same, while exploring          `Decision`: actions, and what is stored
    log_prob(feature, stored, min_std)   [M, F], dict of [M, ...]        [M, N'], of stored decisions, with gradient

`log_prob` has one column for each part of a decision that is a random choice of its own: the N' trained denoising steps
of a diffusion policy, one column for a Gaussian. Two more methods have defaults: `divergence` from the cloned policy,
and `after_cloning`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, NamedTuple

import torch
from torch import Tensor, nn

from agents.policies.registry import POLICIES
from worldaction.errors import UserError
from worldaction.kernels.dream.reference import executed

Sampler = Literal["stochastic", "deterministic"]
SAMPLERS: Final[tuple[Sampler, ...]] = ("stochastic", "deterministic")
"""How a policy can draw its actions; see `PolicyHead.has_deterministic`."""


class Decision(NamedTuple):
    """What was decided, and what is needed to learn from it later.

    Attributes:
        actions: [B, K, A] what is executed.
        stored: tensors [B, ...] by name, from which `PolicyHead.log_prob` finds the probability of the decision.
    """

    actions: Tensor
    stored: dict[str, Tensor]


class Score(NamedTuple):
    """Stored decisions in the eyes of a policy.

    Attributes:
        log_prob: [M, N'] log-probability of each random choice of each decision.
        divergence: [] mean divergence from the cloned policy, in nats a number of a random choice.
    """

    log_prob: Tensor
    divergence: Tensor


def normal_log_density(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density of normal distributions, number by number; all broadcast against each other."""
    return -0.5 * ((x - mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)


class PolicyHead(nn.Module, ABC):
    """A distribution of the next K actions, given a feature. Subclass it in a file of its own; nothing else changes.

    A subclass defines ``name``, a frozen dataclass ``Options`` whose fields its constructor takes as keywords, and the
    methods of the table above. Random numbers come in as arguments, and every row of a batch is computed by itself.
    Fields of ``Options`` that are called like those of `worldaction.config.PolicyConfig`, such as ``width``, take the
    study's values. `agents.policies.tools.contract` checks all of this.
    """

    name: ClassVar[str]
    Options: ClassVar[type]
    has_deterministic: ClassVar[bool] = False
    """Whether `sample` with ``deterministic=True`` is another way to choose actions: the mean, or the likeliest."""

    def __init__(
        self, feature_size: int, action_size: int, *, chunk: int, binary: Sequence[int] = (-1,), **options: Any
    ) -> None:
        """
        Args:
            feature_size: size F of the feature.
            action_size: size A of an action.
            chunk: actions K per decision.
            binary: numbers of an action that are thresholded at 0 to -1 or +1; the last is CALVIN's gripper.
            options: the values of ``Options``.
        """
        super().__init__()
        sizes: dict[str, Any] = {"feature_size": feature_size, "action_size": action_size, "chunk": chunk}
        self.config: dict[str, Any] = sizes | options | {"binary": list(binary)}
        """Keywords of the constructor that builds an equal head; JSON values."""
        self.chunk, self.action_size, self.chunk_size = chunk, action_size, chunk * action_size

    @property
    @abstractmethod
    def noise_shape(self) -> tuple[int, int]:
        """The standard normal numbers that one decision takes, [n, m]."""

    @abstractmethod
    def bc_loss(self, feature: Tensor, chunk: Tensor) -> Tensor:
        """What behaviour cloning minimises. Random numbers are drawn from torch's global generator.

        Args:
            feature: [B, F].
            chunk: [B, K, A] demonstrated actions.

        Returns:
            [].
        """

    @abstractmethod
    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        """Choose actions, as in the simulator; without gradient.

        Args:
            feature: [B, F].
            noise: [B, *noise_shape] standard normal.
            deterministic: leave out the randomness that the head can do without; of no effect on a head that has
                nothing to leave out, see `has_deterministic`.

        Returns:
            [B, K, A] in [-1, 1], see `to_actions`.
        """

    @abstractmethod
    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """Choose actions and keep what learning needs; without gradient.

        Args:
            feature: [B, F].
            noise: [B, *noise_shape] standard normal.
            min_std: smallest standard deviation of a choice: above 0 to explore, 0 as in `sample`.
        """

    @abstractmethod
    def log_prob(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Tensor:
        """Log-probability of stored decisions under the present weights, with gradient.

        Averaged over the numbers of a chunk rather than summed, one clip range fits chunks of any length (DPPO).

        Args:
            feature: [M, F] what the decisions were taken on.
            stored: of `decide`, [M, ...].
            min_std: as it was for `decide`.

        Returns:
            [M, N'].
        """

    def divergence(
        self, cloned: Any, feature: Tensor, stored: Mapping[str, Tensor], log_prob: Tensor, *, min_std: float
    ) -> Tensor:
        """KL(self || cloned) of a random choice over the numbers of its chunk, mean over all choices, with gradient.

        By default it is estimated from the decisions, which this policy or a close one took, by r - 1 - log r with
        r = cloned / self, of whole chunks: never negative, and of low variance (Schulman 2020, "Approximating KL
        divergence"). A head that knows a closed form overrides this.

        Args:
            cloned: the frozen head that this one began as.
            feature, stored, min_std: as for `log_prob`.
            log_prob: [M, N'] of `log_prob`.

        Returns:
            [].
        """
        with torch.no_grad():
            before = cloned.log_prob(feature, stored, min_std=min_std)
        log_ratio = (before - log_prob) * self.chunk_size
        return (log_ratio.exp() - 1.0 - log_ratio).mean() / self.chunk_size

    def after_cloning(self, features: Tensor, chunks: Tensor) -> None:
        """Called once when cloning has ended, for what is better computed than learned; nothing by default.

        Args:
            features: [R, M, F] of all demonstrated frames, in R samples.
            chunks: [M, K, A].
        """

    def improvable(self, *, trained_steps: int = 1) -> ImprovedPolicy:
        """A frozen copy beside a trainable one, which an update improves.

        Args:
            trained_steps: for heads that take many steps to an action, how many of the last ones are trained.
        """
        return ImprovedPolicy(*copies(self))

    def to_actions(self, x: Tensor) -> Tensor:
        """Numbers of a chunk [..., K * A] as actions [..., K, A] in [-1, 1], the binary ones thresholded at 0."""
        return executed(x.unflatten(-1, (self.chunk, self.action_size)), self.config["binary"])


def copies(head: Any) -> tuple[Any, Any]:
    """A frozen copy of a head, and one that can be trained."""
    frozen, trained = copy.deepcopy(head).eval(), copy.deepcopy(head).eval()
    return frozen.requires_grad_(False), trained.requires_grad_(True)


class ImprovedPolicy(nn.Module):
    """A frozen cloned head and the copy of it that an update trains; the copy acts.

    Args:
        base: the cloned head.
        tuned: its trained copy.
    """

    trained_steps = 1

    def __init__(self, base: PolicyHead, tuned: PolicyHead) -> None:
        super().__init__()
        self.base, self.tuned = base, tuned
        self.chunk, self.noise_shape, self.has_deterministic = base.chunk, base.noise_shape, base.has_deterministic

    @property
    def config(self) -> dict[str, Any]:
        """The head's, and ``trained_steps`` for `PolicyHead.improvable`."""
        return self.base.config | {"trained_steps": self.trained_steps}

    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        """See `PolicyHead.sample`."""
        return self.tuned.sample(feature, noise, deterministic=deterministic)

    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """See `PolicyHead.decide`."""
        return self.tuned.decide(feature, noise, min_std=min_std)

    def score(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Score:
        """Stored decisions under the present weights, with gradient; see `PolicyHead.log_prob`."""
        log_prob = self.tuned.log_prob(feature, stored, min_std=min_std)
        return Score(log_prob, self.tuned.divergence(self.base, feature, stored, log_prob, min_std=min_std))

    @torch.no_grad()
    def score_when_taken(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Score:
        """Decisions under the weights that took them, before these change; without gradient."""
        return self.score(feature, stored, min_std=min_std)


# On disk --------------------------------------------------------------------------------------------------------------


def identity(cls: type[PolicyHead]) -> str:
    """What a file calls a head: the name of one of ours, else module:Class."""
    path = f"{cls.__module__}:{cls.__qualname__}"
    name: str = getattr(cls, "name", "")
    return name if POLICIES.own().get(name) == path else path


def known_head(saved: str, head: type[PolicyHead] | None = None) -> type[PolicyHead]:
    """The class of a head that a file names. Only our own files are imported for it, never what a file names.

    Args:
        saved: from `identity`.
        head: the class to take instead.

    Raises:
        UserError: the class is none of ours and has not been imported yet.
    """
    if head is not None:
        return head
    if saved in POLICIES.own():
        found: type[PolicyHead] = POLICIES.find(saved)
        return found
    for cls in _subclasses(PolicyHead):
        if identity(cls) == saved:
            return cls
    shown = repr(saved[:100])
    raise UserError(f"policy head {shown} is not imported, and loading imports none; import it, or give head=Class")


def _subclasses(cls: Any) -> Iterator[type[PolicyHead]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)
