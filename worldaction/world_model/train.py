"""Training a world model: a store in, a model out; resumable to the bit on a CPU.

One step is split in two, so that a GPU can replay the second part (`worldaction.cuda_graph`): what the host prepares
(`ModelStep.draw`), and what a device makes of it (`ModelStep.loss`), a function of tensors alone. On a GPU batches are
drawn and copied ahead (`worldaction.play.prefetch`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from worldaction.config import TrainingConfig, check_ranges, digest, to_dict
from worldaction.cuda_graph import Graph
from worldaction.errors import UserError
from worldaction.fit import Fit, Report, linear_decay, linear_rise
from worldaction.io.atomic import sum_of
from worldaction.io.recorder import progress
from worldaction.losses.tools.contract import enforce
from worldaction.play.action_masking import knows_actions
from worldaction.play.layout import Episode
from worldaction.play.prefetch import Ahead, Batches, Here
from worldaction.play.store import PlayStore
from worldaction.play.windows import WindowBatches, window_batches
from worldaction.spec import ACTION, ACTION_MASK, IS_INIT, PREVIOUS_ACTION, ROBOT, TARGET_GAP
from worldaction.world_model.model import ModelConfig, WorldModel, total

logger = logging.getLogger(__name__)

SHARES_EVERY = 250
"""Steps between two looks at the losses' shares of the gradient."""


def train(
    store: PlayStore | Path | str,
    config: ModelConfig | None = None,
    training: TrainingConfig | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "auto",
    checkpoint: Path | str | None = None,
    report: Report | None = None,
) -> WorldModel:
    """Train a world model on the training episodes of a play store.

        model = train(store, ModelConfig.of(store, deter=256), TrainingConfig(steps=1000, batch=16, length=24))

    Args:
        store: an open play store, or its folder.
        config: sizes and losses; `ModelConfig.of(store)` if not given.
        training: steps, windows and optimiser; `TrainingConfig()` if not given, which is the paper's 230,000 steps.
        seed: of the weights, the windows and the samples.
        device: "auto" (a GPU if there is one), "cpu", "cuda", or a torch.device.
        checkpoint: a file that is written as the training goes on, and taken up if it exists; delete it when the model
            is saved.
        report: called after each step with the number of finished steps and figures such as ``loss/kl``; a progress bar
            is shown either way.

    Returns:
        the model on its device, frozen and in evaluation mode, as `WorldModel.load` gives it.

    Raises:
        UserError: no episode is long enough, a loss breaks its contract or is not finite, or there is no such device.
    """
    work = Training(store, config, training, seed=seed, device=device, checkpoint=checkpoint)
    with progress(work.training.steps, "world model", "step", initial=work.step) as bar:

        def tell(done: int, figures: Mapping[str, float]) -> None:
            bar.update(1)
            if report is not None:
                report(done, figures)

        work.run(tell)
    return work.model.eval().requires_grad_(False)


