"""A recurrent core that carries the robot's pose beside (h, z), see `worldaction.world_model.pose`.

The belief is [h; x; g]: whatever reads it (losses, policy, critic, success classifier) reads the pose as well. The
inner core is told the pose together with the action that it is commanded at, so that it need not add up actions. It is
told x as waves, too (Fourier features, Tancik et al. 2020, arXiv 2006.10739): whether fingers get hold of a handle is
decided by a centimetre, and networks are slow to learn what changes within a tenth of a standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from worldaction.spec import ACTION_MASK, IS_INIT, PREVIOUS_ACTION
from worldaction.world_model.cores.base import RecurrentCore
from worldaction.world_model.latent import Latent, Latents
from worldaction.world_model.pose import TOLERANCE, Pose

AHEAD: Final = 11
"""Frames over which the network beside the law is trained."""
FREQUENCIES: Final = (2.0, 4.0, 8.0)
"""Of the waves, in radians per standard deviation: at CALVIN's table a period of the last is 6 to 13 cm."""


def told_of(proprio: int) -> int:
    """How many numbers an inner core is told of the pose of P numbers of proprioception."""
    return 2 * proprio + 2 * len(FREQUENCIES) * proprio


def waves(x: Tensor, frequencies: Tensor) -> Tensor:
    """[..., P] to sin(f x) and cos(f x) - 1 of each of F frequencies [F], [..., 2 F P]; of zeros they are zeros."""
    turns = (frequencies[:, None] * x.unsqueeze(-2)).flatten(-2)
    return torch.cat([turns.sin(), turns.cos() - 1.0], -1)


