"""The text of a kernel file with the sizes that it is compiled for."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
KERNEL = re.compile(r"WA_KERNEL\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")


@dataclass(frozen=True)
class Source:
    """One compilation: a file of this folder, and its sizes.

    Attributes:
        name: file without its ending, such as "steps".
        sizes: macros without their prefix WA_, such as ("D", 256); sorted, so that equal sizes are equal sources.
    """

    name: str
    sizes: tuple[tuple[str, int], ...]

    @property
    def macros(self) -> list[str]:
        """What the compiler is told, such as "WA_D=256"."""
        return [f"WA_{name}={value}" for name, value in self.sizes]

    @property
    def key(self) -> str:
        """A digest of everything that the compiler reads but its own options."""
        text = "\0".join([*self.macros, *(f"{name}\0{text}" for name, text in sorted(files(self.name).items()))])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def source(name: str, **sizes: int) -> Source:
    """A `Source` of the file `name`.cuh with its sizes."""
    return Source(name, tuple(sorted(sizes.items())))


@cache
def files(name: str) -> dict[str, str]:
    """A file of this folder and what it includes, by file name."""
    text = (FOLDER / f"{name}.cuh").read_text(encoding="utf-8")
    found = {f"{name}.cuh": text}
    for included in re.findall(r'^#include "(\w+)\.cuh"', text, re.M):
        found |= files(included)
    return found


@cache
def kernels(name: str) -> tuple[str, ...]:
    """Names of the kernels that a file and its includes define."""
    return tuple(kernel for text in files(name).values() for kernel in KERNEL.findall(text))