class Training:
    """What `train` does in two parts, so that a caller knows where a resumed training stands before it goes on.

    Attributes:
        model: what is trained.
        training: how.
        windows: where its batches come from.
    """

    model: WorldModel
    windows: WindowBatches

    def __init__(
        self,
        store: PlayStore | Path | str,
        config: ModelConfig | None = None,
        training: TrainingConfig | None = None,
        *,
        seed: int = 0,
        device: torch.device | str = "auto",
        checkpoint: Path | str | None = None,
        begin: WorldModel | None = None,
    ) -> None:
        """See `train`: build the model, check its losses, and take up the checkpoint.

        Args:
            store, config, training, seed, device, checkpoint: as for `train`.
            begin: a trained model of the same sizes and losses to go on with, its scale of the proprioception and its
                law of motion included; None begins with nothing.
        """
        store = store if isinstance(store, PlayStore) else PlayStore.open(store)
        self.training = TrainingConfig() if training is None else training
        check_ranges(self.training, "TrainingConfig.")
        where = as_device(device)
        store.verify()
        torch.manual_seed(seed)
        self.model = WorldModel(ModelConfig.of(store) if config is None else config)
        if begin is not None:
            self.model.load_state_dict(begin.state_dict())
        elif store.meta.layout.robot:
            self.model.standardise(torch.cat([store.frames[ROBOT][e.start : e.stop] for e in _of_training(store)]))
            self.model.fit_pose(store.frames, _learned_from(store), seed=seed)
        gaps = self.model.target_gaps(store.frames, store.episodes)
        self.model.to(where)
        if not self.model.rssm.has_kernels:
            logger.info("core %s runs in plain PyTorch; the kernels are for dreamer_v2", self.model.config.core)
        enforce(self.model, frames=self.training.length)
        self.windows = window_batches(
            store,
            batch=self.training.batch,
            length=self.training.length,
            seed=seed,
            keys=_keys_read(self.model, store),
            also=None if gaps is None else {TARGET_GAP: gaps},
        )
        graph = Graph(where) if self.training.graph else None
        self._origin = _Origin(self.model.config, self.training, seed, store, begin)
        self._step = self._steps(store, where, graphed=graph is not None, sees=begin is not None)
        self._fit = self._optimised(graph, None if checkpoint is None else Path(checkpoint))
        self._fit.resume()

    @property
    def step(self) -> int:
        """Finished steps."""
        return self._fit.step

    def run(self, report: Report) -> None:
        """Train to the end.

        Args:
            report: called after each step; figures are read off the device when they are looked at.
        """

        def finish(done: int, figures: Mapping[str, float]) -> None:
            for loss in self.model.each_loss().values():
                loss.after_step()
            report(done, figures)

        with closing(self._step.batches):
            self._fit.run(self._step.loss, finish, draw=self._step.draw, replayable=self._step.replayable)

    @property
    def skipped(self) -> list[int]:
        """Steps whose batches were passed over, because somebody asked for it."""
        return self._fit.skipped

    def discard(self) -> None:
        """Delete the checkpoint, once the model has been saved."""
        self._fit.discard()

    def _steps(self, store: PlayStore, where: torch.device, *, graphed: bool, sees: bool) -> ModelStep:
        starts = partial(as_episode_starts, null_action=store.meta.layout.null_action)
        return ModelStep(
            self.model,
            Ahead(self.windows, starts, where) if where.type == "cuda" else Here(self.windows, starts),
            steps=self.training.steps,
            open_loop=self.training.open_loop,
            bf16=self.training.bf16,
            looks_every=SHARES_EVERY,
            graphed=graphed,
            sees=sees,
        )

    def _optimised(self, graph: Graph | None, checkpoint: Path | None) -> Fit:
        options = self.training
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=options.lr, weight_decay=options.weight_decay, eps=options.eps, fused=True
        )
        return Fit(
            self.model,
            optimizer,
            steps=options.steps,
            factor=partial(linear_decay, steps=options.steps, warmup=options.warmup, decay_from=options.decay_from),
            clip=options.clip,
            adaptive_clip=options.adaptive_clip,
            checkpoint=checkpoint,
            save_every=options.save_every,
            also={"batches": self._step.batches, "origin": self._origin},
            graph=graph,
            about=self._about,
        )

    def _about(self) -> dict[str, Any]:
        """What it takes to replay a batch, beside the model's weights."""
        return {"config": to_dict(self.model.config), "open_loop": float(self._step.open_loop), "bf16": self._step.bf16}


class _Origin:
    """What a checkpoint is of, so that another training does not take it up in silence."""

    def __init__(
        self, config: ModelConfig, training: TrainingConfig, seed: int, store: PlayStore, begin: WorldModel | None
    ) -> None:
        # how often it is saved changes nothing
        settings = replace(training, save_every=0)
        self.parts = {
            "config": digest(config),
            "training": digest(settings),
            "seed": str(seed),
            "store": digest(len(store), store.checksums),
        }
        if begin is not None:
            self.parts["beginning"] = sum_of({name: value.cpu() for name, value in begin.state_dict().items()})

    def state_dict(self) -> dict[str, str]:
        """Digests by what they are of."""
        return self.parts

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Refuse a checkpoint of something else.

        Raises:
            UserError: names what differs.
        """
        for name, part in self.parts.items():
            if state.get(name) != part:
                raise UserError(
                    f"the checkpoint is of another training: its {name} differs; give another file, or delete it"
                )


def as_device(device: torch.device | str) -> torch.device:
    """Where to compute.

    Args:
        device: "auto" takes a GPU if there is one.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: no CUDA GPU is available to torch; use cpu or auto")
    return chosen


