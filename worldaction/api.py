"""Functions for notebooks: data in, imagination and pictures out. `worldaction` offers them all by name.

store = open_play("play")                     # a play store, or CALVIN, LeRobot, Minari, robomimic
model = train(store, ModelConfig.of(store, deter=256), TrainingConfig(steps=1000))
dream = imagine(model, store)                 # TensorDict [4, 20]
filmstrip(model, dream, store)                # a PIL image: true above imagined
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from tensordict import TensorDict
from torch import Tensor

from worldaction.errors import UserError
from worldaction.io.pictures import Pixels, captioned, enlarge, tile
from worldaction.io.recorder import progress
from worldaction.latents import encode
from worldaction.play.convert import convert, fingerprint, frames
from worldaction.play.held_out import HeldOut
from worldaction.play.inspect.conventions import check_conventions
from worldaction.play.readers.source import open_source
from worldaction.play.store import PlayStore
from worldaction.play.windows import WindowSampler
from worldaction.random import Stream, uniform
from worldaction.spec import ACTION, BELIEF, CODE, Split
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import DECODER, WorldModel
from worldaction.world_model.train import as_device

FRAME: Final = "frame"  # [] int64, the row of a store that an imagined frame stands for
CELL: Final = 96
"""Smallest side, in pixels, to which the frames of a film strip are enlarged."""


def open_play(path: Path | str, *, image_size: int = 64, cache: Path | str | None = None, **options: Any) -> PlayStore:
    """Open recorded robot data, converting it into a play store if it is none yet.

    Args:
        path: a play store, or a data set of CALVIN, LeRobot, Minari or robomimic; see docs/data.md.
        image_size: side of the images, in pixels, of a set that has to be converted.
        cache: folder in which the converted store is kept; beside the data set if not given. A set that has been
            converted before, with the same files and size, is opened from there.
        options: those of `open_source`, such as `unknown="success"`.

    Raises:
        UserError: nothing is there, it has none of these formats, it is damaged, or its actions are not what they are
            taken for (see `worldaction data check`).
    """
    path = Path(path)
    source = open_source(path, **options)
    layout = check_conventions(source)
    if (path / "store.json").is_file() and not options:
        return PlayStore.open(path)
    source = HeldOut(source, layout=layout)
    folder = path.resolve().parent if cache is None else Path(cache)
    store = folder / f"{path.resolve().name}-{image_size}px-{fingerprint(source, image_size)[:8]}"
    if store.is_dir():
        return PlayStore.open(store)
    with progress(frames(source), f"converting {path}", "frame") as bar:
        strict = bool(options.get("strict"))
        return convert(source, store, image_size=image_size, progress=bar.update, strict=strict)


def load(
    folder: Path | str,
    *,
    losses: Sequence[str] = DECODER,
    core: str | None = None,
    device: torch.device | str = "auto",
) -> WorldModel:
    """Load a saved world model, frozen, with its decoder.

    Args:
        folder: what `WorldModel.save` wrote, such as RUN/artefacts/seed0/world_model.
        losses: names of the losses whose networks are wanted; the decoder's by default.
        core: the recurrent core, where it is a ``module:Class`` of your own: loading imports nothing that a file names.
        device: "auto" (a GPU if there is one), "cpu", "cuda", or a torch.device.

    Raises:
        UserError: a file is missing or does not fit, or there is no such device.
    """
    if (Path(folder) / "artefacts").is_dir():
        raise UserError(f"{folder} is a run's folder; give one of its models, {folder}/artefacts/seed0/world_model")
    return WorldModel.load(folder, losses=losses, core=core).to(as_device(device))


@torch.no_grad()
def imagine(
    model: WorldModel,
    start: PlayStore | Latent | Path | str,
    actions: Tensor | None = None,
    *,
    windows: int = 4,
    context: int = 8,
    horizon: int = 20,
    split: Split = "validation",
    seed: int = 0,
) -> TensorDict:
    """Imagine what happens under some actions, from recorded frames or from latents.

    Args:
        model: a world model.
        start: a play store (or its folder), in which windows are drawn, seen for `context` frames and then imagined; or
            latents [B, ...] to begin from.
        actions: [B, H, A]; from a store, the recorded ones if not given.
        windows: B, how many windows of a store.
        context: frames of a window that are seen before imagination begins, 1 or more.
        horizon: H, frames that are imagined, if no actions are given.
        split: which episodes of the store; those for validation were not trained on.
        seed: of the choice of windows and of the samples. A row's samples do not depend on the other rows.

    Returns:
        TensorDict [B, H] of the imagined frames: ``action`` [A] that led there, ``belief`` [D] and ``code`` [S] of the
        latent (see `latents_of`), and, from a store, ``frame`` [], the row of the store that holds the true frame.

    Raises:
        UserError: no episode is long enough, latents come without actions, or actions of another shape.
    """
    if isinstance(start, Latent):
        if actions is None:
            raise UserError("imagine: latents come without recorded actions; give actions [B, H, A]")
        return _roll(model, start, actions, torch.arange(len(start.belief)), seed)
    store = start if isinstance(start, PlayStore) else PlayStore.open(start)
    horizon = horizon if actions is None else actions.shape[1]
    episodes = [episode for episode in store.episodes if episode.split == split]
    if not episodes:
        others = sorted({episode.split for episode in store.episodes})
        raise UserError(
            f"imagine: {store.path} has no {split} episodes; its splits are {others}; give split= one of them"
        )
    length = context + horizon
    index = WindowSampler(episodes, length=length, seed=seed).sample(None, windows * length)[0].view(windows, length)
    ranges = [(first, first + context) for first in index[:, 0].tolist()]
    seen = encode(model, store.frames, ranges, resamples=1, seed=seed).latent
    if actions is None:
        # the action at the last frame that is seen leads to the first that is imagined
        actions = store.frames[ACTION][index[:, context - 1 : -1].flatten()].unflatten(0, (windows, horizon))
    dream = _roll(model, Latent(*(part[0, :, -1] for part in seen)), actions, index[:, 0], seed)
    return dream.set(FRAME, index[:, context:].to(dream[BELIEF].device))


def latents_of(imagined: TensorDict) -> Latent:
    """The latents [B, H, ...] of what `imagine` returned, as `model.feature` and `model.decode` take them."""
    return Latent(imagined[BELIEF], imagined[CODE])


@torch.no_grad()
def filmstrip(
    model: WorldModel,
    imagined: TensorDict,
    store: PlayStore | None = None,
    *,
    camera: str | None = None,
    columns: int = 8,
) -> Image.Image:
    """Imagined frames as a picture: a row for each dream, true frames above them if the store is given.

    Args:
        model: with a decoder.
        imagined: [B, H], from `imagine`.
        store: what `imagine` was given.
        camera: which; the model's first if not given.
        columns: frames shown of each dream, evenly spaced.

    Raises:
        UserError: the model draws no images, or not of this camera, or the dreams do not come from a store.
    """
    cameras = model.config.cameras
    camera = (cameras[0] if cameras else "") if camera is None else camera
    if camera not in cameras:
        raise UserError(f"filmstrip: the model draws no {camera!r}; its cameras are {list(cameras)}")
    if store is not None and FRAME not in imagined.keys():  # noqa: SIM118 - TensorDict has no `in`
        raise UserError("filmstrip: these dreams began from latents, so there are no true frames; leave store out")
    times = torch.linspace(0, imagined.shape[1] - 1, min(columns, imagined.shape[1])).round().long()
    shown = imagined[:, times.to(imagined[BELIEF].device)]
    drawn = model.decode(model.feature(latents_of(shown)))[camera].cpu().numpy()
    cells: list[Pixels] = []
    for row, pictures in enumerate(drawn):
        if store is not None:
            true = store.frames[camera][shown[FRAME][row].cpu()].numpy()
            cells += _row(true, [f"true, +{int(t) + 1}" for t in times])
        cells += _row(pictures, [f"imagined, +{int(t) + 1}" for t in times])
    return Image.fromarray(tile(cells, len(times)))


def _row(pictures: np.ndarray, names: Sequence[str]) -> list[Pixels]:
    return [captioned(enlarge(picture, CELL), name) for picture, name in zip(pictures, names, strict=True)]


def _roll(model: WorldModel, latent: Latent, actions: Tensor, rows: Tensor, seed: int) -> TensorDict:
    """[B, H] latents after each of the actions [B, H, A]; rows [B] name the dreams' random numbers."""
    wanted = [len(latent.belief), "H", model.config.layout.action]
    if actions.dim() != 3 or [actions.shape[0], actions.shape[2]] != [wanted[0], wanted[2]]:
        raise UserError(f"imagine: actions are {list(actions.shape)}; give {wanted}".replace("'H'", "H"))
    device = model.proprio_mean.device
    latent, actions, rows = Latent(*(part.to(device) for part in latent)), actions.to(device), rows.to(device)
    found = []
    for step, action in enumerate(actions.unbind(1)):
        latent = model.prior(latent, action, uniform(seed, Stream.PRIOR, rows, step, model.config.groups))
        found.append(latent)
    belief, code = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
    return TensorDict({ACTION: actions, BELIEF: belief, CODE: code}, actions.shape[:2])
