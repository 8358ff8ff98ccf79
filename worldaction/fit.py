"""The one optimisation loop: learning rate, clipping, finite checks, reports, checkpoints, a polite end on signals."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from worldaction.cuda_graph import Graph
from worldaction.errors import UserError
from worldaction.io.atomic import load_checkpoint, save_checkpoint, write_json
from worldaction.io.sealed_json import read_json
from worldaction.kernels.cpu_matmul import fast_float32
from worldaction.signals import Interrupted, stop_signal

logger = logging.getLogger(__name__)
AVERAGED = 50
"""Steps over which `AdaptiveClip` averages."""
NOT_FINITE = "non_finite_batch.safetensors"
"""Beside a checkpoint: the batch of a step whose loss is not finite, with all that it takes to replay it."""
SKIP = "skip.json"
"""Beside a checkpoint: steps whose batches are to be passed over."""
Report = Callable[[int, Mapping[str, float]], None]
"""Called with the number of finished steps and figures to log."""
Loss = Callable[[int], tuple[Tensor, Mapping[str, Tensor]]]
"""Of a step: the scalar to minimise, and scalars to log, which are read off the device only if somebody looks."""


class Figures(Mapping[str, float]):
    """Scalars of a device as numbers. A device is waited for when a number is looked at, and not before."""

    def __init__(self, scalars: Mapping[str, Tensor]) -> None:
        self._scalars = {name: scalar.detach() for name, scalar in scalars.items()}

    def __getitem__(self, name: str) -> float:
        return float(self._scalars[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._scalars)

    def __len__(self) -> int:
        return len(self._scalars)


class Stateful(Protocol):
    """Anything whose state belongs into a checkpoint, such as a sampler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def linear_decay(step: int, *, steps: int, warmup: int, decay_from: float, final: float = 0.1) -> float:
    """Factor of the learning rate: a linear rise, a plateau, a linear fall to `final`.

    Args:
        step: 0-based.
        steps: number of steps in all.
        warmup: steps of the rise.
        decay_from: share of the steps at which the fall begins.
        final: factor at the end.
    """
    rise = min(1.0, (step + 1) / max(warmup, 1))
    fall = max(0.0, (step / steps - decay_from) / max(1.0 - decay_from, 1e-9))
    return rise * (1.0 - (1.0 - final) * fall)


def linear_rise(step: int, *, steps: int, start: float = 0.25, end: float = 0.75) -> float:
    """Weight of what is learned second: 0 at first, 1 at last, a straight line between two shares of the steps."""
    return min(1.0, max(0.0, (step / steps - start) / (end - start)))


def cosine_decay(step: int, *, steps: int, final: float = 0.05) -> float:
    """Factor of the learning rate: half a cosine from 1 to `final`."""
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