def _learned_from(store: PlayStore) -> list[Episode]:
    """Episodes of training whose actions are known."""
    return [e for e in _of_training(store) if knows_actions(store, e)]


def _of_training(store: PlayStore) -> list[Episode]:
    return [e for e in store.episodes if e.split == "training"]


def _keys_read(model: WorldModel, store: PlayStore) -> list[str]:
    """What a batch holds of the store: images that nobody looks at are not read."""
    keys = [*model.config.observed, PREVIOUS_ACTION, ACTION, IS_INIT]
    keys += [ACTION_MASK] if store.frames.get(ACTION_MASK, None) is not None else []
    return keys + sorted(set().union(*(loss.reads for loss in model.each_loss().values())))


class ModelStep:
    """`draw` and `loss` of a `Fit` over a world model."""

    def __init__(
        self,
        model: WorldModel,
        batches: Batches,
        *,
        steps: int,
        open_loop: float,
        bf16: bool,
        looks_every: int,
        graphed: bool = False,
        sees: bool = False,
    ) -> None:
        """
        Args:
            model: what is trained.
            batches: windows [B, T] of play, where the model is; each begins like an episode, see `as_episode_starts`.
            steps: number of steps in all, over which the share of imagined windows rises.
            open_loop: share of the windows that are seen up to a random frame only, see `linear_rise`.
            bf16: compute in mixed precision. bfloat16 has float32's range, so gradients need no scale of their own.
            looks_every: steps between two looks at the losses' shares of the gradient.
            graphed: everything that changes lies in tensors that keep their place.
            sees: the model can see already, so the share of imagined windows is the largest from the first step on.
        """
        self.model, self.batches, self.steps, self.bf16, self.looks_every = model, batches, steps, bf16, looks_every
        self.largest, self.graphed, self.sees = open_loop, graphed, sees
        self.device = model.proprio_mean.device
        self.open_loop: float | Tensor = torch.zeros((), device=self.device) if graphed and open_loop else 0.0
        self.batch: TensorDict | None = None

    def draw(self, step: int) -> TensorDict:
        """The batch of a step, which `loss` will look at."""
        batch = self.batches.sample()
        open_loop = self.largest * (1.0 if self.sees else linear_rise(step, steps=self.steps))
        if isinstance(self.open_loop, Tensor):
            self.open_loop.fill_(open_loop)
        else:
            self.open_loop = open_loop
        if self.graphed and self.batch is not None:
            self.batch.copy_(batch)
        else:
            self.batch = batch
        return self.batch

    def loss(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The sum of the scaled losses of the batch that was drawn, and what there is to log."""
        assert self.batch is not None
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            terms, metrics, _ = self.model.losses_of(self.batch, open_loop=self.open_loop)
        if self.looks(step):
            metrics |= self.model.shares(terms)
        return total(terms), metrics

    def looks(self, step: int) -> bool:
        """Whether a step measures the losses' shares of the gradient."""
        # counted as the record counts, by finished steps, or what is computed here would not be recorded
        return step == 0 or (step + 1) % self.looks_every == 0

    def replayable(self, step: int) -> bool:
        """Whether a step does the same work as its neighbours."""
        return not self.looks(step)


def as_episode_starts(batch: TensorDict, null_action: Sequence[float]) -> TensorDict:
    """Windows [B, T] as if an episode began with each of them: as every dream and every evaluation does."""
    batch[PREVIOUS_ACTION] = batch[PREVIOUS_ACTION].clone()
    batch[PREVIOUS_ACTION][:, 0] = torch.tensor(null_action)
    return batch
