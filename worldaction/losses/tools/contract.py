"""What every loss must keep to, as functions: for the tests, and for whoever writes a loss.

A check takes a loss class, runs it on a tiny untrained model with a batch of noise, and returns what is wrong, one
sentence each; an empty list means that nothing was found. `check` runs them all:

    from worldaction.losses.tools.contract import check
    print(check(MyLoss))

The one that matters most is `check_leak`: where observations say nothing about the actions, a loss that predicts them
must not do better than chance. If it does, it read the answer from a place into which the action had been fed.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from worldaction.errors import UserError
from worldaction.losses.base import Loss, LossOutput
from worldaction.losses.building import TAPS, name_taken, options_of
from worldaction.scaffold import tried
from worldaction.spec import (
    ACTION,
    ACTION_MASK,
    CALVIN,
    CAMERAS,
    EPISODE,
    IS_INIT,
    PREVIOUS_ACTION,
    ROBOT,
    SCENE,
    Layout,
)
from worldaction.world_model.latent import Latents
from worldaction.world_model.model import ModelConfig, WorldModel

CHANCE = 0.5
"""Mean absolute error of the best constant guess of an action that is uniform in [-1, 1]."""
LEAK = 0.45
"""Error below which a loss knows what cannot be known."""

OURS = "worldaction.losses."
NOTHING_COUNTS = "shapes: the mask is false everywhere, so nothing is learned"
"""Modules of losses whose contract the tests hold."""

IMAGE_SIZE = 16
WINDOWS, FRAMES = 3, 8


# The tiny world -------------------------------------------------------------------------------------------------------


def tiny_model(losses: Sequence[str] = (), *, seed: int = 0, **sizes: Any) -> WorldModel:
    """An untrained world model of 16 x 16 pixels that runs in a millisecond.

    Args:
        losses: as for `build`.
        seed: of its weights.
        sizes: fields of `ModelConfig` that differ.
    """
    config = ModelConfig(
        cameras=CAMERAS,
        image_size=IMAGE_SIZE,
        deter=32,
        groups=4,
        classes=4,
        hidden=32,
        embed=32,
        depth=4,
        patch=2,
        unimix=0.01,
        burn_in=2,
        losses=tuple(losses),
    )
    with seeded(seed):
        return WorldModel(replace(config, **sizes))


def noise_batch(
    windows: int = WINDOWS,
    frames: int = FRAMES,
    *,
    seed: int = 0,
    image_size: int = IMAGE_SIZE,
    layout: Layout = CALVIN,
) -> TensorDict:
    """Frames [B, T] of noise, with actions that are uniform in [-1, 1] and have nothing to do with them.

    The first window holds two episodes, and the others one.

    Args:
        windows: B.
        frames: T.
        seed: of the noise.
        image_size: side of the images.
        layout: which cameras and numbers a frame holds.
    """
    generator = torch.Generator().manual_seed(seed)
    image = (windows, frames, image_size, image_size, 3)
    is_init = torch.zeros(windows, frames, dtype=torch.bool)
    is_init[:, 0] = is_init[0, frames // 2] = True
    action = torch.rand(windows, frames, layout.action, generator=generator) * 2 - 1
    # a_{t-1}
    previous = action.roll(1, 1)
    previous[is_init] = torch.tensor(layout.null_action)
    values = {camera: torch.randint(256, image, generator=generator, dtype=torch.uint8) for camera in layout.cameras}
    values |= {
        ROBOT: torch.randn(windows, frames, layout.robot, generator=generator),
        SCENE: torch.rand(windows, frames, layout.scene, generator=generator),
        ACTION: action,
        PREVIOUS_ACTION: previous,
        IS_INIT: is_init,
        EPISODE: is_init.flatten().cumsum(0).view(windows, frames),
    }
    return TensorDict(values, [windows, frames])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generator at a seed, and as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Trial:
    """A loss, and everything that it is called with."""

    loss: Loss
    model: WorldModel
    batch: TensorDict  # [B, T], with targets
    latents: Latents  # each tap a leaf of its own

    def run(self, seed: int = 0) -> LossOutput:
        """Call the loss."""
        with seeded(seed):
            output: LossOutput = self.loss(self.latents, self.batch, self.model)
        return output


def variant(cls: type[Loss], given: Sequence[tuple[str, str]]) -> type[Loss]:
    """A loss with other default options, so that they can be checked as well.

    Args:
        cls: a loss.
        given: options as a user writes them, see `worldaction.extension.Spec`.
    """
    options = options_of(cls, given)
    changed = [(f.name, f.type, dataclasses.field(default=getattr(options, f.name))) for f in fields(cls.Options)]
    other = dataclasses.make_dataclass("Options", changed, bases=(cls.Options,), frozen=True)
    return type(cls.__name__, (cls,), {"Options": other})


def trial(cls: type[Loss], *, seed: int = 0) -> Trial:
    """A loss with its default options on noise."""
    model = tiny_model(seed=seed)
    with seeded(seed):
        loss = cls(cls.Options(), model.shapes)
        batch = model.with_targets(noise_batch(seed=seed))
        return Trial(loss, model, batch, leaves(model.filter(batch)))


def leaves(latents: Latents) -> Latents:
    """The taps cut loose from each other, so that each has its own gradient."""
    return Latents(**{tap: getattr(latents, tap).detach().clone().requires_grad_() for tap in TAPS})


# The checks -----------------------------------------------------------------------------------------------------------


def check_class(cls: type[Loss]) -> list[str]:
    """The class attributes: a name, a frozen dataclass of options that starts with the scale, known taps."""
    found = []
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        found.append(f"class: name is {name!r}; give a name of letters, digits and underscores")
    elif name_taken(name):
        found.append(f"class: the name {name!r} is an attribute of torch's ModuleDict; choose another")
    if not set(getattr(cls, "needs", ())) <= set(TAPS):
        found.append(f"class: needs names {sorted(set(cls.needs) - set(TAPS))}; the taps are {', '.join(TAPS)}")
    if not getattr(cls, "needs", ()) and not getattr(cls, "encodes", False):
        found.append("class: needs is empty; name the taps that the loss reads")
    options = getattr(cls, "Options", None)
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        return [*found, "class: Options is no dataclass"]
    if not options.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        found.append("class: Options is not frozen")
    members = fields(options)
    if not members or members[0].name != "scale":
        found.append("class: the first field of Options is not scale")
    if bad := [one.name for one in members if type(one.default) not in (bool, int, float, str)]:
        found.append(f"class: option {bad[0]!r} has no plain default, so the command line cannot set it")
    return found


def check_shapes(cls: type[Loss]) -> list[str]:
    """The value is [B, T] or one number, finite; the mask [B, T] bool; metrics are scalars."""
    one = trial(cls)
    return output_errors(one.run(), one.batch.batch_size)


def output_errors(output: Any, size: torch.Size) -> list[str]:
    """What is wrong with what a loss returned, one sentence each.

    Args:
        output: of its `forward`.
        size: [B, T] of the batch.
    """
    if not isinstance(output, LossOutput):
        return [f"shapes: forward returns {type(output).__name__}; return a LossOutput"]
    found = []
    if output.value.shape not in (size, torch.Size()):
        found.append(f"shapes: the value is {list(output.value.shape)}, neither [B, T] = {list(size)} nor one number")
        if output.value.dim() == 2 and len(output.value) == size[0] and 0 < output.value.shape[1] < size[1]:
            steps = size[1] - output.value.shape[1]
            steps_given = f", {steps}" if steps > 1 else ""
            found[-1] += f"; return LossOutput.ahead(value, joined(batch{steps_given}), steps={steps})"
    if not bool(torch.isfinite(output.value).all()):
        found.append("shapes: the value is not finite")
    mask = output.mask
    if mask is not None and (mask.shape != output.value.shape or mask.dtype != torch.bool):
        found.append(f"shapes: the mask is {mask.dtype} {list(mask.shape)}, not bool {list(output.value.shape)}")
    elif mask is not None and not bool(mask.any()):
        found.append(NOTHING_COUNTS)
    for key, value in output.metrics.items():
        if value.numel() != 1 or value.requires_grad:
            found.append(f"shapes: metric {key!r} is no detached scalar")
    return found


def enforce(model: WorldModel, *, frames: int) -> None:
    """Refuse a user's loss that breaks its contract, before a training begins: each is run once, on noise.

    Shapes, the mask, and finite values are looked at, which takes one small pass. Taps, scale and the leak test take
    seconds and a loss with its default options; they are left to `worldaction check loss`.

    Args:
        model: with its losses; those of this package are not run. Nothing of it changes, nor does torch's generator.
        frames: T of the windows that it is to be trained on.

    Raises:
        UserError: names the loss, what is wrong, and the remedy.
    """
    theirs = {n: loss for n, loss in model.each_loss().items() if not type(loss).__module__.startswith(OURS)}
    if not theirs:
        return
    config, device = model.config, model.proprio_mean.device
    batch = noise_batch(2, frames, image_size=config.image_size, layout=config.layout).to(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        batch = model.with_targets(batch)
        latents = model.filter(batch)
        for name, loss in theirs.items():
            # a copy: what a loss keeps between steps begins with the training
            found = output_errors(copy.deepcopy(loss)(latents, batch, model), batch.batch_size)
            # on noise a mask may well be false everywhere, as that of contacts or of success
            if found := [each for each in found if each != NOTHING_COUNTS]:
                target = f"{type(loss).__module__}:{type(loss).__name__}"
                raise UserError(f"loss {name!r} breaks its contract: {found[0]}; see `worldaction check loss {target}`")


def check_taps(cls: type[Loss]) -> list[str]:
    """Gradients reach the taps in ``needs`` and no others, and every parameter of the loss that can be trained."""
    one = trial(cls)
    parameters = {key: value for key, value in one.loss.named_parameters() if value.requires_grad}
    encoder = {f"encoder.{key}": value for key, value in one.model.encoder.named_parameters()}
    sources: dict[str, Tensor] = {tap: getattr(one.latents, tap) for tap in TAPS} | parameters | encoder
    mean = one.run().mean()
    if not mean.requires_grad:
        return ["taps: the value has no gradient"]
    gradients: Sequence[Tensor | None] = torch.autograd.grad(mean, list(sources.values()), allow_unused=True)
    reached = {key: gradient is not None and bool(gradient.any()) for key, gradient in zip(sources, gradients)}
    found = [f"taps: the gradient is not finite at {k!r}" for k, g in zip(sources, gradients) if _broken(g)]
    for tap in TAPS:
        if reached[tap] and tap not in cls.needs:
            found.append(f"taps: {tap!r} gets a gradient but is not in needs")
        if not reached[tap] and tap in cls.needs:
            found.append(f"taps: {tap!r} is in needs but gets no gradient")
    if any(reached[key] for key in encoder) != cls.encodes:
        found.append(
            f"taps: encodes is {cls.encodes}, and the encoder itself gets {'no' if cls.encodes else 'a'} gradient"
        )
    return found + [f"taps: parameter {key!r} gets no gradient" for key in parameters if not reached[key]]


def _broken(gradient: Tensor | None) -> bool:
    return gradient is not None and not bool(torch.isfinite(gradient).all())


def check_mask(cls: type[Loss]) -> list[str]:
    """The null action before an episode, which nobody executed, does not count."""
    one = trial(cls)
    batch = one.batch.clone()
    batch[PREVIOUS_ACTION][batch[IS_INIT]] = -torch.tensor(CALVIN.null_action)
    if _same(one, replace(one, batch=batch)):
        return []
    return ["mask: previous_action counts at is_init, where it is no action that anybody took"]


def check_hidden(cls: type[Loss]) -> list[str]:
    """What stands for an action that nobody knows does not count: neither in the value nor in the gradients."""
    one = trial(cls)
    # half of the first window is hidden, all of the second, and every other frame of the last
    known = torch.ones(WINDOWS, FRAMES, dtype=torch.bool)
    known[0, FRAMES // 2 :], known[1], known[-1, 1::2] = False, False, False
    one.batch[ACTION_MASK] = known
    batch = one.batch.clone()
    batch[ACTION][~known] *= -1.0
    # the action of a frame is the previous one of the next
    batch[PREVIOUS_ACTION][:, 1:][~known[:, :-1]] *= -1.0
    if _same(one, replace(one, batch=batch)):
        return []
    return ["hidden: an action counts although action_mask says that it is not known; use base.known_actions"]


def _same(one: Trial, other: Trial) -> bool:
    """Whether a change of the batch has no effect on the mean and on its gradients."""
    means = [each.run().mean() for each in (one, other)]
    taps = [getattr(one.latents, tap) for tap in TAPS] + [p for p in one.loss.parameters() if p.requires_grad]
    first, second = (torch.autograd.grad(mean, taps, allow_unused=True, retain_graph=True) for mean in means)
    return torch.equal(*means) and all(_equal(a, b) for a, b in zip(first, second))


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)


def check_repeats(cls: type[Loss]) -> list[str]:
    """The same torch seed gives the same value, and neither the batch nor the taps are written to."""
    one = trial(cls)
    batch, taps = one.batch.clone(), leaves(one.latents)
    same = torch.equal(one.run().value, one.run().value)
    found = [] if same else ["repeats: two calls with the same torch seed differ; draw random numbers from torch"]
    written = [f"{key!r} of the batch" for key in batch.keys(True, True) if not torch.equal(batch[key], one.batch[key])]
    written += [f"tap {tap!r}" for tap in TAPS if not torch.equal(getattr(taps, tap), getattr(one.latents, tap))]
    return found + [f"repeats: {what} was written to" for what in written]


def check_scale(cls: type[Loss]) -> list[str]:
    """The scale is left to the world model, which applies it once."""
    one = trial(cls)
    with seeded(0):
        louder = cls(replace(one.loss.options, scale=3.0 * one.loss.options.scale + 1.0), one.loss.shapes)
    louder.load_state_dict(one.loss.state_dict())
    if torch.equal(one.run().value, replace(one, loss=louder).run().value):
        return []
    return ["scale: the value depends on the scale, which the world model applies again"]


def check_after_step(cls: type[Loss]) -> list[str]:
    """`after_step` can be called after a step, and leaves the loss usable."""
    one = trial(cls)
    one.run().mean().backward()
    one.loss.after_step()
    if all(bool(torch.isfinite(value).all()) for value in one.loss.state_dict().values()):
        return []
    return ["after_step: it left numbers that are not finite"]


def check_leak(cls: type[Loss]) -> list[str]:
    """A loss that predicts actions is at chance where observations say nothing about them; see `action_error`."""
    if not cls.predicts_actions:
        return _undeclared(cls)
    error = action_error(cls)
    if error >= LEAK:
        return []
    return [
        f"leak: actions are predicted from noise with an error of {error:.2f}, and chance is {CHANCE:.2f}; "
        "read embed, not the recurrent taps that the action was fed to"
    ]


def _undeclared(cls: type[Loss]) -> list[str]:
    """A loss that has actions as its target and does not say so, so that nobody would look for its leak."""
    one = trial(cls)
    # with all weights at zero an action that goes into a network changes nothing, and one that is a target still does
    with torch.no_grad():
        for weight in one.loss.parameters():
            weight.zero_()
    batch = one.batch.clone()
    batch[ACTION] *= -0.5
    batch[PREVIOUS_ACTION][~batch[IS_INIT]] *= -0.5
    value, other = one.run().mean(), replace(one, batch=batch).run().mean()
    if torch.equal(value, other) or not bool(torch.isfinite(value)):
        return []
    return ["leak: the loss compares something with actions; set predicts_actions = True, so that leaks are looked for"]


def action_error(cls: type[Loss], *, steps: int = 300, windows: int = 96, batch: int = 16, seed: int = 0) -> float:
    """Error of actions that a loss's own networks, trained on noise, predict on other noise.

    Args:
        cls: a loss that predicts actions.
        steps: gradient steps; the encoder and the recurrent model stay random.
        windows: for training, and as many held out.
        batch: windows per step.
        seed: of everything.

    Returns:
        mean absolute error per action dimension, as the loss reports it (see `Loss.predicts_actions`).
    """
    model = tiny_model(seed=seed, deter=64, hidden=64).requires_grad_(False)
    with seeded(seed):
        loss = cls(cls.Options(), model.shapes)
        data = [model.with_targets(noise_batch(windows, seed=seed + 1 + i)) for i in range(2)]
        seen, held_out = (model.filter(frames) for frames in data)
        if trained := [value for value in loss.parameters() if value.requires_grad]:
            optimizer = torch.optim.Adam(trained, lr=2e-3)
            for _ in range(steps):
                rows = torch.randint(windows, (batch,))
                optimizer.zero_grad()
                loss(_rows(seen, rows), data[0][rows], model).mean().backward()
                optimizer.step()
                loss.after_step()
        with torch.no_grad():
            output = loss(held_out, data[1], model)
    return float(output.metrics.get("l1", output.mean()))


def _rows(latents: Latents, rows: Tensor) -> Latents:
    return Latents(**{tap: getattr(latents, tap)[rows] for tap in TAPS})


CHECKS: tuple[Callable[[type[Loss]], list[str]], ...] = (
    check_taps,
    check_mask,
    check_hidden,
    check_repeats,
    check_scale,
    check_after_step,
    check_leak,
)


def examine(cls: type[Loss]) -> Iterator[tuple[str, list[str]]]:
    """Every check in its turn: what it demands, in words, and what is wrong, one sentence each.

    Where the class or its shapes are wrong, the others are not tried.

    Args:
        cls: a loss, for instance from `registry.find`.
    """
    for one in (check_class, check_shapes, *CHECKS):
        found = tried(one, cls)
        yield (one.__doc__ or "").partition("\n")[0], found
        if found and one in (check_class, check_shapes):
            return


def check(cls: type[Loss]) -> list[str]:
    """What is wrong with a loss, one sentence each; see `examine`."""
    return [sentence for _, found in examine(cls) for sentence in found]
