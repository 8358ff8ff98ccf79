"""The world model: encoder, recurrent core, and a list of losses. play data -> [world model] -> latents.

Training calls `losses_of`; everything after training calls `embed`, `start`, `posterior`, `prior`, `imagine`, `decode`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from worldaction.config import LOSSES_OF_PAPER, ModelSizes, check_ranges, sizes_of, to_dict
from worldaction.errors import UserError, unknown
from worldaction.io.atomic import WEIGHTS, load_tensors, save_tensors, write_json
from worldaction.io.sealed_json import read_json
from worldaction.io.typed_json import typed
from worldaction.losses.base import DrawsImages, Loss, Shapes
from worldaction.losses.building import build
from worldaction.losses.registry import parse
from worldaction.play.layout import Episode, layout_problem
from worldaction.play.store import PlayStore
from worldaction.random import Stream, uniform
from worldaction.spec import (
    ACTION,
    BELIEF,
    CALVIN,
    CODE,
    IS_INIT,
    PREVIOUS_ACTION,
    ROBOT,
    TARGET_GAP,
    Layout,
)
from worldaction.world_model.cores.base import build_core
from worldaction.world_model.cores.registry import bring_core, check_imported
from worldaction.world_model.latent import Latent, Latents, one_hot
from worldaction.world_model.nets import Encoder, proprio, to_float, to_uint8
from worldaction.world_model.pose import gaps
from worldaction.world_model.posed_core import PosedCore, told_of

POSE: Final = "pose"
"""The term by which a model that carries the pose learns what the law of the robot does not foresee."""
POSE_SCALE: Final = 10.0
Built = TypeVar("Built", bound=nn.Module)
DECODER = ("reconstruction",)
"""The loss whose network draws images."""
DRAWN_AT_ONCE: Final = 128
Actor = Callable[[Latent, int], Tensor]
"""Latent and step to actions [B, A]."""


@dataclass(frozen=True)
class ModelConfig(ModelSizes):
    """What it takes to build the same model again; saved beside the weights.

    Sizes have the defaults of `ModelSizes`, which are the paper's and want a GPU; `ModelConfig.of(store, deter=256)`
    takes cameras, image size and layout from data.
    """

    image_size: int = 64
    """Side of all images, in pixels."""
    losses: tuple[str, ...] = LOSSES_OF_PAPER
    """As `--losses` takes them, such as ("reconstruction", "kl=0.3,free_nats=1", "my_file:Mine")."""
    layout: Layout = CALVIN
    """What a frame of the data holds."""

    @classmethod
    def of(cls, store: PlayStore, **sizes: Any) -> ModelConfig:
        """The configuration of a model of a store's frames.

        Args:
            store: what the model is to be trained on.
            sizes: fields that differ from their defaults, such as ``deter=256`` or ``cameras=("rgb_static",)``.

        Raises:
            UserError: there is no such field, or the store lacks a camera that is asked for.
        """
        data = {"cameras": store.meta.layout.cameras, "image_size": store.meta.image_size, "layout": store.meta.layout}
        known = [field.name for field in fields(cls)]
        for name in sizes:
            if name not in known:
                raise unknown("field of ModelConfig:", name, known)
        config = cls(**{**data, **sizes})
        config.check_cameras()
        return config

    def check_cameras(self) -> None:
        """Refuse cameras that the layout does not have.

        Raises:
            UserError: names the camera, and those that there are.
        """
        missing = [camera for camera in self.cameras if camera not in self.layout.cameras]
        if missing:
            cameras = ", ".join(self.layout.cameras) or "no cameras"
            raise UserError(f"the play data have no {missing[0]!r}; they have {cameras}: set --world-model.cameras")

    def __repr__(self) -> str:
        """The sizes, in a few lines."""
        return "\n".join(["ModelConfig", *(f"  {name:<10}{text}" for name, text in self.described().items())])

    def described(self) -> dict[str, str]:
        """What the model sees, its latent and its losses, in words."""
        side = f" ({self.image_size} x {self.image_size} pixels)" if self.cameras else ""
        robot = [f"{ROBOT} [{self.layout.robot}]"] if self.layout.robot else []
        pose = 2 * self.layout.proprio if self.pose != "none" else 0
        feature = self.deter + pose + self.groups * self.classes
        beside = f", pose [{pose}]" if pose else ""
        return {
            "sees": ", ".join([*self.cameras, *robot]) + side,
            "latent": f"belief [{self.deter}]{beside}, code {self.groups} x {self.classes}; feature [{feature}]",
            "core": f"{self.core}, layers of {self.hidden}, embedding [{self.embed}], action [{self.layout.action}]",
            "losses": ", ".join(self.losses) or "none",
        }

    @property
    def observed(self) -> tuple[str, ...]:
        """What the model sees of a frame."""
        return (*self.cameras, ROBOT) if self.layout.robot else self.cameras

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: Path) -> ModelConfig:
        """From what JSON gives.

        Args:
            values: every field; `core` and `pose` may be missing, as from before there was a choice.
            source: where they come from, for the error.

        Raises:
            UserError: they do not fit this version, or name a core whose code nobody has imported.
        """
        remedy = "it was written by another version, or changed; train the model again"
        values = {"core": cls.core, "pose": "none", **values}
        # sizes have defaults, which would not be those of the model
        if missing := sorted({field.name for field in fields(cls)} - values.keys()):
            raise UserError(f"{source} lacks {missing[0]!r}; {remedy}")
        found: ModelConfig = typed(values, cls, source, remedy=remedy)
        if problem := layout_problem(found.layout):
            raise UserError(f"{source}: {problem}; {remedy}")
        if strange := sorted(set(found.cameras) - set(found.layout.cameras)):
            raise UserError(f"{source}: no frame has the camera {strange[0][:60]!r}; {remedy}")
        check_imported(found.core, source)
        return found


class WorldModel(nn.Module):
    """Encoder, recurrent core (`rssm`) and losses."""

    proprio_mean: Tensor
    proprio_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.burn_in < 1:
            raise UserError(f"burn_in is {config.burn_in}; the first frame must be seen once or more")
        if isinstance(config.losses, str):
            raise UserError(f"losses are a tuple of texts, not {config.losses!r}; write ({config.losses!r},)")
        check_ranges(config, "ModelConfig.")
        self.config = config
        self.encoder = Encoder(
            config.cameras,
            image_size=config.image_size,
            depth=config.depth,
            patch=config.patch,
            size=config.embed,
            proprio=config.layout.proprio,
        )
        pose, proprioception = config.pose == "servo", config.layout.proprio
        # a core that carries the pose is told it together with the action
        told = told_of(proprioception) if pose else 0
        core = build_core(
            config.core,
            embed=self.encoder.size,
            action=config.layout.action + told,
            deter=config.deter,
            groups=config.groups,
            classes=config.classes,
            hidden=config.hidden,
            unimix=config.unimix,
            null_action=(*config.layout.null_action, *[0.0] * told),
        )
        self.rssm = PosedCore(core, proprio=proprioception) if pose else core
        self.register_buffer("proprio_mean", torch.zeros(config.layout.proprio))
        self.register_buffer("proprio_std", torch.ones(config.layout.proprio))
        self.losses = nn.ModuleDict(build(config.losses, self.shapes))

    def __repr__(self) -> str:
        """Sizes, parameters and losses in a few lines; ``print(*model.children())`` shows the layers."""
        parameters = sum(p.numel() for p in self.parameters()) / 1e6
        head = f"WorldModel of {parameters:.2f} million parameters on {self.proprio_mean.device}"
        return "\n".join([head, *(f"  {name:<10}{text}" for name, text in self.config.described().items())])

    @property
    def shapes(self) -> Shapes:
        """Sizes as losses see them."""
        config = self.config
        return Shapes(
            **{**sizes_of(config), "embed": self.encoder.size, "deter": self.rssm.deter},
            image_size=config.image_size,
            action=config.layout.action,
            proprio=config.layout.proprio,
        )

    @property
    def feature_size(self) -> int:
        """F = D + S * C."""
        return self.shapes.feature

    def feature_limits(self) -> Tensor:
        """[F], what the numbers of a feature do not exceed: 1 for beliefs and one-hots, nothing for a pose."""
        limits = self.proprio_mean.new_ones(self.feature_size)
        if isinstance(self.rssm, PosedCore):
            self.rssm.parts(limits[: self.rssm.deter])[1].fill_(float("inf"))
        return limits

    def standardise(self, robot_obs: Tensor) -> None:
        """Set the scale of the proprioception from data.

        Args:
            robot_obs: [N, P], the frames that the model is trained on.
        """
        values = proprio(robot_obs, self.config.layout.euler)
        self.proprio_mean.copy_(values.mean(0))
        # a dimension that hardly moves (the gripper command of a reaching task) must not be blown up
        self.proprio_std.copy_(values.std(0, correction=0).clamp_min(1e-2))

    def fit_pose(self, frames: TensorDictBase, episodes: Sequence[Episode], *, seed: int) -> None:
        """Fit the law of the robot's motion, where the model carries the pose; a few seconds of one core.

        Args:
            frames: [N] of a store; the proprioception has been standardised.
            episodes: those that the model is trained on, and whose actions are known.
            seed: of the order of the windows.
        """
        if isinstance(self.rssm, PosedCore):
            self.rssm.pose.fit(self._proprio(frames, frames.batch_size), frames[ACTION][:], episodes, seed=seed)

    def target_gaps(self, frames: TensorDictBase, episodes: Sequence[Episode]) -> Tensor | None:
        """How far the robot's target is ahead of it in every frame, [N, P]; None where the model carries no pose.

        Args:
            frames: [N] of a store.
            episodes: of these frames, each of which begins at rest.
        """
        if not isinstance(self.rssm, PosedCore):
            return None
        return gaps(self.rssm.pose.law, self._proprio(frames, frames.batch_size), frames[ACTION][:], episodes)

    # Training ---------------------------------------------------------------------------------------------------------

    def losses_of(
        self, batch: TensorDictBase, *, open_loop: float | Tensor = 0.0
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Latents]:
        """All losses of a batch, scaled.

        Args:
            batch: [B, T] frames as the play store holds them.
            open_loop: share of the windows that are seen up to a random frame only and imagined from there on; a scalar
                tensor where it is not to be waited for.

        Returns:
            the scaled scalar of each loss, the scalars to log, and the taps.
        """
        batch = self.with_targets(batch)
        latents = self.filter(batch, open_loop=open_loop)
        terms, metrics = {}, {}
        for name, loss in self.each_loss().items():
            output = loss(latents, batch, self)
            mean = output.mean()
            terms[name] = loss.options.scale * mean
            metrics[f"loss/{name}"] = mean.detach()
            metrics |= {f"metrics/{name}/{key}": value for key, value in output.metrics.items()}
        if isinstance(self.rssm, PosedCore):
            error = self.rssm.pose_error(latents, batch, batch.get(TARGET_GAP, None))
            terms[POSE], metrics[f"loss/{POSE}"] = POSE_SCALE * error, error.detach()
        return terms, metrics, latents

    def each_loss(self) -> dict[str, Loss]:
        """The losses by name, in their order."""
        return {name: loss for name, loss in self.losses.items() if isinstance(loss, Loss)}

    def with_targets(self, batch: TensorDictBase) -> TensorDict:
        """The batch with float images [B, T, 3, H, W] and standardised proprioception [B, T, P] under "target"."""
        target = {camera: to_float(batch[camera]) for camera in self.config.cameras}
        target[ROBOT] = self._proprio(batch, batch.batch_size)
        return TensorDict({**dict(batch.items()), "target": target}, batch.batch_size, device=batch.device)

    def filter(self, batch: TensorDictBase, *, open_loop: float | Tensor = 0.0) -> Latents:
        """Posterior of a batch with targets [B, T], each window from an empty state and after the burn-in."""
        size, time = batch.batch_size
        images = {camera: batch["target", camera].flatten(0, 1) for camera in self.config.cameras}
        embed = self.encoder(images, batch["target", ROBOT].flatten(0, 1)).unflatten(0, (size, time))
        draws = torch.rand(size, self.config.burn_in - 1 + time, self.config.groups, device=embed.device)
        some = isinstance(open_loop, Tensor) or open_loop > 0
        first_imagined = _open_loop_from(size, time, open_loop, embed.device) if some else None
        gap = {"gap": batch.get(TARGET_GAP, None)} if isinstance(self.rssm, PosedCore) else {}
        return self.rssm.observe(
            embed,
            batch[PREVIOUS_ACTION],
            batch[IS_INIT],
            draws.clamp(1e-7, 1 - 1e-7),
            burn_in=self.config.burn_in,
            open_loop_from=first_imagined,
            **gap,
        )

    def shares(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each loss's share of the gradient norm at the encoder's parameters: who is teaching it?

        At the embedding, which contains the proprioception as it was measured, a loss would be given credit for
        gradients that teach nothing. A model that sees no camera has nothing to teach: all shares are 0.

        Args:
            terms: scaled losses, with their graph.
        """
        weights = list(self.encoder.parameters())
        norms = {}
        for name, term in terms.items():
            # some losses do not reach the encoder
            found: Sequence[Tensor | None] = ()
            if weights:
                found = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
            gradients = [gradient for gradient in found if gradient is not None]
            norms[name] = nn.utils.get_total_norm(gradients) if gradients else term.new_zeros(())
        total = torch.stack(list(norms.values())).sum().clamp_min(1e-12)
        return {f"gradient_share/{name}": norm / total for name, norm in norms.items()}

    # Use --------------------------------------------------------------------------------------------------------------

    def embed(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Encode frames.

        Args:
            observation: each camera uint8 [..., H, W, 3] and robot_obs [..., P].

        Returns:
            [..., E].
        """
        lead, side = self.check(observation), self.config.image_size
        images = {c: to_float(observation[c]).reshape(-1, 3, side, side) for c in self.config.cameras}
        body = self._proprio(observation, lead).flatten(0, -2) if lead else self._proprio(observation, lead)[None]
        return self.encoder(images, body).reshape(*lead, -1)

    def check(self, observation: Mapping[str, Tensor]) -> torch.Size:
        """Refuse what this model cannot have been trained on, which would be encoded all the same; the leading axes."""
        wanted = self.config.observed
        missing = [key for key in wanted if key not in observation.keys()]  # noqa: SIM118 - TensorDict has no `in`
        if missing:
            raise UserError(
                f"observation has no {missing[0]!r}, which this model sees; it has {sorted(observation.keys())}"
            )
        side, size = self.config.image_size, self.config.layout.robot
        if size and observation[ROBOT].shape[-1:] != (size,):
            raise UserError(f"{ROBOT!r} is {list(observation[ROBOT].shape)}; give [..., {size}]")
        lead = observation[ROBOT].shape[:-1] if size else observation[wanted[0]].shape[:-3]
        for camera in self.config.cameras:
            image, shape = observation[camera], [*lead, side, side, 3]
            if image.dtype != torch.uint8 or list(image.shape) != shape:
                kind = str(image.dtype).removeprefix("torch.")
                remedy = "worldaction.play.images.fitted makes such of larger ones"
                raise UserError(f"{camera!r} is {kind} {list(image.shape)}; this model sees uint8 {shape}, {remedy}")
        return lead

    def feature(self, latent: Latent) -> Tensor:
        """[..., F], belief and one-hot state side by side."""
        return torch.cat([latent.belief, one_hot(latent.code, self.config.classes)], -1)

    def start(self, embed: Tensor, *, seed: int, rows: Tensor) -> Latent:
        """The latent of an episode's first frame: it is fed `burn_in` times with the null action, as in training.

        Args:
            embed: [B, E].
            seed: of the random numbers.
            rows: [B] int64, global names of the episodes or dreams.
        """
        null = embed.new_tensor(self.config.layout.null_action).expand(len(embed), -1)
        empty = embed.new_zeros(len(embed), self.rssm.deter)
        # one [B, S] for each time that the frame is fed
        draws = [uniform(seed, Stream.START, rows, time, self.config.groups) for time in range(self.config.burn_in)]
        latent = self.rssm.first(empty, null, embed, draws[0])
        for numbers in draws[1:]:
            latent = self.rssm.again(latent, embed, numbers)
        return latent

    def posterior(self, latent: Latent, previous_action: Tensor, embed: Tensor, uniform: Tensor) -> Latent:
        """Take in one frame; see `RecurrentCore.posterior`."""
        return self.rssm.posterior(latent, previous_action, embed, uniform)

    def prior(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """Imagine one frame; see `RecurrentCore.prior`."""
        return self.rssm.prior(latent, action, uniform)

    def imagine(
        self, start: Latent, actor: Actor, horizon: int, *, seed: int, rows: Tensor | None = None
    ) -> TensorDict:
        """Roll the prior forward under an actor.

        Args:
            start: [B].
            actor: latent and step to actions [B, A].
            horizon: H.
            seed: of the random numbers.
            rows: [B] int64, global names of the dreams; 0 .. B-1 if not given.

        Returns:
            [B, H] in TorchRL's layout: root at t, ``next`` at t + 1, as views of one buffer.
        """
        rows = torch.arange(len(start.belief), device=start.belief.device) if rows is None else rows
        latents, actions = [start], []
        for step in range(horizon):
            actions.append(actor(latents[-1], step))
            draws = uniform(seed, Stream.PRIOR, rows, step, self.config.groups)
            latents.append(self.prior(latents[-1], actions[-1], draws))
        belief, code = (torch.stack(parts, 1) for parts in zip(*latents, strict=True))
        size = [len(rows), horizon]
        return TensorDict(
            {
                BELIEF: belief[:, :-1],
                CODE: code[:, :-1],
                ACTION: torch.stack(actions, 1),
                "next": TensorDict({BELIEF: belief[:, 1:], CODE: code[:, 1:]}, size),
            },
            size,
        )

    def decode(self, feature: Tensor) -> dict[str, Tensor]:
        """Draw what a feature [..., F] stands for: camera to uint8 [..., H, W, 3]."""
        drawer = self._drawer()
        if drawer is None:
            raise UserError(f"this model has no decoder: its losses are {list(self.losses)}; train with reconstruction")
        # so many that they fit into a CPU's cache, which was more than twice as fast at 64 pixels
        parts = [drawer.draw(part) for part in feature.reshape(-1, feature.shape[-1]).split(DRAWN_AT_ONCE)]
        drawn = {camera: torch.cat([to_uint8(part[camera]) for part in parts]) for camera in parts[0]}
        lead = feature.shape[:-1]
        return {camera: pictures.reshape(*lead, *pictures.shape[1:]) for camera, pictures in drawn.items()}

    def draws_images(self) -> bool:
        """Whether `decode` works."""
        return self._drawer() is not None

    def _drawer(self) -> DrawsImages | None:
        return next((loss for loss in self.each_loss().values() if isinstance(loss, DrawsImages)), None)

    def _proprio(self, frames: Mapping[str, Tensor] | TensorDictBase, lead: Sequence[int]) -> Tensor:
        """Standardised proprioception [..., P] of frames with these leading axes."""
        if not self.config.layout.robot:
            return self.proprio_mean.new_zeros(*lead, 0)
        return (proprio(frames[ROBOT].float(), self.config.layout.euler) - self.proprio_mean) / self.proprio_std

    # Disk -------------------------------------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> None:
        """Write config.json and model.safetensors into a folder."""
        folder = Path(folder)
        weights = save_tensors(folder / "model.safetensors", dict(self.state_dict()))
        write_json(folder / "config.json", to_dict(self.config) | {WEIGHTS: weights})

    @classmethod
    def load(cls, folder: Path | str, *, losses: Sequence[str] = DECODER, core: str | None = None) -> WorldModel:
        """Read a saved model, frozen and in evaluation mode.

        Nothing that the file names is imported: of its losses those come along that the caller names, and a core that
        is not one of ours is imported by the caller, or named here.

        Args:
            folder: holds config.json and model.safetensors.
            losses: the losses whose networks are wanted, as `--losses` names them; by default the decoder alone.
            core: the core, where it is a ``module:Class`` that is to be imported.

        Raises:
            UserError: a file is missing or does not fit, or the core's code has not been imported.
        """
        folder = Path(folder)
        if core is not None:
            bring_core(core)
        values = read_json(folder / "config.json", dict[str, Any])
        # models of before have none
        weights = load_tensors(folder / "model.safetensors", expected=values.pop(WEIGHTS, None))
        config = ModelConfig.from_dict(values, source=folder / "config.json")
        wanted = tuple(text for text in config.losses if parse(text).target in losses)
        model = rebuilt(lambda: cls(replace(config, losses=wanted)), weights, source=folder / "model.safetensors")
        return model.eval().requires_grad_(False)


def rebuilt(build: Callable[[], Built], weights: Mapping[str, Tensor], *, source: Path) -> Built:
    """A module with its weights. It is first built without memory, for a file may name sizes that nobody has room for.

    Args:
        build: makes the module, untrained.
        weights: by the names of its `state_dict`.
        source: where they come from, for the error.

    Raises:
        UserError: one is missing, of another shape, or holds NaN or an infinity.
    """
    # what looks at values while it is built cannot be built without them
    try:
        with suppress(NotImplementedError), torch.device("meta"):
            _check_fit(build().state_dict(), weights, source)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{source}: nothing can be built of the sizes in its config ({reason}); get it anew") from error
    module = build()
    restore(module, weights, source=source)
    return module


def restore(module: nn.Module, weights: Mapping[str, Tensor], *, source: Path) -> None:
    """Load a module's weights; what it does not have is left out.

    Args:
        module: what to load into.
        weights: by the names of its `state_dict`.
        source: where they come from, for the error.

    Raises:
        UserError: one is missing, of another shape, or holds NaN or an infinity.
    """
    _check_fit(module.state_dict(), weights, source)
    module.load_state_dict({key: weights[key] for key in module.state_dict()})


def part_of(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _check_fit(state: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: Path) -> None:
    for key, value in state.items():
        found = weights.get(key)
        if found is not None and not found.isfinite().all():
            raise UserError(f"{source}: {key!r} holds NaN or infinity, so it is of no use; train it again")
        if found is None or found.shape != value.shape:
            has = "lacks" if found is None else f"has {list(found.shape)} for"
            raise UserError(
                f"{source} {has} {key!r}, which is {list(value.shape)} here; it does not fit its config. If another"
                " version of worldaction saved it, train it again"
            )


def _open_loop_from(size: int, time: int, share: float | Tensor, device: torch.device) -> Tensor:
    """[B] the frame from which a window is imagined, of a share of them; their length T where all of it is seen."""
    first = torch.randint(1, max(time, 2), (size,), device=device)
    return first.masked_fill(torch.rand(size, device=device) >= share, time)


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum that is minimised."""
    return torch.stack(list(terms.values())).sum()
