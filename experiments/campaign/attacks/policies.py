"""Policies and world models: their folders, and what a policy is shown."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from agents.policies.diffusion import DiffusionPolicy
from agents.policy import Policy
from experiments.campaign.base import Attack, Input
from experiments.campaign.damage import by_hand
from worldaction import spec
from worldaction.world_model.model import ModelConfig, WorldModel

SIDE = 16


def tiny_model() -> WorldModel:
    """An untrained model of CALVIN's frames."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"deter": 8, "hidden": 8, "groups": 2, "classes": 4, "embed": 8, "depth": 4, "patch": 2}
    config = ModelConfig(**sizes, cameras=(spec.STATIC,), image_size=SIDE, losses=("kl",))
    return WorldModel(config).eval().requires_grad_(False)


def tiny_policy() -> Policy:
    """A policy that has learned nothing."""
    model = tiny_model()
    head = DiffusionPolicy(model.feature_size, spec.ACTION_SIZE, chunk=2, denoising_steps=2, width=8)
    return Policy(model, head.requires_grad_(False), task="open_drawer")


def observation() -> dict[str, Any]:
    """What it is shown."""
    rng = np.random.default_rng(0)
    return {spec.STATIC: rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), spec.ROBOT: rng.normal(size=spec.ROBOT_SIZE)}


class _Saved(Attack):
    """A folder of a policy."""

    has_checksums = True

    def build(self) -> None:
        """See `Attack`."""
        tiny_policy().save_pretrained(self.folder / "saved")

    def answer(self) -> Any:
        """The first action of an episode."""
        return Policy.from_pretrained(self.folder / "saved").predict(observation())[0].tolist()


class Policies(_Saved):
    """As it was saved, but for damage."""

    name = "policy"


class PoliciesByHand(_Saved):
    """Its config, edited by somebody."""

    name = "policy, edited"
    has_checksums = False

    def input(self, rng: np.random.Generator) -> Input:
        """See `Attack`."""
        return self.input_by(by_hand, rng, [self.folder / "saved" / "config.json"])


class Models(Attack):
    """A folder of a world model."""

    name = "world model"
    has_checksums = True

    def build(self) -> None:
        """See `Attack`."""
        tiny_model().save(self.folder / "saved")

    def answer(self) -> Any:
        """What it makes of a picture."""
        frame = {key: torch.as_tensor(value)[None] for key, value in observation().items()}
        return WorldModel.load(self.folder / "saved").embed(frame).tolist()


class Observations(Attack):
    """What a sound policy is shown: nothing of which a number is NaN or infinite may lead to an action."""

    name = "observation"

    def build(self) -> None:
        """See `Attack`."""
        tiny_policy().save_pretrained(self.folder / "saved")

    def answer(self) -> Any:
        """The first action of an episode."""
        return self._act(observation())

    def input(self, rng: np.random.Generator) -> Input:
        """See `Attack`."""
        shown = observation()
        key = list(shown)[rng.integers(2)]
        words, shown[key] = _spoilt(shown[key], rng)
        return Input(f"{key}: {words}", nullcontext(), lambda: self._act(shown))

    def _act(self, shown: dict[str, Any]) -> Any:
        action = Policy.from_pretrained(self.folder / "saved").predict(shown)[0]
        numbers = [value for value in shown.values() if getattr(value, "dtype", None) is not None]
        if any(value.dtype.kind == "f" and not np.isfinite(value).all() for value in numbers):
            raise AssertionError("an action for numbers that are none")
        return action.tolist()


def _spoilt(value: np.ndarray, rng: np.random.Generator) -> tuple[str, Any]:
    number = (np.nan, np.inf, -np.inf, 1e300, 1e30, -1e38)[rng.integers(6)]
    as_float = value.astype(np.float64)
    as_float.flat[rng.integers(value.size)] = number
    choices: dict[str, Any] = {
        f"one number is {number}": as_float,
        "numbers of another type": value.astype((np.float16, np.int64, np.complex64, np.str_)[rng.integers(4)]),
        "another shape": value[..., : int(rng.integers(value.shape[-1]))],
        "an axis more": value[None],
        "two axes more": value[None, None],
        "lists": value.tolist(),
        "nothing": None,
        "objects": np.array([object()]),
        "text": "x",
    }
    names = list(choices)
    name = names[0] if rng.random() < 0.5 else names[rng.integers(len(names))]
    return name, choices[name]
