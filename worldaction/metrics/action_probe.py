"""Which action lies between two imagined frames? What cannot be read off an imagined future cannot be planned with.

A probe reads a_t off a pair (x_t, x_{t+1}). What x is decides what the number means:

    latents    [h; z]. LEAKS: h_{t+1} was computed from a_t, so the answer is in the input whether or not anything of it
               is imagined. Reported because it is often quoted, and as the case that the leak check must find.
    proprio    the proprioception decoded from the latent: does the imagined hand do what it was told?
    pictures   embeddings of the pictures decoded from the latents, without the encoder's proprioception: only what is
               drawn can be read. This one is to be trusted.
    recorded_pictures, recorded
               embeddings of the recorded frames, without and with the proprioception: what could be read if imagination
               were perfect. The second is what WAM's head reads.

`ridge_probe` is linear, and ours; `mlp_probe` has the form of WAM's inverse-dynamics head (arXiv 2603.28955: three
layers on [e_t; e_{t+1}], L1), fitted anew on the frozen model, so that models with and without that loss compare alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from worldaction.latents import embed_frames
from worldaction.metrics.open_loop import SEEN, Band, OpenLoop, Rolls
from worldaction.metrics.probes import predict, ridge
from worldaction.metrics.tcp_error import decode_proprio, decodes_proprio
from worldaction.spec import ACTION, CALVIN, ROBOT, Layout
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel
from worldaction.world_model.nets import mlp

Probe = Callable[[Tensor], Tensor]
"""Pairs [..., 2 X] to actions [..., A]."""

LEAK: Final = 0.5
"""A reading that follows a false action more than half way reads what was fed, and not what came of it."""
WINDOWS: Final = 64
"""Of those given, the ones that are used: their pictures are drawn and looked at again."""


@torch.no_grad()
def action_probe(rolls: Rolls, *, steps: int = 300, seed: int) -> dict[str, Any]:
    """Errors of actions read off pairs of frames, by source, probe, band and part of the action; and their leaks.

    Args:
        rolls: the world model on play.
        steps: for which networks are fitted.
        seed: of the networks that are fitted, and of the actions that are exchanged.

    Returns:
        source (see above) to "ridge" and "mlp" to band to group to "mae" and "relative", and to "leak", group to slope;
        "leaks", the sources that `leaks` finds.
    """
    model, groups = rolls.model, action_groups(rolls.model.config.layout)
    bands, fitted = {name: _few(band) for name, band in rolls.read.items()}, _few(rolls.fitted)
    falsification = falsified(model, rolls.frames, rolls.validation, windows=WINDOWS, seed=seed)
    found: dict[str, Any] = {}
    for name, view in sources(model).items():
        probes = _fit(rolls, fitted, view(fitted.feature), steps, seed)
        found[name] = _scores(rolls, probes, {n: (band, view(band.feature)) for n, band in bands.items()}, groups)
        found[name]["leak"] = falsification.leak(view, probes["ridge"], groups)
    for name, look in _recorded(rolls).items():
        probes = _fit(rolls, fitted, look(fitted.frame), steps, seed)
        found[name] = _scores(rolls, probes, {SEEN: (bands[SEEN], look(bands[SEEN].frame))}, groups)
    return {**found, "leaks": [name for name in found if "leak" in found[name] and leaks(found[name]["leak"])]}


def _few(band: Band) -> Band:
    return Band(band.feature[:WINDOWS], band.frame[:WINDOWS], band.span)


def _fit(rolls: Rolls, band: Band, x: Tensor, steps: int, seed: int) -> dict[str, Probe]:
    pair, action = pairs(x).flatten(0, 1), rolls.recorded(ACTION, band.frame[:, :-1].flatten())
    return {"ridge": ridge_probe(pair, action), "mlp": mlp_probe(pair, action, steps=steps, seed=seed)}


def _scores(
    rolls: Rolls,
    probes: Mapping[str, Probe],
    views: Mapping[str, tuple[Band, Tensor]],
    groups: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    mean = rolls.recorded(ACTION, rolls.fitted.frame[:WINDOWS, :-1].flatten()).mean(0)
    return {
        kind: {
            name: action_error(probe(pairs(x)), rolls.recorded(ACTION, band.frame[:, :-1]), mean, groups)
            for name, (band, x) in views.items()
            # one frame is no pair
            if x.shape[1] > 1
        }
        for kind, probe in probes.items()
    }


def _recorded(rolls: Rolls) -> dict[str, Callable[[Tensor], Tensor]]:
    """What the encoder sees of recorded frames [...], as [..., X]."""

    def whole(frame: Tensor) -> Tensor:
        return embed_frames(rolls.model, rolls.frames, frame.flatten()).unflatten(0, frame.shape)

    def pictures(frame: Tensor) -> Tensor:
        return whole(frame)[..., : rolls.model.encoder.size - rolls.model.config.layout.proprio]

    return {"recorded_pictures": pictures, "recorded": whole} if rolls.model.config.cameras else {"recorded": whole}


def action_groups(layout: Layout) -> dict[str, list[int]]:
    """Which numbers of an action belong together: of CALVIN's, translation, rotation and gripper."""
    if (layout.action, layout.binary) == (CALVIN.action, CALVIN.binary):
        return {"translation": [0, 1, 2], "rotation": [3, 4, 5], "gripper": [6]}
    binary = list(layout.binary)
    smooth = [i for i in range(layout.action) if i not in binary]
    return {name: numbers for name, numbers in (("continuous", smooth), ("binary", binary)) if numbers}


