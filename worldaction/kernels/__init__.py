"""Operations of imagination, each with several implementations; this page chooses which one runs, and says why.

``<op>/reference.py`` is plain PyTorch: the definition, available everywhere, held against float64 by the tests. Every
other module of that folder that has the three names of `Implementation` is found by itself, so a new implementation
is one new file, ``worldaction/kernels/<op>/<name>.py``, and nothing else is edited:

    PRIORITY = 10                                       # the highest one that is available runs; the reference has 0
    def available(request: Request) -> str | None: ...  # None, or why not and what to do about it, in one line
    def run(*args, dtype: torch.dtype, **kwargs): ...   # arguments and results of the function in reference.py

Files that begin with an underscore, and those without ``PRIORITY``, are helpers. One more name is optional:

    OPT_IN = "no GPU has run it yet"                    # why it runs only where it is asked for by name

To ask for one, or for one an operation: ``--kernels reference`` or ``--kernels rollout=cuda,denoise=reference`` of a
study, the variable WORLDACTION_KERNELS, or the argument of the functions in `worldaction.kernels.ops`, which is how the
operations are called.
"""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from worldaction.errors import UserError, unknown

VARIABLE = "WORLDACTION_KERNELS"
REFERENCE = "reference"
DEFINITIONS = {"rollout": "prior_rollout", "denoise": "denoise", "dream": "dream", "scan": "scan"}
"""The operations, and the function of their reference.py that defines each."""

UNPROVEN = "no GPU has run it yet"
"""Why the CUDA kernels are opt-in, until `gpu_check` has passed on a GPU."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What an operation is asked to do: all that a choice may depend on.

    Attributes:
        device: where the inputs are.
        dtype: the lowest precision that products may have; states are float32 whatever it is.
        batch: rows B.
        sizes: lengths of the other axes by name, such as deter, groups, classes, hidden, action, horizon.
    """

    device: torch.device
    dtype: torch.dtype
    batch: int
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Implementation:
    """One way to run an operation: a module with these names.

    Attributes:
        op: the operation.
        name: of the module.
        priority: the highest one that is available runs.
        available: None for a request that it can serve, or why it cannot and what to do about it.
        run: the operation, with the arguments of its definition and ``dtype``.
        opt_in: why it runs only where it is asked for by name; empty if it runs by itself.
    """

    op: str
    name: str
    priority: int
    available: Callable[[Request], str | None]
    run: Callable[..., Any]
    opt_in: str = ""


@dataclass(frozen=True)
class Report:
    """What `implementations` says of one implementation.

    Attributes:
        op: the operation.
        name: of the implementation.
        chosen: whether it runs.
        reason: why it cannot run here, None if it can.
        opt_in: why it runs only where it is asked for; empty if it need not be.
    """

    op: str
    name: str
    chosen: bool
    reason: str | None
    opt_in: str = ""


def choose(op: str, request: Request, *, force: str | None = None) -> Implementation:
    """The implementation that serves a request.

    Args:
        op: the operation, a key of `DEFINITIONS`.
        request: what is asked.
        force: name of the implementation to take; else WORLDACTION_KERNELS names it, else the best available one runs
            that need not be asked for.

    Raises:
        UserError: the operation or the name is unknown, or the forced implementation is not available.
    """
    name = force or _forced().get(op)
    if name is None:
        best = next(each for each in _all(op) if not each.opt_in and each.available(request) is None)
        _log(op, best.name, str(request.device))
        return best
    return _named(op, name, request)


def implementations(request: Request | None = None) -> list[Report]:
    """Every implementation of every operation: which one runs, and why the others do not.

    Args:
        request: what is asked; by default a batch of 256 float32 rows of the preset `quick` on this machine's best
            device.
    """
    request = request or typical()
    reports = []
    for op in DEFINITIONS:
        taken = choose(op, request).name
        for each in _all(op):
            reason = each.available(request)
            reports.append(Report(op, each.name, each.name == taken, reason, each.opt_in))
    return reports


def typical(device: torch.device | None = None, *, dtype: torch.dtype = torch.float32, batch: int = 256) -> Request:
    """A request of the sizes of the preset `quick`.

    Args:
        device: where; the GPU if there is one.
        dtype: precision of the products.
        batch: rows.
    """
    sizes = {"deter": 256, "groups": 32, "classes": 16, "hidden": 200, "action": 7, "horizon": 16}
    sizes |= {"width": 256, "blocks": 1, "steps": 10, "chunk": 28, "success": 256}
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Request(device=device, dtype=dtype, batch=batch, sizes=sizes)


@cache
def _all(op: str) -> tuple[Implementation, ...]:
    """The implementations of an operation, best first; imported on first use."""
    if op not in DEFINITIONS:
        raise unknown("kernel operation", op, DEFINITIONS)
    package = importlib.import_module(f"{__name__}.{op}")
    definition = getattr(importlib.import_module(f"{package.__name__}.{REFERENCE}"), DEFINITIONS[op])
    found = [Implementation(op, REFERENCE, 0, _always, _exact(definition))]
    for info in pkgutil.iter_modules(package.__path__):
        if info.name == REFERENCE or info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        if hasattr(module, "PRIORITY"):
            opt_in = getattr(module, "OPT_IN", "")
            found.append(Implementation(op, info.name, module.PRIORITY, module.available, module.run, opt_in))
    return tuple(sorted(found, key=lambda each: (-each.priority, each.name)))


def _named(op: str, name: str, request: Request) -> Implementation:
    by_name = {each.name: each for each in _all(op)}
    if name not in by_name:
        raise unknown(f"implementation of {op}", name, by_name)
    reason = by_name[name].available(request)
    if reason is not None:
        raise UserError(f"implementation {name!r} of {op} cannot run here: {reason}; or do not force it ({VARIABLE})")
    return by_name[name]


def _forced() -> dict[str, str]:
    """Operation to implementation, as WORLDACTION_KERNELS says."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return {}
    if "=" not in text:
        return dict.fromkeys(DEFINITIONS, text)
    pairs = dict(part.strip().partition("=")[::2] for part in text.split(","))
    for op, name in pairs.items():
        if op not in DEFINITIONS or not name:
            known = ", ".join(DEFINITIONS)
            raise UserError(
                f"--kernels or {VARIABLE} {text!r} is not understood at {op!r}; give OP=NAME,... of {known}"
            )
    return pairs


def _always(request: Request) -> None:
    return None


def _exact(definition: Callable[..., Any]) -> Callable[..., Any]:
    """A definition multiplies in the precision of its inputs, whatever lower one it may have."""

    def run(*args: Any, dtype: torch.dtype, **kwargs: Any) -> Any:
        return definition(*args, **kwargs)

    return run


@cache
def _log(op: str, name: str, device: str) -> None:
    """Once for each choice, not once for each call."""
    logger.info("%s on %s runs the implementation %r", op, device, name)
