"""Kernels on the CPU: the same text, compiled by g++ behind kernels_shim.h, and launched like on a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch

from worldaction.kernels.cuda.launch import Argument, addresses
from worldaction.kernels.cuda.source import Source, files, kernels

HERE = Path(__file__).parent
HAVE = shutil.which("g++") is not None
needs_shim = pytest.mark.skipif(not HAVE, reason="needs g++ on x86-64")


class ShimError(AssertionError):
    """What the shim noticed."""


class DoesNotCompileError(AssertionError):
    """What g++ said."""


class ShimProgram:
    """A `worldaction.kernels.cuda.launch.Program` on the CPU."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def launch(
        self, kernel: str, grid: int, block: int, *arguments: Argument, shared: int = 0, cooperative: bool = False
    ) -> None:
        """See `Program.launch`."""
        pointers, values = addresses(arguments)
        function = getattr(self._library, f"shim_{kernel}")
        function.restype = ctypes.c_char_p
        said = function(pointers, ctypes.c_uint(grid), ctypes.c_uint(block), ctypes.c_size_t(shared), int(cooperative))
        del values
        if said:
            raise ShimError(f"{kernel}: {said.decode()}")


def build(source: Source, texts: dict[str, str]) -> ShimProgram:
    """Compile texts, which may be a mutation of the files of a source."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        exports = "\n".join(f"WA_SHIM_EXPORT({kernel})" for kernel in kernels(source.name))
        main, library = folder / "main.cpp", folder / "kernels.so"
        main.write_text(f'#include "{source.name}.cuh"\n{exports}\n', encoding="utf-8")
        macros = [f"-D{macro}" for macro in (*source.macros, "WA_SHIM=1")]
        command = ["g++", "-O1", "-std=c++20", "-fPIC", "-shared", "-pthread", "-w", *macros, f"-I{HERE}"]
        done = subprocess.run([*command, str(main), "-o", str(library)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise DoesNotCompileError(done.stderr[:2000])
        return ShimProgram(library)


@cache
def load(source: Source, device: torch.device) -> ShimProgram:
    """A `worldaction.kernels.cuda.launch.Load` for the CPU; a source is compiled once for all tests."""
    return build(source, files(source.name))