def sources(model: WorldModel) -> dict[str, Callable[[Tensor], Tensor]]:
    """What probes look at: from a feature [..., F] to x [..., X]; those that this model has."""
    found: dict[str, Callable[[Tensor], Tensor]] = {"latents": lambda feature: feature}
    if decodes_proprio(model):
        found["proprio"] = lambda feature: decode_proprio(model, feature) / model.proprio_std
    if model.draws_images() and model.config.cameras:
        found["pictures"] = lambda feature: embed_pictures(model, model.decode(feature))
    return found


def embed_pictures(model: WorldModel, pictures: Mapping[str, Tensor]) -> Tensor:
    """The encoder's view of pictures alone.

    Args:
        model: with cameras.
        pictures: camera to uint8 [..., H, W, 3].

    Returns:
        [..., E - P], without the proprioception that is part of an embedding.
    """
    body, lead = model.proprio_mean, next(iter(pictures.values())).shape[:-3]
    nothing = {ROBOT: body.new_zeros(*lead, model.config.layout.robot)}
    return model.embed({**pictures, **nothing})[..., : model.encoder.size - len(body)]


def pairs(sequence: Tensor) -> Tensor:
    """Neighbours in time: [..., T, X] to [..., T - 1, 2 X], the first frame and the change to the second."""
    return torch.cat([sequence[..., :-1, :], sequence.diff(dim=-2)], -1)


def ridge_probe(pair: Tensor, action: Tensor, *, penalty: float = 30.0) -> Probe:
    """A linear probe.

    Args:
        pair: [M, 2 X].
        action: [M, A].
        penalty: of the squared weights on standardised pairs.
    """
    scaled = _Standard(pair)
    weights = ridge(scaled(pair), action, penalty=penalty)
    return lambda other: predict(weights, scaled(other))


def mlp_probe(
    pair: Tensor, action: Tensor, *, hidden: int = 128, steps: int = 300, batch: int = 256, lr: float = 2e-3, seed: int
) -> Probe:
    """A small network with WAM's form and loss: three layers, mean absolute error.

    Args:
        pair: [M, 2 X].
        action: [M, A].
        hidden: width of the two inner layers.
        steps: of AdamW, with a rate that falls to zero.
        batch: pairs a step.
        lr: the rate at the beginning.
        seed: of the weights and batches.
    """
    scaled = _Standard(pair)
    x = scaled(pair)
    draws = torch.Generator().manual_seed(seed)
    # the global generator initialises layers; it is given back as it was
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        network = mlp([pair.shape[-1], hidden, hidden, action.shape[-1]]).to(pair.device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / steps)
        for _ in range(steps):
            rows = torch.randint(len(pair), (batch,), generator=draws).to(pair.device)
            optimizer.zero_grad()
            (network(x[rows]) - action[rows]).abs().mean().backward()
            optimizer.step()
            schedule.step()
    network.requires_grad_(False)
    return lambda other: network(scaled(other))


