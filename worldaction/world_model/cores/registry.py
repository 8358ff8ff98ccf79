"""Recurrent cores by name and from the command line's text; nothing here imports torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from worldaction.errors import UserError
from worldaction.extension import Family, load

CORES: Final = Family(
    "core",
    "--world-model.core",
    "worldaction.world_model.cores",
    "worldaction.world_model.cores.base:RecurrentCore",
    "torchrl_v3,recurrent=gru",
)


def check_imported(text: str, source: Path) -> None:
    """Refuse a core that a file names unless it is ours or its module is imported already: files import nothing.

    Args:
        text: as `--world-model.core` takes it.
        source: the file, for the error.

    Raises:
        UserError: says how to import it.
    """
    target = CORES.parse(text).target
    if target in CORES.own():
        return
    path = CORES.available().get(target, target)
    if path.partition(":")[0] not in sys.modules:
        raise UserError(
            f"{source} needs the core {target!r}, and loading a file imports no code that it names; import "
            f"{path.partition(':')[0]!r} first, or give core={target!r} to WorldModel.load"
        )


def bring_core(text: str) -> None:
    """Import the core that the caller names, so that files that name it can be loaded.

    Raises:
        UserError: there is no such core.
    """
    target = CORES.parse(text).target
    if target not in CORES.own():
        load(CORES.available().get(target, target), CORES.option)
