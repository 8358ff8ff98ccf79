"""The one optimisation loop: learning rate, clipping, finite checks, reports, checkpoints, a polite end on signals."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worldaction.artefact import load_checkpoint, save_checkpoint
from worldaction.errors import UserError
from worldaction.products import fast_float32

Report = Callable[[int, Mapping[str, float]], None]
"""Called with the number of finished steps and figures to log."""


class Stateful(Protocol):
    """Anything whose state belongs into a checkpoint, such as a sampler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Interrupted(Exception):
    """SIGINT or SIGTERM came; everything that is needed to go on has been saved."""


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


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set instead of ending the process; only the main thread can do this."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: event.set())
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_finite(terms: Mapping[str, Tensor], step: int, batch: Any, folder: Path | None) -> None:
    """Stop at a NaN or an infinity, and keep the batch for a replay.

    Args:
        terms: named scalars.
        step: where we are.
        batch: a TensorDict, saved beside the checkpoint.
        folder: where to save it; None saves nothing.
    """
    bad = [name for name, value in terms.items() if not bool(torch.isfinite(value).all())]
    if not bad:
        return
    where = ""
    if folder is not None and hasattr(batch, "memmap"):
        batch.cpu().memmap(folder / "non_finite_batch")
        where = f"; its batch is in {folder / 'non_finite_batch'}"
    raise UserError(f"loss {bad[0]!r} is not finite at step {step}{where}; lower its scale or the learning rate")


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
        checkpoint: Path | None = None,
        save_every: int = 0,
        also: Mapping[str, Stateful] | None = None,
    ) -> None:
        """
        Args:
            module: what is trained.
            optimizer: over its parameters.
            steps: number of steps in all.
            factor: learning-rate factor of a step.
            clip: largest norm of the gradient.
            checkpoint: file to resume from and to save to; None saves nothing.
            save_every: steps between two checkpoints.
            also: further things with a state, such as the sampler.
        """
        self.module, self.optimizer, self.steps, self.factor, self.clip = module, optimizer, steps, factor, clip
        self.checkpoint, self.save_every, self.also = checkpoint, save_every, dict(also or {})
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.step = 0

    def run(self, loss: Callable[[int], tuple[Tensor, Callable[[], Mapping[str, float]]]], report: Report) -> None:
        """Train to the end.

        Args:
            loss: of a step: the scalar to minimise, and a function that gives the figures to log.
            report: called after each step.
        """
        self.resume()
        with stop_signal() as stop, fast_float32():
            while self.step < self.steps:
                figures = self._advance(loss)
                report(self.step, figures)
                if stop.is_set():
                    self._save()
                    raise Interrupted(f"stopped at step {self.step} of {self.steps}")
                if self.save_every and self.step % self.save_every == 0:
                    self._save()

    def _advance(self, loss: Callable[[int], tuple[Tensor, Callable[[], Mapping[str, float]]]]) -> Mapping[str, float]:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(self.step)
        value, figures = loss(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        if not bool(torch.isfinite(norm)):
            raise UserError(f"the gradient is not finite at step {self.step}; lower the learning rate")
        self.optimizer.step()
        self.step += 1
        return {**figures(), "gradient_norm": float(norm)}

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "random": random_state(),
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
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
        set_random_state(state["random"])
        for name, thing in self.also.items():
            thing.load_state_dict(state["also"][name])


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
