"""Losses by name and from the command line's text; nothing here imports torch. The grammar: `worldaction.extension`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from worldaction.extension import Family, Spec

if TYPE_CHECKING:
    from worldaction.losses.base import Loss

LOSSES: Final = Family(
    "loss",
    "--losses",
    "worldaction.losses",
    "worldaction.losses.base:Loss",
    "inverse_dynamics=1.0 or kl=0.3,free_nats=1",
)


def parse(text: str) -> Spec:
    """Read ``NAME[=SCALE][,OPTION=VALUE...]``."""
    return LOSSES.parse(text)


def merge(given: Sequence[str], preset: Sequence[str]) -> tuple[str, ...]:
    """The user's list, each entry completed by the preset's options for the same loss.

    So that ``--losses reconstruction kl`` means the preset without its other losses, not losses with other settings.
    """
    base = {parse(text).target: dict(parse(text).options) for text in preset}
    merged = []
    for text in given:
        spec = parse(text)
        options = base.get(spec.target, {}) | dict(spec.options)
        merged.append(str(Spec(spec.target, tuple(options.items()))))
    return tuple(merged)


def available() -> dict[str, str]:
    """Every loss that has a name, and the ``module:Class`` it stands for."""
    return LOSSES.available()


def find(target: str) -> type[Loss]:
    """The class behind a name or a ``module:Class``."""
    cls: type[Loss] = LOSSES.find(target)
    return cls
