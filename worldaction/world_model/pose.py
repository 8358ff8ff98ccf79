"""Where the robot is, carried beside the code: its proprioception, and how far its target is ahead of it.

A recurrent network adds up actions badly: open loop, a world model's hand is off by centimetres where adding up the
commands themselves is off by one. A robot that position servos drive follows a law with a few numbers, which are
fitted to the data once, before the world model is trained:

    u  = (1 - s) g - s x + B a + c     how far the target is ahead of the robot, once the command a has been given
    x' = x + k u + e                   the servo takes the share k of that way
    g' = (1 - k) u + l e               what is still to go

x [P] is the standardised proprioception, g [P] the gap between target and robot; s, k, l and c have a number for each
of them, B is [P, A]. With s = 0 commands move the target (CALVIN's relative actions), with s = 1 they are the target
(absolute joint positions), and k = 1 is a robot that is where it was told to be (recorded differences of poses). e is
what the law does not foresee. While frames are seen, x' is what is observed and e the rest; in imagination a small
network that knows the belief says which share of the way k u is gone in addition, between -1 (blocked, by a contact)
and 1: errors in a share are small where the motion is, and do not add up while the robot stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldaction.errors import UserError
from worldaction.play.layout import Episode
from worldaction.world_model.nets import mlp

HIDDEN: Final = 64
"""Width of the network that expects what the law does not foresee."""
ROUNDS, STEPS, ROWS = 7, 100, 256
"""Of the fit: how often gaps are computed anew, steps after each time, and windows of a step."""
SETTLING, AHEAD = 4, 28
"""Frames of such a window that are seen, and frames after them that are predicted, fewer where episodes are short."""
TOLERANCE: Final = 0.03
"""Errors beyond this (standard deviations) count linearly: contacts must not bend the law of free motion."""


class ServoLaw(NamedTuple):
    """The numbers of the law, and the law itself without what it does not foresee."""

    share: Tensor  # [P] k
    absolute: Tensor  # [P] s
    regain: Tensor  # [P] l
    offset: Tensor  # [P] c
    moved: Tensor  # [P, A] B

    def ahead(self, x: Tensor, gap: Tensor, action: Tensor) -> Tensor:
        """u [..., P] after a command [..., A]."""
        # millimetres add up over a dream: not in the precision of a mixed training
        with torch.autocast(action.device.type, enabled=False):
            moved = functional.linear(action.float(), self.moved, self.offset)
        return (1.0 - self.absolute) * gap - self.absolute * x + moved

    def follow(self, x: Tensor, ahead: Tensor) -> Tensor:
        """x' [..., P] as far as it is foreseen."""
        return x + self.share * ahead

    def left(self, ahead: Tensor, unforeseen: Tensor) -> Tensor:
        """g' [..., P]."""
        return (1.0 - self.share) * ahead + self.regain * unforeseen

    def observe(self, x: Tensor, gap: Tensor, action: Tensor, seen: Tensor) -> Tensor:
        """g' [..., P] when the robot is seen at x' = `seen` [..., P] after the command."""
        ahead = self.ahead(x, gap, action)
        return self.left(ahead, seen - self.follow(x, ahead))

    def coast(self, x: Tensor, gap: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """x' and g' [..., P] where all is foreseen."""
        ahead = self.ahead(x, gap, action)
        return self.follow(x, ahead), (1.0 - self.share) * ahead


class Pose(nn.Module):
    """The law of a robot and the network beside it. A pose [..., 2 P] is x and g side by side."""

    share: Tensor
    absolute: Tensor
    regain: Tensor
    offset: Tensor
    moved: Tensor

    def __init__(self, *, belief: int, proprio: int, action: int) -> None:
        """
        Args:
            belief: size of the recurrent network's own belief h.
            proprio: numbers P of proprioception.
            action: numbers A of an action.

        Raises:
            UserError: there is no proprioception.
        """
        super().__init__()
        if not proprio:
            raise UserError("the data have no robot_obs, so there is no pose to carry; set --world-model.pose none")
        self.proprio = proprio
        # until it is fitted, a robot that stays where it is
        for name in ("share", "absolute", "regain", "offset"):
            self.register_buffer(name, torch.zeros(proprio))
        self.register_buffer("moved", torch.zeros(proprio, action))
        self.besides = mlp([belief + 2 * proprio, HIDDEN, proprio])
        # nothing, until training has shown what there is
        for parameter in self.besides[-1].parameters():
            nn.init.zeros_(parameter)

    @property
    def law(self) -> ServoLaw:
        """The fitted numbers."""
        return ServoLaw(self.share, self.absolute, self.regain, self.offset, self.moved)

    def fit(self, x: Tensor, action: Tensor, episodes: Sequence[Episode], *, seed: int) -> None:
        """Fit the law, see `fit_law`; the network is trained with the world model."""
        law = fit_law(x, action, episodes, seed=seed)
        for name, value in law._asdict().items():
            getattr(self, name).copy_(value)

    def imagine(self, belief: Tensor, pose: Tensor, action: Tensor) -> Tensor:
        """The pose after a command that nobody sees the result of.

        Args:
            belief: [B, D] h_t, which knows of the command.
            pose: [B, 2 P] before it.
            action: [B, A].

        Returns:
            [B, 2 P].
        """
        law, (x, gap) = self.law, pose.chunk(2, -1)
        ahead = law.ahead(x, gap, action)
        expected = self.expect(belief, x, ahead)
        return torch.cat([law.follow(x, ahead) + expected, law.left(ahead, expected)], -1)

    def observe(self, pose: Tensor, action: Tensor, seen: Tensor) -> Tensor:
        """The pose [B, 2 P] after a command [B, A], with the robot seen at `seen` [B, P]."""
        x, gap = pose.chunk(2, -1)
        return torch.cat([seen, self.law.observe(x, gap, action, seen)], -1)

    def expect(self, belief: Tensor, x: Tensor, ahead: Tensor) -> Tensor:
        """e [B, P] as the network expects it."""
        besides: Tensor = self.besides(torch.cat([belief, x, ahead], -1)).tanh()
        return self.share * ahead * besides


def fit_law(x: Tensor, action: Tensor, episodes: Sequence[Episode], *, seed: int) -> ServoLaw:
    """The law that predicts `AHEAD` frames best (Huber loss) after `SETTLING` seen ones; a few seconds of one core.

    Adam on random windows. The gaps with which they begin come from running the law through the episodes, again after
    every `STEPS` steps.

    Args:
        x: [N, P] standardised proprioception.
        action: [N, A].
        episodes: of training; windows lie in those that are long enough.
        seed: of the order of the windows.

    Raises:
        UserError: no episode is long enough.
    """
    frames = min(SETTLING + AHEAD, max((e.length for e in episodes), default=0) - 1)
    if frames <= SETTLING:
        raise UserError(
            f"no episode of training has more than {SETTLING + 1} frames with known actions, so no law of the robot's"
            " motion can be fitted; set --world-model.pose none"
        )
    first = [torch.arange(e.start, e.stop - frames) for e in episodes if e.length > frames]
    begins, generator = torch.cat(first), torch.Generator().manual_seed(seed)
    free = _FreeLaw(x, action, begins)
    for step in range(ROUNDS * STEPS):
        if step % STEPS == 0:
            gap = gaps(free.law(), x, action, episodes)
        rows = begins[torch.randint(len(begins), (ROWS,), generator=generator)]
        with torch.enable_grad():
            free.improve(_prediction_error(free.law(), x, action, gap, rows, frames))
    return ServoLaw(*(value.detach() for value in free.law()))


@torch.no_grad()
def gaps(law: ServoLaw, x: Tensor, action: Tensor, episodes: Sequence[Episode]) -> Tensor:
    """The gap g at every frame of the episodes, [N, P]; each begins at rest, with none.

    Args:
        law: of the robot.
        x: [N, P] standardised proprioception.
        action: [N, A].
        episodes: of these frames; zeros elsewhere.
    """
    found = torch.zeros_like(x)
    longest_first = sorted(episodes, key=lambda episode: -episode.length)
    starts = torch.tensor([episode.start for episode in longest_first])
    lengths = torch.tensor([episode.length for episode in longest_first])
    # frame by frame in all episodes at once, of which fewer and fewer go on
    gap = x.new_zeros(len(longest_first), x.shape[1])
    for time in range(int(lengths.max()) - 1):
        now = starts[lengths > time + 1] + time
        gap = law.observe(x[now], gap[: len(now)], action[now], x[now + 1])
        found[now + 1] = gap
    return found


def _prediction_error(law: ServoLaw, x: Tensor, action: Tensor, gap: Tensor, rows: Tensor, frames: int) -> Tensor:
    """[] of windows that begin at the frames `rows` [M] and go on for so many."""
    now, ahead = x[rows], gap[rows]
    for frame in range(SETTLING):
        seen = x[rows + frame + 1]
        now, ahead = seen, law.observe(now, ahead, action[rows + frame], seen)
    errors = []
    for frame in range(SETTLING, frames):
        now, ahead = law.coast(now, ahead, action[rows + frame])
        errors.append(functional.smooth_l1_loss(now, x[rows + frame + 1], beta=TOLERANCE))
    return torch.stack(errors).mean()


class _FreeLaw:
    """The numbers of a law while they are fitted."""

    def __init__(self, x: Tensor, action: Tensor, begins: Tensor) -> None:
        size, change = x.shape[1], x[begins + 1] - x[begins]
        # numbers that move little are learned as fast as those that move much
        self.unit = change.std(0, correction=0).clamp_min(1e-6)[:, None]
        # at first, half of the way is gone at once, commands move the target, and the target stays where it was when
        # the robot is somewhere else than foreseen
        self.share, self.absolute = torch.full((size,), 0.5), torch.full((size,), 0.05)
        self.regain, self.offset = torch.full((size,), -1.0), torch.zeros(size)
        self.moved = _at_once(action[begins], change) / self.unit
        rates = {1e-2: [self.share, self.absolute], 2e-2: [self.regain, self.offset, self.moved]}
        groups = [{"params": [p.requires_grad_() for p in part], "lr": rate} for rate, part in rates.items()]
        # a short memory of squares: the first gradients are far larger than all others
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.98))
        # to a hundredth
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimiser, 0.01 ** (1 / (ROUNDS * STEPS)))

    def law(self) -> ServoLaw:
        """With gradients."""
        offset = self.unit[:, 0] * self.offset
        return ServoLaw(self.share, self.absolute, self.regain, offset, self.unit * self.moved)

    def improve(self, loss: Tensor) -> None:
        """One step."""
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        # projected, not squashed: a robot that goes all the way at once, or whose commands move its target and nothing
        # else, is at the border
        for share in (self.share, self.absolute):
            share.data.clamp_(0.0, 1.0)


def _at_once(action: Tensor, change: Tensor, penalty: float = 1e-2) -> Tensor:
    """[P, A] by how much a command [M, A] changes each number [M, P] at once, by ridge regression."""
    given = torch.cat([action, torch.ones_like(action[:, :1])], 1)
    square = given.T @ given + penalty * torch.eye(given.shape[1])
    return torch.linalg.solve(square, given.T @ change)[:-1].T.contiguous()
