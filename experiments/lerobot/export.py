"""Writes a saved policy in LeRobot's form; the `lerobot` package is not needed for it.

OUT/config.json, model.safetensors                  as `lerobot` has them, the weights to the byte
OUT/policy_preprocessor.json, policy_postprocessor.json
OUT/plugin/                                         the distribution lerobot_policy_worldaction, for pip install
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from agents.policy import Policy
from worldaction import __version__
from worldaction.errors import UserError
from worldaction.interface import LEROBOT_IMAGE, LEROBOT_STATE
from worldaction.io.atomic import fsync_folder, write_json
from worldaction.io.sealed_json import read_json
from worldaction.spec import ACTION

PLUGIN: Final = "lerobot_policy_worldaction"
"""What the distribution and its module are called: `lerobot` imports every one whose name begins so."""
PYPROJECT: Final = f"""\
[build-system]
requires = ["setuptools>=77"]  # older ones write hyphens into the name, and lerobot then finds nothing
build-backend = "setuptools.build_meta"

[project]
name = "{PLUGIN}"
version = "{__version__}"
description = "Policies of worldaction for lerobot"
requires-python = ">=3.11"
dependencies = ["worldaction", "lerobot"]

[tool.setuptools]
packages = ["{PLUGIN}"]
"""


def export(folder: Path, out: Path) -> Path:
    """Write a policy in LeRobot's form.

    Args:
        folder: of the policy.
        out: the folder to create; it must not exist.

    Raises:
        UserError: there is no policy, or the folder exists or cannot be written.
    """
    policy = Policy.from_pretrained(folder)
    if out.exists():
        raise UserError(f"{out} exists already; delete it or choose another folder")
    partial = out.with_name(f"{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(policy, folder, partial)
        os.rename(partial, out)
        fsync_folder(out.parent)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _write(policy: Policy, folder: Path, out: Path) -> None:
    shutil.copyfile(folder / "model.safetensors", out / "model.safetensors")
    write_json(out / "config.json", settings(policy, read_json(folder / "config.json")), sealed=False)
    for name, steps in (("policy_preprocessor", BEFORE), ("policy_postprocessor", BEHIND)):
        write_json(out / f"{name}.json", {"name": name, "steps": steps}, sealed=False)
    code = Path(__file__).with_name(PLUGIN)
    shutil.copytree(code, out / "plugin" / PLUGIN, ignore=shutil.ignore_patterns("__pycache__"))
    (out / "plugin" / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")


BEFORE: Final = (
    {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
    {"registry_name": "to_batch_processor", "config": {}},
    {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
)
"""Steps of LeRobot's own before the policy, and behind it: see processor_worldaction.py."""
BEHIND: Final = BEFORE[-1:]


def settings(policy: Policy, own: Any) -> dict[str, Any]:
    """LeRobot's config.json of a policy.

    Args:
        policy: the policy.
        own: the content of its own config.json.
    """
    config, robot = policy.model.config, policy.interface
    known = {camera.key: camera for camera in robot.cameras}
    features: dict[str, Any] = {}
    for key in config.cameras:
        camera, side = known.get(key), config.image_size
        # a set of LeRobot's has names of LeRobot's; others' names are ours
        name = camera.name if camera and camera.name.startswith("observation.") else LEROBOT_IMAGE + key
        size = [camera.height, camera.width] if camera else [side, side]
        features[name] = {"type": "VISUAL", "shape": [3, *size]}
    if config.layout.robot:
        features[LEROBOT_STATE] = {"type": "STATE", "shape": [config.layout.robot]}
    return {
        "type": "worldaction",
        "n_obs_steps": 1,
        "input_features": features,
        "output_features": {ACTION: {"type": "ACTION", "shape": [config.layout.action]}},
        "device": "cpu",
        "push_to_hub": False,
        "normalization_mapping": dict.fromkeys(("VISUAL", "STATE", "ACTION"), "IDENTITY"),
        "worldaction": json.dumps(own),
    }
