"""Writes a folder that CALVIN's own evaluation script takes for a data set: the one configuration that it reads of it.

worldaction table upstream --out path/to/folder
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Final, get_args

from envs.calvin.client import Renderer, Scene, Settings, Simulator
from worldaction.errors import UserError
from worldaction.io.atomic import replacing

logger = logging.getLogger(__name__)

CONFIGURATION: Final = Path("validation/.hydra/merged_config.yaml")
"""What CALVIN's `make_env` reads of a data set."""
PRIME: Final = 0x01000193


def fnv1_32(*data: str | bytes, seed: int = 0) -> int:
    """The 32-bit FNV-1 hash (Fowler, Noll, Vo) as pyhash computes it.

    Args:
        data: hashed one after the other; text as UTF-16, little endian and without a mark, as pyhash does.
        seed: what to begin with: 0 in pyhash, 0x811c9dc5 in FNV's own definition.
    """
    value = seed
    for part in data:
        for byte in part.encode("utf-16-le") if isinstance(part, str) else part:
            value = (value * PRIME & 0xFFFFFFFF) ^ byte
    return value


def stand_in_for_pyhash() -> None:
    """Lets `import pyhash` find the one hash that CALVIN's evaluation needs, where pyhash is not installed."""
    if "pyhash" not in sys.modules and importlib.util.find_spec("pyhash") is None:
        module = ModuleType("pyhash", "A stand-in of worldaction's for the one hash of pyhash that CALVIN asks for.")
        vars(module)["fnv1_32"] = lambda: fnv1_32
        sys.modules["pyhash"] = module


def write_configuration(folder: Path, *, scene: Scene = "D", renderer: Renderer = "tiny") -> Path:
    """Writes what CALVIN's `make_env` reads of a data set, composed from calvin_env's own configuration.

    Args:
        folder: the stand-in for a data set; made if it is not there.
        scene: which of CALVIN's tables.
        renderer: what draws its images.

    Raises:
        UserError: the folder cannot be written, or the simulator does not start.
    """
    path = folder / CONFIGURATION
    # first the folder, which costs nothing
    with replacing(path) as temporary, closing(Simulator(Settings(scene=scene, renderer=renderer))) as simulator:
        temporary.write_text(simulator.configuration())
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the configuration of the folder that is named."""
    parser = argparse.ArgumentParser(
        prog="worldaction table upstream", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write, the data set of CALVIN's script")
    parser.add_argument("--scene", choices=get_args(Scene), default="D", help="which of CALVIN's tables")
    parser.add_argument("--renderer", choices=get_args(Renderer), default="tiny", help="what draws the images")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if (options.out / CONFIGURATION).exists():
        parser.exit(
            2, f"error: --out {options.out} has a {CONFIGURATION} already; give another folder, or delete that\n"
        )
    try:
        path = write_configuration(options.out, scene=options.scene, renderer=options.renderer)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    logger.info("%s is written; give CALVIN's make_env the folder %s", path, options.out)
