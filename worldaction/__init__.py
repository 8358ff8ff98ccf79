"""World-action models: a recurrent world model with an inverse-dynamics loss, and policies trained in its imagination.

What `__all__` lists is the public interface, which semantic versioning promises; docs/python_api.md describes it.
Importing this package is cheap: each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from worldaction.programs import only_programs as _only_programs
from worldaction.registration import register as _register

if TYPE_CHECKING:
    from worldaction.api import filmstrip, imagine, latents_of, load, open_play
    from worldaction.config import TrainingConfig
    from worldaction.errors import UserError
    from worldaction.losses.base import Loss, LossOutput, Shapes
    from worldaction.play.store import PlayStore
    from worldaction.play.writers.store import StoreWriter
    from worldaction.spec import Layout
    from worldaction.world_model.cores.base import RecurrentCore
    from worldaction.world_model.latent import Latent, Latents
    from worldaction.world_model.model import ModelConfig, WorldModel
    from worldaction.world_model.train import train

__version__ = "0.1.0"

__all__ = [
    "Latent",
    "Latents",
    "Layout",
    "Loss",
    "LossOutput",
    "ModelConfig",
    "PlayStore",
    "RecurrentCore",
    "Shapes",
    "StoreWriter",
    "TrainingConfig",
    "UserError",
    "WorldModel",
    "filmstrip",
    "imagine",
    "latents_of",
    "load",
    "open_play",
    "train",
]

_WHERE = {
    "api": ("filmstrip", "imagine", "latents_of", "load", "open_play"),
    "config": ("TrainingConfig",),
    "errors": ("UserError",),
    "losses.base": ("Loss", "LossOutput", "Shapes"),
    "play.store": ("PlayStore",),
    "play.writers.store": ("StoreWriter",),
    "spec": ("Layout",),
    "world_model.cores.base": ("RecurrentCore",),
    "world_model.latent": ("Latent", "Latents"),
    "world_model.model": ("ModelConfig", "WorldModel"),
    "world_model.train": ("train",),
}
"""In which module each name is."""


def __getattr__(name: str) -> Any:
    """What is asked for, imported then."""
    module = next((module for module, names in _WHERE.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    """What there is, for completion in a notebook."""
    return sorted([*globals(), *__all__])


# gymnasium.make("worldaction/PlayTable-v0") works from here on
_register()
_only_programs(__name__, __path__[0], {"worldaction.kernels.build": "worldaction build-kernels"})