class _Standard:
    """Numbers in units of their spread where the probe is fitted; those that never vary are left out."""

    def __init__(self, pair: Tensor) -> None:
        self.mean, spread = pair.mean(0), pair.std(0)
        self.factor = torch.where(spread > 1e-6, 1.0 / spread.clamp_min(1e-6), 0.0)

    def __call__(self, pair: Tensor) -> Tensor:
        return (pair - self.mean) * self.factor


def action_error(
    predicted: Tensor, true: Tensor, mean: Tensor, groups: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float]]:
    """Mean absolute error of each group of numbers.

    Args:
        predicted, true: [..., A], in the units of actions.
        mean: [A], of the actions on which the probe was fitted.
        groups: see `action_groups`.

    Returns:
        group to "mae" and to "relative", which is 1 for always predicting the mean, and 0 for no error.
    """
    error, chance = (predicted - true).abs(), (mean - true).abs()
    found = {}
    for name, numbers in groups.items():
        wrong, guess = (float(part[..., list(numbers)].mean()) for part in (error, chance))
        found[name] = {"mae": wrong, "relative": wrong / guess if guess > 0.0 else float("nan")}
    return found


class Falsified(NamedTuple):
    """Latents of frames that are seen, filtered once with the action that led there and once with another one."""

    before: Tensor  # [M, F], the frame before
    after: Tensor  # [M, F]
    false: Tensor  # [M, F], as `after` with the other action: same picture, same random numbers
    action: Tensor  # [M, A]
    other: Tensor  # [M, A], another frame's

    def leak(
        self, view: Callable[[Tensor], Tensor], probe: Probe, groups: Mapping[str, Sequence[int]]
    ) -> dict[str, float]:
        """How far a probe of a view of these latents follows the false action; see `leak`."""
        before = view(self.before)
        readings = [probe(torch.cat([before, view(after) - before], -1)) for after in (self.after, self.false)]
        return leak(readings[0], readings[1], self.action, self.other, groups)


@torch.no_grad()
def falsified(model: WorldModel, frames: TensorDictBase, result: OpenLoop, *, windows: int, seed: int) -> Falsified:
    """Tell the filter a false action and show it what the true one did.

    Args:
        model: the frozen world model.
        frames: [N] frames of a play store.
        result: see `open_loop`.
        windows: how many of them are used.
        seed: of the exchange and of the samples.
    """
    draws = torch.Generator().manual_seed(seed)
    here = slice(result.context - 1, -1)
    frame = result.episodes.frame[:windows]
    latent = Latent(*(part[0, :windows, here].flatten(0, 1) for part in result.episodes.latent))
    embed = embed_frames(model, frames, frame[:, result.context :].flatten())
    action = frames[ACTION][frame[:, here].flatten()]
    other = action[torch.randperm(len(action), generator=draws)]
    numbers = torch.rand(len(action), model.config.groups, generator=draws).clamp(1e-7, 1 - 1e-7).to(embed.device)
    after, false = (
        model.feature(model.posterior(latent, told.to(embed.device), embed, numbers)) for told in (action, other)
    )
    return Falsified(model.feature(latent), after, false, action.to(embed.device), other.to(embed.device))


def leak(
    reading: Tensor, misled: Tensor, action: Tensor, other: Tensor, groups: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """How far a reading follows the action that the model was told, and not the one that the pictures show.

    The second frame of each pair is filtered twice, from the same picture and the same random numbers: once with the
    action that was executed, once with another one. What is read off pictures alone does not change.

    Args:
        reading: [M, A], with the true action.
        misled: [M, A], with the other one.
        action: [M, A], the true ones.
        other: [M, A].
        groups: see `action_groups`.

    Returns:
        group to the slope of the change of the reading on that of the action: 0 reads what is seen, 1 what was told.
    """
    fed, followed = other - action, misled - reading
    product, square = (fed * followed).sum(0), fed.square().sum(0)
    return {
        name: float(product[list(numbers)].sum() / square[list(numbers)].sum().clamp_min(1e-12))
        for name, numbers in groups.items()
    }


def leaks(slopes: Mapping[str, float]) -> bool:
    """Whether slopes, see `leak`, are above `LEAK` on average over the groups."""
    return sum(slopes.values()) / len(slopes) > LEAK