class PosedCore(RecurrentCore):
    """Any core with a pose beside it.

    The inner core's action is [a; x; g; waves of x]; before an episode's first frame, where nothing has been seen, all
    that follows a is zeros.
    """

    name = "posed"
    has_kernels: bool  # type: ignore[misc] # the inner core's
    frequencies: Tensor

    def __init__(self, inner: RecurrentCore, *, proprio: int) -> None:
        """
        Args:
            inner: a core for actions of A + `told_of(P)` numbers.
            proprio: numbers P of proprioception, which are the end of the embedding.
        """
        action, pose = inner.action - told_of(proprio), 2 * proprio
        super().__init__(
            inner.options,
            embed=inner.embed,
            action=action,
            deter=inner.deter + pose,
            groups=inner.groups,
            classes=inner.classes,
            hidden=inner.hidden,
            unimix=inner.unimix,
            null_action=inner.null_action[:action].tolist(),
        )
        self.inner, self.proprio, self.sizes = inner, proprio, [inner.deter, pose]
        self.pose = Pose(belief=inner.deter, proprio=proprio, action=action)
        # saved with the model, so that one of before, or of others, is refused and not misread
        self.register_buffer("frequencies", torch.tensor(FREQUENCIES))
        self.has_kernels = inner.has_kernels

    def parts(self, belief: Tensor) -> tuple[Tensor, Tensor]:
        """h [..., D'] and the pose [..., 2 P] of a belief [..., D]."""
        h, pose = belief.split(self.sizes, -1)
        return h, pose

    def predict(self, belief: Tensor, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `RecurrentCore.predict`."""
        h, pose = self.parts(belief)
        h, logits = self.inner.predict(h, state, self._told(action, pose))
        return torch.cat([h, self.pose.imagine(h, pose, action)], -1), logits

    def correct(self, belief: Tensor, embed: Tensor) -> Tensor:
        """See `RecurrentCore.correct`."""
        return self.inner.correct(self.parts(belief)[0], embed)

    def observe(
        self,
        embed: Tensor,
        previous_action: Tensor,
        is_init: Tensor,
        uniform: Tensor,
        *,
        burn_in: int = 1,
        open_loop_from: Tensor | None = None,
        gap: Tensor | None = None,
    ) -> Latents:
        """See `RecurrentCore.observe`.

        Args:
            embed, previous_action, is_init, uniform, burn_in, open_loop_from: as there.
            gap: [B, T, P] of the frames, see `worldaction.world_model.pose.gaps`; without it the robot is at rest in
                the first one.
        """
        seen = self._seen(embed)
        pose = torch.cat([seen, self._gaps(seen, previous_action, is_init) if gap is None else gap], -1)
        if open_loop_from is not None:
            pose = self._coasting(pose, previous_action, open_loop_from)
        # before the first frame of an episode nothing has been seen, as in `first`
        before = torch.cat([torch.zeros_like(pose[:, :1]), pose[:, :-1]], 1) * ~is_init.unsqueeze(-1)
        told = self._told(previous_action, before)
        found = self.inner.observe(embed, told, is_init, uniform, burn_in=burn_in, open_loop_from=open_loop_from)
        return Latents(
            embed=found.embed,
            belief=torch.cat([found.belief, pose], -1),
            state=found.state,
            posterior=found.posterior,
            prior=found.prior,
        )

    def pose_error(self, latents: Latents, batch: TensorDictBase, gap: Tensor | None) -> Tensor:
        """What the network beside the law is trained by: the Huber error of the poses, over `AHEAD` frames.

        Args:
            latents: of the batch.
            batch: [B, T] frames; unknown actions and those across the border of an episode do not count.
            gap: as for `observe`.

        Returns:
            [] the mean, in standard deviations summed over the numbers of proprioception.
        """
        seen, told, begins = self._seen(latents.embed), batch[PREVIOUS_ACTION], batch[IS_INIT]
        gap = self._gaps(seen, told, begins) if gap is None else gap
        h, time = self.parts(latents.belief)[0], seen.shape[1]
        ahead = min(AHEAD, time - 1)
        # [S], the frames from which the poses are imagined, as many as fit one behind the other up to the last frame
        start = torch.arange((time - 1) % ahead, time - 1, ahead, device=seen.device)
        mask = batch.get(ACTION_MASK, None)
        known = ~begins if mask is None else ~begins & mask.roll(1, 1)
        pose, counts = torch.cat([seen, gap], -1)[:, start], torch.ones_like(begins[:, start])
        error, total = seen.new_zeros(()), seen.new_zeros(())
        for frame in range(1, ahead + 1):
            now = start + frame
            counts = counts & known[:, now]
            pose = self.pose.imagine(h[:, now], pose, told[:, now])
            off = smooth_l1_loss(pose[..., : self.proprio], seen[:, now], beta=TOLERANCE, reduction="none").sum(-1)
            # selected, not multiplied: what does not count may be anything
            error, total = error + torch.where(counts, off, 0.0).sum(), total + counts.sum()
        return error / total.clamp_min(1)

    @torch.no_grad()
    def _gaps(self, seen: Tensor, previous_action: Tensor, is_init: Tensor) -> Tensor:
        """[B, T, P] of windows in whose first frame the robot is at rest."""
        law, found = self.pose.law, [torch.zeros_like(seen[:, 0])]
        for time in range(1, seen.shape[1]):
            gap = law.observe(seen[:, time - 1], found[-1], previous_action[:, time], seen[:, time])
            found.append(gap * ~is_init[:, time, None])
        return torch.stack(found, 1)

    @torch.no_grad()
    def _coasting(self, pose: Tensor, previous_action: Tensor, open_loop_from: Tensor) -> Tensor:
        """The poses [B, T, 2 P] with those of imagined frames replaced by what the law foresees.

        Without the network's expectation, which would need the beliefs one after the other: it learns from these
        beliefs, not the other way round.
        """
        law, found = self.pose.law, [pose[:, 0]]
        for time in range(1, pose.shape[1]):
            x, gap = found[-1].chunk(2, -1)
            foreseen = torch.cat(law.coast(x, gap, previous_action[:, time]), -1)
            found.append(torch.where((time >= open_loop_from)[:, None], foreseen, pose[:, time]))
        return torch.stack(found, 1)

    def first(self, belief: Tensor, previous_action: Tensor, embed: Tensor, uniform: Tensor) -> Latent:
        """See `RecurrentCore.first`: the robot is at rest where it is seen."""
        h, _ = self.parts(belief)
        return self._beside(self.inner.first(h, self._told_nothing(previous_action), embed, uniform), self._rest(embed))

    def again(self, latent: Latent, embed: Tensor, uniform: Tensor) -> Latent:
        """See `RecurrentCore.again`."""
        h, _ = self.parts(latent.belief)
        return self._beside(self.inner.again(Latent(h, latent.code), embed, uniform), self._rest(embed))

    def posterior(self, latent: Latent, previous_action: Tensor, embed: Tensor, uniform: Tensor) -> Latent:
        """See `RecurrentCore.posterior`: the robot is where it is seen."""
        h, pose = self.parts(latent.belief)
        told = self._told(previous_action, pose)
        after = self.inner.posterior(Latent(h, latent.code), told, embed, uniform)
        return self._beside(after, self.pose.observe(pose, previous_action, self._seen(embed)))

    def prior(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """See `RecurrentCore.prior`."""
        h, pose = self.parts(latent.belief)
        after = self.inner.prior(Latent(h, latent.code), self._told(action, pose), uniform)
        return self._beside(after, self.pose.imagine(after.belief, pose, action))

    @contextmanager
    def imagining_in(self, dtype: torch.dtype) -> Iterator[None]:
        """See `RecurrentCore.imagining_in`; the pose stays in float32."""
        with self.inner.imagining_in(dtype):
            yield

    def _seen(self, embed: Tensor) -> Tensor:
        return embed[..., embed.shape[-1] - self.proprio :]

    def _rest(self, embed: Tensor) -> Tensor:
        seen = self._seen(embed)
        return torch.cat([seen, torch.zeros_like(seen)], -1)

    def _told(self, action: Tensor, pose: Tensor) -> Tensor:
        return torch.cat([action, pose, waves(pose[..., : self.proprio], self.frequencies)], -1)

    def _told_nothing(self, action: Tensor) -> Tensor:
        return torch.cat([action, action.new_zeros(len(action), told_of(self.proprio))], -1)

    def _beside(self, latent: Latent, pose: Tensor) -> Latent:
        return Latent(torch.cat([latent.belief, pose], -1), latent.code)
