"""A batch on which a training came to no number, once more: what is not finite first?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldaction.errors import UserError
from worldaction.io.atomic import load_checkpoint
from worldaction.kernels.cpu_matmul import fast_float32
from worldaction.losses.registry import parse
from worldaction.spec import IS_INIT
from worldaction.world_model.cores.registry import bring_core
from worldaction.world_model.model import ModelConfig, WorldModel, restore, total


@dataclass
class Replayed:
    """What a batch came to."""

    step: int
    """Finished steps before it."""
    what: str
    """What was not finite then."""
    losses: dict[str, float] = field(default_factory=dict)
    """Means of the losses, not scaled."""
    found: list[str] = field(default_factory=list)
    """What is not finite now, in the order in which it was computed; the first is the cause, or nearest to it."""
    left_out: list[str] = field(default_factory=list)
    """Losses whose code was not imported, because nobody named it."""


def replay(path: Path | str, *, losses: Sequence[str] = (), core: str | None = None) -> Replayed:
    """Compute the losses and the gradient of a kept batch as the training did, with the weights that it had.

    Nothing that the file names is imported.

    Args:
        path: the file that the training named.
        losses: code of the user's that it may import, as ``module:Class``; others of them are left out.
        core: the core, where it is a ``module:Class``.

    Raises:
        UserError: the file is missing, damaged or of another training than a world model's.
    """
    kept = load_checkpoint(path)
    try:
        about, state, step = kept.extra["about"], kept.state, int(kept.extra["step"])
        config = ModelConfig.from_dict(about["config"], source=Path(path))
        batch = _batch(state["batch"])
        replayed = Replayed(step, str(kept.extra["what"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is no batch of a world model's training ({error!r}); give the file that the training named"
        ) from error
    if core is not None:
        bring_core(core)
    known = [text for text in config.losses if ":" not in parse(text).target or parse(text).target in losses]
    replayed.left_out = [text for text in config.losses if text not in known]
    model = WorldModel(replace(config, losses=tuple(known)))
    restore(model, state["module"], source=Path(path))
    replayed.found += [f"batch: {name}" for name in _not_finite(batch.flatten_keys(".").items())]
    replayed.found += [f"weights: {name}" for name in _not_finite(model.named_parameters())]
    _compute(model, batch, about, state["random"], replayed)
    return replayed


def _batch(values: Mapping[str, Any]) -> TensorDict:
    """[B, T] frames, on the CPU."""
    return TensorDict(dict(values), values[IS_INIT].shape[:2])


def _compute(
    model: WorldModel, batch: TensorDict, about: Mapping[str, Any], random: Tensor, replayed: Replayed
) -> None:
    """Losses and gradients, watched from module to module."""
    hooks = [
        module.register_forward_hook(_Watch(name, replayed))
        for name, module in model.named_modules()
        if name and not isinstance(module, nn.ModuleDict)
    ]
    torch.set_rng_state(random)
    # as a training computes, to the bit
    with fast_float32(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(about["bf16"])):
        terms, metrics, _ = model.losses_of(batch, open_loop=float(about["open_loop"]))
    for hook in hooks:
        hook.remove()
    replayed.losses = {name.removeprefix("loss/"): float(v) for name, v in metrics.items() if name.startswith("loss/")}
    replayed.found += [f"loss: {name}" for name in _not_finite(terms.items())]
    total(terms).backward()
    gradients = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    # backward comes to the last layers first
    replayed.found += [f"gradient: {name}" for name in reversed(_not_finite(gradients))]


class _Watch:
    """Notes a module whose output is not finite, and whether its input was."""

    def __init__(self, name: str, replayed: Replayed) -> None:
        self.name, self.replayed = name, replayed

    def __call__(self, module: nn.Module, given: Any, output: Any) -> None:
        if all(bool(tensor.isfinite().all()) for tensor in _tensors(output)):
            return
        inputs = list(_tensors(given))
        largest = max((float(tensor.abs().max()) for tensor in inputs if tensor.numel()), default=0.0)
        came = f"from an input of at most {largest:.3g}" if torch.tensor(largest).isfinite() else "as its input"
        self.replayed.found.append(f"module: {self.name} ({type(module).__name__}), {came}")


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of floating point numbers in nested containers."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value.detach()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _tensors([getattr(value, one.name) for one in dataclasses.fields(value)])
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _not_finite(named: Any) -> list[str]:
    return [name for name, tensor in named if not all(bool(one.isfinite().all()) for one in _tensors(tensor))]