class AdaptiveClip:
    """Clips a gradient's norm at a multiple of its running average, so that only unusual gradients are clipped.

    What is averaged is the clipped norm: an outlier does not move the limit much, and a lasting change does. Everything
    is a tensor of the device, so a CUDA graph can hold it.
    """

    def __init__(self, times: float, *, largest: float, device: torch.device) -> None:
        """
        Args:
            times: the multiple.
            largest: limit of the norm in any case.
            device: of the gradients.
        """
        self.times, self.largest = times, largest
        # 0 before the first step, which is clipped at `largest` alone
        self.usual = torch.zeros((), device=device)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> tuple[Tensor, Tensor]:
        """Clip the gradients; the norm that they had, and its limit."""
        known = [parameter for parameter in parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in known if parameter.grad is not None])
        limit = torch.where(self.usual > 0, self.times * self.usual, norm).clamp(1e-12, self.largest)
        # in units of the limit, because a limit on the device cannot be handed over without waiting for it
        nn.utils.clip_grads_with_norm_(known, 1.0, norm / limit)
        clipped = torch.minimum(norm, limit)
        self.usual.copy_(torch.where(self.usual > 0, self.usual.lerp(clipped, 1.0 / AVERAGED), clipped))
        return norm, limit

    def state_dict(self) -> dict[str, Tensor]:
        """The running average."""
        return {"usual": self.usual}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state, in the same tensor."""
        self.usual.copy_(state["usual"])


class Fit:
    """Optimises a module for a number of steps, and can be taken up where it stopped, to the bit on a CPU."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        steps: int,
        factor: Callable[[int], float],
        clip: float = math.inf,
        adaptive_clip: float = 0.0,
        checkpoint: Path | None = None,
        save_every: int = 0,
        also: Mapping[str, Stateful] | None = None,
        graph: Graph | None = None,
        about: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """
        Args:
            module: what is trained.
            optimizer: over its parameters.
            steps: number of steps in all.
            factor: learning-rate factor of a step.
            clip: largest norm of the gradient.
            adaptive_clip: largest norm in multiples of its running average, see `AdaptiveClip`; 0: no such limit.
            checkpoint: file to resume from and to save to; None saves nothing.
            save_every: steps between two checkpoints.
            also: further things with a state, such as the sampler.
            graph: replays steps on a GPU; the loss is then a function of tensors that `draw` fills.
            about: what a batch whose loss is not finite is kept with, such as the configuration of the module.
        """
        self.module, self.optimizer, self.steps, self.factor, self.clip = module, optimizer, steps, factor, clip
        self.checkpoint, self.save_every, self.also = checkpoint, save_every, dict(also or {})
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.step, self.graph, self.about = 0, graph, about
        self.skipped: list[int] = []
        """Steps whose batches were passed over, because somebody asked for it; see `skip`."""
        self.adaptive_clip: AdaptiveClip | None = None
        if adaptive_clip:
            device = optimizer.param_groups[0]["params"][0].device
            self.adaptive_clip = AdaptiveClip(adaptive_clip, largest=clip, device=device)
            self.also["adaptive_clip"] = self.adaptive_clip
        self._let_graph_step()

    def run(
        self,
        loss: Loss,
        report: Report,
        *,
        draw: Callable[[int], Any] | None = None,
        replayable: Callable[[int], bool] = lambda step: True,
    ) -> None:
        """Train to the end.

        Args:
            loss: see `Loss`.
            report: called after each step.
            draw: called before each step for what the host alone can do, such as drawing a batch, which it returns.
            replayable: whether a step does the same work as its neighbours, so that a graph may replay it.
        """
        self.resume()
        asked = set() if self.checkpoint is None else set(steps_to_skip(self.checkpoint.parent))
        with stop_signal() as stop, fast_float32():
            while self.step < self.steps:
                if self.step in asked:
                    self._pass_over(draw)
                    continue
                figures = self._advance(loss, draw, replayed=self.graph is not None and replayable(self.step))
                report(self.step, figures)
                if stop.is_set():
                    self._save()
                    raise Interrupted(f"stopped at step {self.step} of {self.steps}", stop.number)
                if self.save_every and self.step % self.save_every == 0:
                    self._save()

    def _advance(self, loss: Loss, draw: Callable[[int], Any] | None, *, replayed: bool) -> Figures:
        self._set_rates()
        batch = draw(self.step) if draw is not None else None
        # a few kilobytes; without them the batch of a loss that is not finite could not be replayed
        random = torch.get_rng_state()
        if replayed:
            assert self.graph is not None
            # it has taken its step when it can be looked at; what is saved is still as it was
            value, norm, scalars = self.graph(partial(self._compute, loss, finish=True))
        else:
            value, norm, scalars = self._compute(loss)
        if not torch.stack([value, norm]).isfinite().all():
            raise self._not_finite(value, Figures(scalars), batch, random)
        if not replayed:
            self.optimizer.step()
        self.step += 1
        return Figures({**scalars, "gradient_norm": norm})

    def _let_graph_step(self) -> None:
        """A graph's steps read their rate and count on the device: a number of the host would be baked in."""
        for group in self.optimizer.param_groups if self.graph is not None else ():
            device = group["params"][0].device
            group["lr"] = torch.tensor(float(group["lr"]), device=device)
            group["capturable"] = device.type == "cuda"

    def _set_rates(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            now = rate * self.factor(self.step)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(now)
            else:
                group["lr"] = now

    def _compute(self, loss: Loss, *, finish: bool = False) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """The loss, the gradient's norm and the scalars to log; nothing here waits for the device."""
        value, scalars = loss(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        if self.adaptive_clip is None:
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        else:
            norm, limit = self.adaptive_clip(self.module.parameters())
            scalars = {**scalars, "gradient_limit": limit}
        if finish:
            self.optimizer.step()
        return value.detach(), norm, scalars

    def _pass_over(self, draw: Callable[[int], Any] | None) -> None:
        """A step that learns nothing from its batch."""
        if draw is not None:
            draw(self.step)
        logger.warning("step %d learns nothing: its batch is passed over, as was asked for", self.step)
        self.skipped.append(self.step)
        self.step += 1

    def _not_finite(self, value: Tensor, figures: Mapping[str, float], batch: Any, random: Tensor) -> UserError:
        """What to say of a step that comes to no number; its batch is kept, with all that it takes to replay it."""
        losses = sorted(figures, key=lambda name: not name.startswith("loss/"))
        bad = next((name for name in losses if not math.isfinite(figures[name])), "the sum")
        name = "the gradient" if value.isfinite() else f"loss {bad.removeprefix('loss/')!r}"
        what = f"{name} is not finite at step {self.step}"
        if self.checkpoint is None or not isinstance(batch, TensorDictBase):
            return UserError(f"{what}; lower its scale or the learning rate")
        path = self.checkpoint.parent / NOT_FINITE
        state = {"batch": batch.cpu().to_dict(), "module": self.module.state_dict(), "random": random}
        save_checkpoint(path, state, extra={"step": self.step, "what": what, "about": self.about()})
        return UserError(
            f"{what}; its batch is in {path}. To go on comes to the same again: worldaction replay {path} says what is"
            " not finite first, and with --skip has the run pass over this batch; or begin another run with a lower"
            " scale or learning rate"
        )

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "random": random_state(),
            "skipped": self.skipped,
            "also": {name: thing.state_dict() for name, thing in self.also.items()},
        }
        save_checkpoint(self.checkpoint, state)

    def discard(self) -> None:
        """Delete the checkpoint, once what was trained has been saved elsewhere."""
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)

    def resume(self) -> None:
        """Take up the checkpoint, if there is one; `run` does this too."""
        if self.checkpoint is None or self.step or not self.checkpoint.exists():
            return
        state = load_checkpoint(self.checkpoint).state
        # first, because what else is trained with knows what the checkpoint is of
        for name, thing in self.also.items():
            thing.load_state_dict(state["also"][name])
        try:
            self.module.load_state_dict(state["module"])
        except RuntimeError as error:
            raise UserError(
                f"{self.checkpoint} is of another model, or of another version of worldaction; delete it"
            ) from error
        self.optimizer.load_state_dict(state["optimizer"])
        self._let_graph_step()
        self.step = int(state["step"])
        self.skipped = list(state.get("skipped", []))
        set_random_state(state["random"])


def steps_to_skip(folder: Path) -> list[int]:
    """Steps whose batches a training with its checkpoint in a folder passes over."""
    return [int(step) for step in read_json(folder / SKIP)["steps"]] if (folder / SKIP).exists() else []


def skip(folder: Path, step: int) -> None:
    """Have a training with its checkpoint in a folder pass over the batch of a step when it goes on."""
    write_json(folder / SKIP, {"steps": sorted({*steps_to_skip(folder), step})})


def random_state() -> dict[str, Tensor]:
    """State of torch's global generators, on every device."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state |= {f"cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Undo what happened since `random_state`; devices that did not exist then are left as they are."""
    torch.set_rng_state(state["cpu"])
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda{i}" in state:
            torch.cuda.set_rng_state(state[f"cuda{i}"], i)
